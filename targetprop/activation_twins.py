"""Twins of activations and normalisation whose slope makes equal weights equal Jacobians.

The published twin applies the activation again. Its slope at y = act(u) is act'(y), but the transposed Jacobian of
the block needs act'(u): 1 + y for ELU below zero (the published twin has e^y), 1 - y^2 for tanh. The style "linear"
multiplies by that slope on the clean batch; "matched" integrates it over y, so that it also holds away from it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from targetprop.encoding import Context, encode
from targetprop.twins import Twin, register_twin


@encode.register(nn.ELU)
@encode.register(nn.ReLU)
@encode.register(nn.LeakyReLU)
@encode.register(nn.Tanh)
def _(layer: nn.Module, x: Tensor, clean: Context = None) -> tuple[Tensor, Context]:
    y = layer(x)
    return y, y.detach() if clean is None else clean


@encode.register
def _(layer: nn.GELU, x: Tensor, clean: Context = None) -> tuple[Tensor, Context]:
    return layer(x), x.detach() if clean is None else clean


def slope(activation: nn.Module, context: Context) -> Tensor:
    """act'(u) from what `encode` keeps of an activation's clean pass: u for GELU, y for those whose y tells it."""
    if isinstance(activation, nn.ELU):
        return torch.where(context > 0, 1, context + activation.alpha)
    if isinstance(activation, nn.Tanh):
        return 1 - context.square()
    if isinstance(activation, nn.LeakyReLU):
        return (context > 0).to(context.dtype) * (1 - activation.negative_slope) + activation.negative_slope
    if isinstance(activation, nn.ReLU):
        return (context > 0).to(context.dtype)
    assert isinstance(activation, nn.GELU)
    return torch.ops.aten.gelu_backward(torch.ones_like(context), context, approximate=activation.approximate)


@register_twin(nn.ELU, nn.Tanh, nn.LeakyReLU, nn.ReLU, nn.GELU, style="linear")
@register_twin(nn.ReLU, nn.GELU, style="matched")  # their y does not tell the slope
class SlopeTwin(Twin):
    """The activation's slope on the clean batch, times y."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__(layer)
        self.activation = layer

    def decode(self, y: Tensor, context: Context) -> Tensor:
        return y * slope(self.activation, context)


@register_twin(nn.ELU, style="matched")
class MatchedELU(Twin):
    """y above zero, alpha y + y^2 / 2 down to y = -alpha, constant below."""

    def __init__(self, layer: nn.ELU) -> None:
        super().__init__(layer)
        self.alpha = layer.alpha

    def decode(self, y: Tensor, context: Context) -> Tensor:
        below = y.clamp(-self.alpha, 0)
        return y.clamp_min(0) + below * (self.alpha + below / 2)


@register_twin(nn.Tanh, style="matched")
class MatchedTanh(Twin):
    """y - y^3 / 3, constant beyond |y| = 1, which tanh does not reach."""

    def decode(self, y: Tensor, context: Context) -> Tensor:
        inside = y.clamp(-1, 1)
        return inside - inside**3 / 3


@register_twin(nn.BatchNorm1d, nn.BatchNorm2d, style="linear")
@register_twin(nn.BatchNorm1d, nn.BatchNorm2d, style="matched")
class GainTwin(Twin):
    """The gain of each channel on the clean batch, times y; how the batch's statistics react is left out."""

    def decode(self, y: Tensor, context: Context) -> Tensor:
        return y * context.gain
