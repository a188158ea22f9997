"""The forward update's loss, local to a block."""

from __future__ import annotations

from torch import Tensor


def local_loss(y: Tensor, target: Tensor) -> Tensor:
    """1/2 ||F(s^{n-1}) - t^n||^2, summed over units, mean over the batch. Ernoult et al. 2022."""
    return (y - target).square().sum() / (2 * len(y))
