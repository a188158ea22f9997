"""The forward update: every block learns to hit its own target, with nothing but its own input and output."""

from __future__ import annotations

import torch
from torch import Tensor

from targetprop.network.network import Trace
from targetprop.network.pair import Pair
from targetprop.utils.precision import wide


def local_loss(difference: Tensor) -> Tensor:
    """1/2 ||t^n - s^n||^2, summed over units, mean over the batch. Ernoult et al. 2022."""
    if difference.dtype != wide(difference.dtype):
        power = torch.linalg.vector_norm(difference, dtype=wide(difference.dtype)).square()
    else:
        channels_last = difference.dim() == 4 and difference.is_contiguous(memory_format=torch.channels_last)
        flat = (difference.permute(0, 2, 3, 1) if channels_last else difference).flatten()  # without a copy
        power = torch.dot(flat, flat)  # which autocast leaves alone
    return power / (2 * len(difference))


def add_local_gradients(pair: Pair, trace: Trace, difference: Tensor) -> Tensor | None:
    """Add the gradients of the local loss, with the target held fixed, to the `.grad` of the block's parameters.

    Returns:
        J^T difference at the output of the block's linear map, where that is known on the way.
    """
    part, scale = pair.forward_part, -1 / len(difference)
    if part is not None:
        return part.add_gradients(trace.x, trace.context, difference, scale)
    if trace.y.requires_grad:
        torch.autograd.backward(trace.y, scale * difference)
    return None
