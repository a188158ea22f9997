"""The feedback of activations that act on every unit by itself, in every style in which it is evaluated at a target."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from targetprop.layers.base import Context, FeedbackLayer, Graph
from targetprop.layers.turning import turning
from targetprop.utils.precision import wide

if TYPE_CHECKING:
    from targetprop.layers.activation import ActivationRule, Elementwise

Matched = Callable[[Any, Tensor], Tensor]
"""(layer, y) -> the function of y whose derivative at y = act(u) is act'(u)."""


class ActivationFeedback(FeedbackLayer):
    """The same activation again."""

    is_activation = True
    at_target = True

    @property
    def role(self) -> str:
        return "the same activation again, at the target"

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self._layer = (layer,)  # no submodule: an activation's parameters are the block's

    def decode(self, y: Tensor, context: Context) -> Tensor:
        return self._layer[0].forward(y)  # hooks are about the forward pass


class CarryingFeedback(FeedbackLayer):
    """Feedback of an activation that is evaluated at its output in the clean pass, and at that plus the difference."""

    at_target = True

    def __init__(self, layer: nn.Module, rule: Elementwise | ActivationRule) -> None:
        super().__init__()
        self._layer = (layer, rule)  # no submodule: an activation's parameters are the block's

    @property
    def name(self) -> str:
        """Of the activation's type."""
        return type(self._layer[0]).__name__

    @property
    def carries(self) -> bool:
        return True

    def carry(self, difference: Tensor, context: Context) -> Tensor:
        if isinstance(context, Graph):  # the layer has been hooked since, and what it puts out may be anything
            return context.vjp(difference)
        layer, rule = self._layer
        y = rule.output(layer, context).to(wide(difference.dtype))  # bfloat16 would not hold what nearly cancels
        return self.between(y, difference, context).to(difference.dtype)

    @abstractmethod
    def between(self, y: Tensor, difference: Tensor, context: Tensor) -> Tensor:
        """a(y + difference) - a(y)."""


class MatchedFeedback(CarryingFeedback):
    """The function of y whose derivative is the activation's slope: nonlinear, with the Jacobian's slope at y."""

    @property
    def role(self) -> str:
        return "its matched function, at the target"

    def __init__(self, layer: nn.Module, rule: Elementwise, function: Matched) -> None:
        super().__init__(layer, rule)
        self._function = function

    def decode(self, y: Tensor, context: Context) -> Tensor:
        if isinstance(context, Graph):
            return context.vjp(y)
        return self._function(self._layer[0], y)

    def between(self, y: Tensor, difference: Tensor, context: Tensor) -> Tensor:
        layer = self._layer[0]
        return self._function(layer, y + difference) - self._function(layer, y)


class TurningFeedback(CarryingFeedback):
    """The matched function of an activation that turns, on the side of its minimum where the clean pass was.

    As a function of y alone, without a clean pass, it is that of the rising side.
    """

    @property
    def role(self) -> str:
        return "its matched function on the side of the clean pass, at the target"

    def __init__(self, layer: nn.Module, rule: Elementwise) -> None:
        super().__init__(layer, rule)
        self._function = turning(layer.forward, lambda u: rule.slope(layer, torch.ones_like(u), u))

    def decode(self, y: Tensor, context: Context) -> Tensor:
        if isinstance(context, Graph):
            return context.vjp(y)
        zero = torch.zeros_like(y)
        return self._function.between(zero, y, zero.bool())

    def between(self, y: Tensor, difference: Tensor, context: Tensor) -> Tensor:
        return self._function.between(y, difference, context < self._function.turn)


class AgainFeedback(CarryingFeedback):
    """The same activation again."""

    @property
    def role(self) -> str:
        return "the same activation again, at the target"

    def decode(self, y: Tensor, context: Context) -> Tensor:
        return self._layer[0].forward(y)

    def between(self, y: Tensor, difference: Tensor, context: Tensor) -> Tensor:
        layer = self._layer[0]
        return layer.forward(y + difference) - layer.forward(y)


class GainedFeedback(AgainFeedback):
    """The same activation again, times a gain for each channel.

    With V = W^T the published feedback has the slope act'(y) where the transposed Jacobian has act'(u). L-DRL finds the
    best there is to find with a scale for each channel: to first order in its noise it settles at V = g W^T, with

        g = E[act'(y) act'(u)] / E[act'(y)^2]

    over the batch and the units that a difference reaches. Feedback weights that follow W^T are so decoded with g.
    """

    @property
    def role(self) -> str:
        return "the same activation again with a gain for each channel, at the target"

    def __init__(self, layer: nn.Module, rule: Elementwise) -> None:
        super().__init__(layer, rule)
        self._slope_of = rule

    def between(self, y: Tensor, difference: Tensor, context: Tensor) -> Tensor:
        layer, rule = self._layer[0], self._slope_of
        again, ones = layer.forward(y), torch.ones_like(y)
        wanted = rule.slope(layer, ones, context.to(y.dtype))
        slope = rule.slope(layer, ones, rule.kept(layer, y, again))
        return (layer.forward(y + difference) - again) * channel_gain(slope, wanted, difference != 0)


def channel_gain(slope: Tensor, wanted: Tensor, reached: Tensor) -> Tensor:
    """The factor for each channel (dimension 1) that brings one slope nearest to another, over the units reached."""
    dims = [0, *range(2, slope.dim())]
    reached = reached.to(slope.dtype)
    power = (slope.square() * reached).sum(dims, keepdim=True)
    gain = (slope * wanted * reached).sum(dims, keepdim=True) / power
    return torch.where(power > 0, gain, 1.0)
