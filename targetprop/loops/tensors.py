"""States that are tensors throughout, for loops that write nothing else."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from targetprop.learner import Learner
from targetprop.utils.errors import UserError
from targetprop.utils.packed import packed


def state_in_tensors(learner: Learner) -> Learner:
    """Have a learner's `state_dict` hold contiguous tensors alone, as safetensors and Hugging Face's loops expect.

    >>> learner = state_in_tensors(hooked(Learner(network)))

    What is none (the step count, the state of the feedback's optimisers) is written into one tensor of bytes. Any
    learner reads both forms.

    Returns:
        The same learner.

    Raises:
        UserError: it is no Learner.
    """
    if not isinstance(learner, Learner):
        raise UserError(f"expected a Learner, got {type(learner).__name__}.", key="state_in_tensors")
    learner.register_state_dict_post_hook(_to_tensors)
    return learner


def _to_tensors(learner: nn.Module, state: dict[str, Any], prefix: str, local_metadata: Any) -> None:
    for key, value in state.items():
        if key.startswith(prefix):
            state[key] = value.contiguous() if isinstance(value, Tensor) else packed(value)
