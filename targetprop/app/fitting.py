"""Whether a network and a data set fit each other."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor, nn

from targetprop.utils.errors import UserError


def refuse_misfit(network: nn.Module, inputs: Tensor, outputs: tuple[int, ...]) -> None:
    """Refuse a network that cannot take these inputs, or gives outputs that no target of the data is for.

    It stays as it is: a copy is tried.

    Args:
        inputs: as the data has them, (batch, ...).
        outputs: shape of what the data's targets are for, of one example.

    Raises:
        UserError: says what it was given, and what it gave.
    """
    kind = "" if inputs.is_floating_point() else " tokens"
    shape = f"{tuple(inputs.shape[1:])}{kind}"
    tried = deepcopy(network).eval()
    try:
        with torch.no_grad():
            made = tried(inputs)
    except Exception as error:  # whatever a layer raises
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"it cannot take this data's inputs of {shape}: {reason}", key="network") from error
    given = tuple(made.shape[1:]) if isinstance(made, Tensor) else type(made).__name__
    if given != outputs:
        message = f"expected outputs of {outputs} for an example, as its targets are, got {given} for inputs of {shape}"
        raise UserError(message, key="network")
