"""Fully connected layers."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from targetprop.layers.base import Context, LayerRule, Style, register
from targetprop.layers.linear_map import LinearMap
from targetprop.layers.maps import MapFeedback, has_bias


@dataclass(frozen=True)
class Dense(LinearMap):
    """x W^T, with W (out, in), on the last dimension of x."""

    def correlate(self, x: Tensor, y: Tensor) -> Tensor:
        return y.flatten(0, -2).t() @ x.flatten(0, -2)

    def patches(self, x: Tensor) -> Tensor:
        return x.flatten(0, -2)[None]

    def rows(self, y: Tensor) -> Tensor:
        return y.flatten(0, -2)[None]

    def matrix(self, weight: Tensor) -> Tensor:
        return weight[None]

    def from_matrix(self, matrix: Tensor) -> Tensor:
        return matrix[0]


class DenseFeedback(MapFeedback):
    """y V^T + c, with V (in, out) and c (in,) of its own, initialised as `nn.Linear` does."""

    def __init__(self, layer: nn.Linear, *, bias: bool = True) -> None:
        super().__init__()
        self.forward_map = Dense()
        self.map = nn.Linear(layer.out_features, layer.in_features, bias)
        self.map.weight.data = self.map.weight.data.t().contiguous().t()  # in memory as the forward weight

    def affine(self, y: Tensor, context: Context, bias: Tensor | None) -> Tensor:
        return F.linear(y, self.weight, bias)

    @property
    def transposed(self) -> Tensor:
        return self.weight.t()

    def correlate(self, x: Tensor, y: Tensor) -> Tensor:
        return self.forward_map.correlate(y, x)


@register(nn.Linear)
class LinearRule(LayerRule[nn.Linear]):
    """y = x W^T + b; its feedback has weights of its own in every style."""

    any_memory_order = True

    def linear_map(self, layer: nn.Linear) -> LinearMap:
        return Dense()

    def feedback(self, layer: nn.Linear, style: Style) -> MapFeedback:
        return DenseFeedback(layer, bias=has_bias(layer, style))
