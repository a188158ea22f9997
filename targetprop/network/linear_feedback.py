"""The linear part of a twin: what makes its feedback learning a closed form, without autograd.

Many twins are G(y) = P (V a(y) + c): a function `a` without weights (un-pooling, activation), one linear map V, and
below it linear layers without weights P (a reshape, say). Then a feedback loss that is quadratic in G is quadratic
in V, its gradient is a correlation, and a difference of targets needs one pass through V instead of two:
G(t) - G(s) = P V (a(t) - a(s)).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, cast

from torch import Tensor, nn

from targetprop.layers.encoding import Context
from targetprop.layers.shape import Reshape
from targetprop.layers.twins import AdjointTwin, ChainTwin, IdentityTwin, LinearMapTwin, Twin
from targetprop.network.blocks import overlaps
from targetprop.network.forward_part import run_before

LINEAR_WITHOUT_WEIGHTS = (
    nn.Flatten, nn.Unflatten, Reshape, nn.Identity, nn.Dropout, nn.AvgPool2d, nn.AdaptiveAvgPool2d
)  # fmt: skip
"""Layers that are linear maps."""

RESHAPING = (nn.Flatten, nn.Unflatten, Reshape, nn.Identity)
"""Layers that move units about without changing them."""
UNITWISE = (*RESHAPING, nn.ELU, nn.ReLU, nn.LeakyReLU, nn.Tanh, nn.GELU, nn.Dropout)
"""Layers whose twins act on every unit by itself; so do non-overlapping max-pooling and the published batch norm."""


class FeedbackMap(Protocol):
    """One linear map of a block and its feedback weights V: all that a rule for single maps needs to know."""

    @property
    def layer(self) -> nn.Module:
        """The forward layer."""

    @property
    def map(self) -> LinearMapTwin:
        """The twin that holds V."""

    def map_input(self, x: Tensor, context: Context) -> Tensor:
        """The input of the forward layer for an input x of the block, which had this context."""


@dataclass(frozen=True)
class LinearPart:
    """The twin of a chain of layers, as P (V a(y) + c): `map` is V and c, at this `position` in the chain."""

    layers: tuple[nn.Module, ...]
    twins: tuple[Twin, ...]
    position: int

    @property
    def map(self) -> LinearMapTwin:
        """The twin that holds V and c."""
        return cast(LinearMapTwin, self.twins[self.position])

    @property
    def layer(self) -> nn.Module:
        """The forward layer that `map` is the twin of."""
        return self.layers[self.position]

    @property
    def unitwise(self) -> bool:
        """Whether every feature depends on one unit of y, and P only reshapes: noise in y stays independent."""
        above = zip(self.layers[self.position + 1 :], self.twins[self.position + 1 :], strict=True)
        return all(isinstance(layer, RESHAPING) for layer in self.layers[: self.position]) and all(
            isinstance(layer, UNITWISE)
            or isinstance(twin, IdentityTwin)
            or (isinstance(layer, nn.MaxPool2d) and not overlaps(layer))
            for layer, twin in above
        )

    @property
    def adjoint_above(self) -> bool:
        """Whether `a` is the transposed Jacobian of the layers above the map, on the clean batch."""
        return all(isinstance(twin, AdjointTwin) for twin in self.twins[self.position + 1 :])

    def features(self, y: Tensor, context: Context) -> Tensor:
        """a(y), for y (batch, ...) in the block's output space."""
        for i in range(len(self.twins) - 1, self.position, -1):
            y = self.twins[i].decode(y, context[i])
        return y

    def features_difference(self, y: Tensor, difference: Tensor, context: Context) -> Tensor:
        """a(y + difference) - a(y): two passes down to the last twin that is not linear, one from there on."""
        lowest = next(
            (i for i in range(self.position + 1, len(self.twins)) if not isinstance(self.twins[i], AdjointTwin)), None
        )
        if lowest is not None:
            moved = y + difference
            for i in range(len(self.twins) - 1, lowest - 1, -1):
                moved, y = self.twins[i].decode(moved, context[i]), self.twins[i].decode(y, context[i])
            difference = moved - y
        for i in range((len(self.twins) if lowest is None else lowest) - 1, self.position, -1):
            difference = self.twins[i].decode(difference, context[i])
        return difference

    def feed_back(self, features: Tensor, context: Context) -> Tensor:
        """P V features: a difference of features to the difference of feedback that it makes."""
        x = self.map.apply_map(features, context[self.position])
        for i in range(self.position - 1, -1, -1):
            x = self.twins[i].decode(x, context[i])
        return x

    def correlate(self, x: Tensor, features: Tensor, context: Context) -> Tensor:
        """Gradient of <x, feed_back(features)> for V, summed over the batch; x is in the block's input space."""
        return self.map.correlate(self.map_input(x, context), features)

    def map_input(self, x: Tensor, context: Context) -> Tensor:
        """The input of the forward map for an input x of the block: x through the layers before it."""
        return run_before(self.layers, self.position, x, context)


def linear_part(block: nn.Module, twin: Twin | None) -> LinearPart | str:
    """The linear part of a block's twin, or in words why it has none."""
    if not isinstance(block, nn.Sequential) or not isinstance(twin, ChainTwin):
        return "its twin is not built from a chain of layers"
    layers, twins = tuple(block), tuple(cast(Twin, each) for each in twin.twins)
    with_weights = [i for i, each in enumerate(twins) if any(True for _ in each.parameters())]
    if twin.order != sorted(twin.order, reverse=True):
        return "its activation comes after its linear map"
    if len(with_weights) != 1:
        return f"its twin has {len(with_weights)} layers with weights"
    (position,) = with_weights
    maps = sum(isinstance(each, LinearMapTwin) for each in twins[position].modules())
    if maps > 1:
        return f"the twin of {type(layers[position]).__name__} has {maps} linear maps"
    if not isinstance(twins[position], LinearMapTwin):
        return f"the twin of {type(layers[position]).__name__} is not known to be linear"
    for layer in layers[:position]:
        if not isinstance(layer, LINEAR_WITHOUT_WEIGHTS):
            return f"{type(layer).__name__} stands before its linear map"
    return LinearPart(layers, twins, position)
