"""Every unit standardised over the batch, in training and in evaluation: the batch norm of Shibuya et al. 2023."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from targetprop.layers.base import Context, register
from targetprop.layers.norm import NormRule
from targetprop.utils.errors import UserError
from targetprop.utils.precision import wide


class Standardize(nn.Module):
    """(x - mean) / (std + 1e-12), each unit over the batch, (batch, ...) to the same shape.

    There is nothing to learn and nothing to remember: statistics are those of the batch at hand, in evaluation, too,
    so that what a sample gives depends on the samples beside it. The standard deviation is the unbiased one.

    Shibuya et al., "Fixed-Weight Difference Target Propagation", 2023, https://arxiv.org/abs/2212.10352, as their code
    has it.

    Raises:
        UserError: a batch of one sample, which has no standard deviation.
    """

    epsilon = 1e-12

    def forward(self, x: Tensor) -> Tensor:
        if len(x) < 2:
            raise UserError(f"expected a batch of 2 samples or more, got {len(x)}", key="Standardize")
        std, mean = torch.std_mean(x.to(wide(x.dtype)), 0)
        return ((x - mean) / (std + self.epsilon)).to(x.dtype)


class StandardizeContext(NamedTuple):
    """What was put out in one pass, (batch, ...), and the standard deviation of each unit before."""

    y: Tensor
    std: Tensor


@register(Standardize)
class StandardizeRule(NormRule):
    """A noisy pass is standardised by its own statistics, as published, and goes back by those of the clean pass."""

    any_memory_order = True

    def run(  # type: ignore[override]
        self, layer: Standardize, x: Tensor, clean: StandardizeContext | None = None
    ) -> tuple[Tensor, Context]:
        y = layer(x)
        if clean is not None:
            return y, clean
        return y, StandardizeContext(y.detach(), x.detach().to(wide(x.dtype)).std(0))

    def vjp(self, layer: Standardize, delta: Tensor, context: StandardizeContext) -> Tensor:  # type: ignore[override]
        """(d - mean(d)) / (std + 1e-12) - y <d, y> / ((n - 1) std), the last term zero for units that do not vary."""
        y, std = context.y.to(context.std.dtype), context.std
        along = (delta * y).sum(0) / (len(y) - 1)
        along = torch.where(std > 0, along / std, torch.zeros_like(std))
        return ((delta - delta.mean(0)) / (std + layer.epsilon) - y * along).to(delta.dtype)
