"""The linear maps in the feedback of a block: what makes its learning a closed form, without autograd.

The feedback of many blocks is G(y) = P (V a(y) + c): a function `a` without weights (un-pooling, activation), one
linear map V, and below it linear layers without weights P (a reshape, say). Then a feedback loss that is quadratic in G
is quadratic in V, its gradient is a correlation, and a difference of targets needs one pass through V instead of two:
G(t) - G(s) = P V (a(t) - a(s)).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from operator import getitem
from typing import TYPE_CHECKING, cast

from torch import Tensor, nn

from targetprop.layers.base import AdjointFeedback, Context, FeedbackLayer
from targetprop.layers.maps import MapFeedback
from targetprop.layers.sequence import BranchedFeedback, BranchedRule, FeedbackChain, SequenceRule

if TYPE_CHECKING:
    from targetprop.network.feedback_map import FeedbackMap


@dataclass(frozen=True)
class ChainMap:
    """A linear map in a block of layers in sequence, at this `position`.

    Attributes:
        rule: of the layers.
        parts: the feedback of each layer, in forward order.
        known: whether the forward layer is its linear map and nothing else runs with it.
    """

    rule: SequenceRule
    parts: tuple[FeedbackLayer, ...]
    position: int
    known: bool

    @property
    def map(self) -> MapFeedback:
        """The feedback that holds V and c."""
        return cast(MapFeedback, self.parts[self.position])

    @property
    def layer(self) -> nn.Module:
        """The forward layer that `map` is the feedback of."""
        return self.rule.layers[self.position]

    def map_input(self, x: Tensor, context: Context) -> Tensor:
        """The input of the forward map for an input x of the block: x through the layers before it."""
        return self.rule.run_before(self.position, x, context)


@dataclass(frozen=True)
class LinearPart(ChainMap):
    """The feedback of a block as P (V a(y) + c), V and c at this `position` among its layers."""

    @property
    def adjoint_above(self) -> bool:
        """Whether `a` is the transposed Jacobian of the layers above the map, on the clean batch."""
        return all(isinstance(part, AdjointFeedback) for part in self.parts[self.position + 1 :])

    def features(self, y: Tensor, context: Context) -> Tensor:
        """a(y), for y (batch, ...) in the block's output space."""
        for i in range(len(self.parts) - 1, self.position, -1):
            y = self.parts[i].decode(y, context[i])
        return y

    def features_difference(self, y: Tensor, difference: Tensor, context: Context) -> Tensor:
        """a(y + difference) - a(y): two passes down to the last layer that is not linear, one from there on."""
        lowest = next(
            (i for i in range(self.position + 1, len(self.parts)) if not isinstance(self.parts[i], AdjointFeedback)),
            None,
        )
        if lowest is not None:
            moved = y + difference
            for i in range(len(self.parts) - 1, lowest - 1, -1):
                moved, y = self.parts[i].decode(moved, context[i]), self.parts[i].decode(y, context[i])
            difference = moved - y
        for i in range((len(self.parts) if lowest is None else lowest) - 1, self.position, -1):
            difference = self.parts[i].decode(difference, context[i])
        return difference

    def feed_back(self, features: Tensor, context: Context) -> Tensor:
        """P V features: a difference of features to the difference of feedback that it makes."""
        x = self.map.apply_map(features, context[self.position])
        for i in range(self.position - 1, -1, -1):
            x = self.parts[i].decode(x, context[i])
        return x

    def correlate(self, x: Tensor, features: Tensor, context: Context) -> Tensor:
        """Gradient of <x, feed_back(features)> for V, summed over the batch; x is in the block's input space."""
        return self.map.correlate(self.map_input(x, context), features)


@dataclass(frozen=True)
class BranchMap:
    """A linear map among layers that stand side by side, in a Residual or a LayerGraph.

    Attributes:
        layer, map: the layer, and the feedback that holds its V.
        path: the indices at which the context of the block holds the input of the layer.
        known: whether the layer is its linear map and nothing else runs with it.
    """

    layer: nn.Module
    map: MapFeedback
    path: tuple[int, ...]
    known: bool

    def map_input(self, x: Tensor, context: Context) -> Tensor:
        """The input of the map in the pass of this context."""
        found: Tensor = reduce(getitem, self.path, context)
        return found


def linear_part(rule: object, feedback: FeedbackLayer | None) -> tuple[LinearPart | None, str]:
    """The linear part of a block's feedback, or None and in words why it has none."""
    if not isinstance(rule, SequenceRule) or not isinstance(feedback, FeedbackChain):
        return None, "its feedback is not built from a chain of layers"
    parts = tuple(feedback)
    with_weights = [i for i, part in enumerate(parts) if has_weights(part)]
    if feedback.order != sorted(feedback.order, reverse=True) or feedback.ending is not None:
        return None, "its activation comes after its linear map"
    if len(with_weights) != 1:
        return None, f"its feedback has {len(with_weights)} layers with weights"
    (position,) = with_weights
    name, part = type(rule.layers[position]).__name__, parts[position]
    if not isinstance(part, MapFeedback):
        maps = sum(isinstance(each, MapFeedback) for each in part.modules())
        return None, f"the feedback of {name} " + (
            f"has {maps} linear maps" if maps > 1 else "is not known to be linear"
        )
    for each, layer, below in zip(rule.rules[:position], rule.layers[:position], parts[:position], strict=True):
        if not each.facts(layer).linear:
            return None, f"{type(layer).__name__} stands before its linear map"
        if not isinstance(below, AdjointFeedback):
            return None, f"the feedback of {type(layer).__name__} is not its transpose"
    return LinearPart(rule, parts, position, _is_known(rule, position)), ""


def feedback_maps(rule: object, feedback: FeedbackLayer | None) -> tuple[FeedbackMap, ...]:
    """The linear maps of a block, if all weights of its feedback are in such maps; else none."""
    if not isinstance(rule, SequenceRule) or not isinstance(feedback, FeedbackChain):
        return ()
    maps: list[FeedbackMap] = []
    parts = tuple(feedback)
    for position, part in enumerate(parts):
        if isinstance(part, MapFeedback):
            maps.append(ChainMap(rule, parts, position, _is_known(rule, position)))
        elif has_weights(part):
            inside = rule.rules[position]
            if not isinstance(part, BranchedFeedback) or not isinstance(inside, BranchedRule):
                return ()
            for each in inside.inner_maps(rule.layers[position], part):
                if not isinstance(each.feedback, MapFeedback):
                    return ()
                known = each.rule.linear_map(each.layer) is not None
                maps.append(BranchMap(each.layer, each.feedback, (position, *each.path), known))
    return tuple(maps)


def _is_known(rule: SequenceRule, position: int) -> bool:
    return rule.rules[position].linear_map(rule.layers[position]) is not None


def has_weights(feedback: nn.Module) -> bool:
    """Whether there is anything in it to learn."""
    return any(True for _ in feedback.parameters())
