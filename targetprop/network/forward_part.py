"""The forward update of a block without autograd: one linear map, and layers above it whose adjoint is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from targetprop.layers.adjoint import adjoint, has_adjoint, norm_backward
from targetprop.layers.encoding import Context, encode
from targetprop.layers.maps import Convolution, LinearMap, linear_map

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
MAX_POOLS = (nn.MaxPool2d, nn.AdaptiveMaxPool2d)


@dataclass(frozen=True)
class ForwardPart:
    """A chain of layers with one linear map, the layer at this `position`."""

    layers: tuple[nn.Module, ...]
    position: int
    map: LinearMap

    def add_gradients(self, x: Tensor, context: Context, delta: Tensor, scale: float) -> Tensor:
        """Add the gradients of scale <delta, F(x)> to the `.grad` of the block's parameters.

        Args:
            delta: (batch, *output of the block).

        Returns:
            J^T delta down to the output of the map, not scaled.
        """
        pooled = delta  # has the same sums over a channel's positions as delta, and fewer of them
        for i in range(len(self.layers) - 1, self.position, -1):
            layer = self.layers[i]
            if isinstance(layer, NORMS):
                delta, weight, bias = norm_backward(layer, delta, context[i])
                _add(layer.weight, weight, scale)
                _add(layer.bias, bias, scale)
            else:
                delta = adjoint(layer, delta, context[i])
            if not (isinstance(layer, MAX_POOLS) and isinstance(self.map, Convolution)):
                pooled = delta
        layer = self.layers[self.position]
        assert isinstance(layer, (nn.Linear, nn.Conv2d))
        if layer.weight.requires_grad:
            _add(layer.weight, self.map.correlate(run_before(self.layers, self.position, x, context), delta), scale)
        if layer.bias is not None and layer.bias.requires_grad:
            _add(layer.bias, self.map.rows(pooled).sum(1, dtype=layer.bias.dtype).flatten(), scale)
        return delta


def forward_part(block: nn.Module) -> ForwardPart | None:
    """The block as a ForwardPart, or None if it has layers that this does not know."""
    if type(block) is not nn.Sequential:
        return None
    layers = tuple(block)
    maps = [(i, found) for i, layer in enumerate(layers) if (found := linear_map(layer)) is not None]
    if len(maps) != 1:
        return None
    (position, found) = maps[0]
    before, above = layers[:position], layers[position + 1 :]
    known = all(map(has_adjoint, (*before, *above))) and not any(isinstance(layer, NORMS) for layer in before)
    return ForwardPart(layers, position, found) if known else None


def run_before(layers: Sequence[nn.Module], position: int, x: Tensor, context: Context) -> Tensor:
    """The input of the layer at `position` in a chain, for an input x of the chain, as in the pass of this context."""
    for i in range(position):
        x, _ = encode(layers[i], x, context[i])
    return x


def _add(parameter: Tensor | None, gradient: Tensor, scale: float) -> None:
    if parameter is None or not parameter.requires_grad:
        return
    if parameter.grad is None:
        # In the memory order of the parameter, as autograd gives it: fused optimisers rely on that.
        parameter.grad = torch.mul(gradient, scale, out=torch.empty_like(parameter, requires_grad=False))
    else:
        parameter.grad.add_(gradient, alpha=scale)
