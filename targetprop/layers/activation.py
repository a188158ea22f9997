"""Activations that act on every unit by itself: each is one line, its slope.

The slopes are the backward functions of autograd, called by name: one pass over memory, and no graph.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from targetprop.layers.base import (
    AdjointFeedback,
    Context,
    Facts,
    FeedbackLayer,
    IgnoredFeedback,
    LayerRule,
    Style,
    add_rule,
)

aten = torch.ops.aten
Slope = Callable[[Any, Tensor, Tensor], Tensor]
"""(layer, delta, what the rule keeps) -> delta times the slope of the activation."""
Matched = Callable[[Any, Tensor], Tensor]
"""(layer, y) -> the function of y whose derivative at y = act(u) is act'(u)."""


class Elementwise(LayerRule[nn.Module]):
    """The rule of an activation.

    Args:
        slope: what backprop does with an error.
        keeps: whether the slope is a function of the activation's input or of its output; by settings of the layer,
            if it depends on them.
        matched: the feedback of the style "matched", where there is one.
        commutes_with_max_pool: whether the layer is strictly increasing and maps zero to zero.
    """

    any_memory_order = True

    def __init__(
        self,
        slope: Slope,
        keeps: Literal["input", "output"] | Callable[[Any], Literal["input", "output"]],
        matched: Matched | None = None,
        commutes_with_max_pool: Callable[[Any], bool] = lambda layer: False,
    ) -> None:
        self.slope = slope
        self.keeps = keeps
        self.matched = matched
        self.commutes = commutes_with_max_pool

    def facts(self, layer: nn.Module) -> Facts:
        return Facts(commutes_with_max_pool=self.commutes(layer))

    def run(self, layer: nn.Module, x: Tensor, clean: Context = None) -> tuple[Tensor, Context]:
        y = layer(x)
        if clean is not None:
            return y, clean
        keeps = self.keeps if isinstance(self.keeps, str) else self.keeps(layer)
        return y, (y if keeps == "output" else x).detach()

    def vjp(self, layer: nn.Module, delta: Tensor, context: Context) -> Tensor:
        return self.slope(layer, delta, context)

    def feedback(self, layer: nn.Module, style: Style) -> FeedbackLayer:
        if style in ("published", "lee"):
            return ActivationFeedback(layer)
        if style == "map":
            return IgnoredFeedback()
        if style == "matched" and self.matched is not None:
            return MatchedFeedback(layer, self.matched)
        return AdjointFeedback(layer, self)


class ActivationFeedback(FeedbackLayer):
    """The same activation again."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self._layer = (layer,)  # no submodule: an activation's parameters are the block's

    def decode(self, y: Tensor, context: Context) -> Tensor:
        return self._layer[0].forward(y)  # hooks are about the forward pass


class MatchedFeedback(FeedbackLayer):
    """The function of y whose derivative is the activation's slope: nonlinear, with the Jacobian's slope at y."""

    def __init__(self, layer: nn.Module, function: Matched) -> None:
        super().__init__()
        self._layer = (layer, function)

    def decode(self, y: Tensor, context: Context) -> Tensor:
        layer, function = self._layer
        return function(layer, y)


def register_elementwise(
    *types: type[nn.Module],
    slope: Slope,
    keeps: Literal["input", "output"] | Callable[[Any], Literal["input", "output"]],
    matched: Matched | None = None,
    commutes_with_max_pool: Callable[[Any], bool] = lambda layer: False,
) -> None:
    """Register activations, with the arguments of `Elementwise`.

    >>> register_elementwise(nn.SiLU, slope=lambda layer, delta, x: aten.silu_backward(delta, x), keeps="input")
    """
    add_rule(Elementwise(slope, keeps, matched, commutes_with_max_pool), *types)


def _matched_elu(layer: nn.ELU, y: Tensor) -> Tensor:
    """The slope alpha + y (below zero) integrated: y above zero, alpha y + y^2 / 2 down to y = -alpha."""
    below = y.clamp(-layer.alpha, 0)
    return y.clamp_min(0) + below * (layer.alpha + below / 2)


def _matched_tanh(layer: nn.Tanh, y: Tensor) -> Tensor:
    """The slope 1 - y^2 integrated: y - y^3 / 3, constant beyond |y| = 1, which tanh does not reach."""
    inside = y.clamp(-1, 1)
    return inside - inside**3 / 3


def _elu_slope(layer: nn.ELU, delta: Tensor, kept: Tensor) -> Tensor:
    return aten.elu_backward(delta, layer.alpha, 1, 1, layer.alpha >= 0, kept)


register_elementwise(
    nn.ELU,
    slope=_elu_slope,
    keeps=lambda layer: "output" if layer.alpha >= 0 else "input",  # does y tell on which side of zero x was?
    matched=_matched_elu,
    commutes_with_max_pool=lambda layer: layer.alpha > 0,
)
register_elementwise(
    nn.LeakyReLU,
    slope=lambda layer, delta, kept: torch.where(kept > 0, delta, delta * layer.negative_slope),
    keeps=lambda layer: "output" if layer.negative_slope >= 0 else "input",
    commutes_with_max_pool=lambda layer: layer.negative_slope > 0,
)
register_elementwise(
    nn.Tanh,
    slope=lambda layer, delta, y: aten.tanh_backward(delta, y),
    keeps="output",
    matched=_matched_tanh,
    commutes_with_max_pool=lambda layer: True,
)
register_elementwise(nn.ReLU, slope=lambda layer, delta, y: aten.threshold_backward(delta, y, 0), keeps="output")
register_elementwise(
    nn.GELU,
    slope=lambda layer, delta, x: aten.gelu_backward(delta, x, approximate=layer.approximate),
    keeps="input",
)
register_elementwise(nn.SiLU, slope=lambda layer, delta, x: aten.silu_backward(delta, x), keeps="input")
