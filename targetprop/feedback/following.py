"""Whether an optimiser still trains what it was made for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor, nn

if TYPE_CHECKING:
    from torch.optim import Optimizer


def fits(optimizer: Optimizer, parameters: Sequence[nn.Parameter]) -> bool:
    """Whether these are its parameters still, and its state lies where they lie."""
    (group,) = optimizer.param_groups
    if any(a is not b for a, b in zip(group["params"], parameters, strict=True)):
        return False
    for parameter, state in optimizer.state.items():
        for each in state.values():
            beside = isinstance(each, Tensor) and each.shape == parameter.shape and each.dim() > 0
            if beside and (each.device != parameter.device or each.dtype != parameter.dtype):
                return False
    return True
