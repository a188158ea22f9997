"""Softmax and its like, whose units look at each other."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from targetprop.layers.activation import ActivationRule, aten
from targetprop.layers.base import Context, add_rule


class SoftmaxContext(NamedTuple):
    """A softmax in one pass: its output, the dimension it sums over, and the type of its input."""

    y: Tensor
    dim: int
    dtype: torch.dtype


class SoftmaxRule(ActivationRule):
    """Softmax and its logarithm.

    Args:
        backward: of autograd, (delta, y, dim, dtype) -> J^T delta.
    """

    def __init__(self, backward: Callable[[Tensor, Tensor, int, torch.dtype], Tensor]) -> None:
        self.backward = backward

    def run(self, layer: nn.Module, x: Tensor, clean: Context = None) -> tuple[Tensor, Context]:
        y = layer(x)
        return y, SoftmaxContext(y.detach(), _softmax_dim(layer, x), x.dtype) if clean is None else clean

    def output(self, layer: nn.Module, kept: SoftmaxContext) -> Tensor:
        return kept.y

    def vjp(self, layer: nn.Module, delta: Tensor, context: SoftmaxContext) -> Tensor:
        y = context.y
        return self.backward(delta.to(y.dtype), y, context.dim, y.dtype).to(context.dtype)


def _softmax_dim(layer: nn.Module, x: Tensor) -> int:
    if isinstance(layer, nn.Softmax2d):
        return -3
    dim = layer.dim
    if isinstance(dim, int):
        return dim
    return 0 if x.dim() in (0, 1, 3) else 1  # as torch does without one, and warns


add_rule(SoftmaxRule(aten._softmax_backward_data), nn.Softmax, nn.Softmax2d)
add_rule(SoftmaxRule(aten._log_softmax_backward_data), nn.LogSoftmax)
