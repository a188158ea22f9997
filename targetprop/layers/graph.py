"""LayerGraph: layers that stand beside each other as well as behind, with one input and one output; and its feedback.

A residual block, an inception module, attention, a gated unit. The feedback sends y back through the feedback of every
layer, in reverse: where a tensor went several ways, what comes back adds up; sums copy, concatenations split, products
multiply with the other factor, all by the transposed Jacobian of an `Operation`. Linear maps have feedback weights of
their own, each use of one its own. In the styles that carry a difference (`CARRYING`) it goes down along the clean
pass, maps have no bias, and every activation is evaluated at what it put out there plus the difference, as if the
graph were cut behind it. Softmax is a function of several units at once and no activation here: its transposed
Jacobian, in every style.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from targetprop.layers.activation import SoftmaxRule
from targetprop.layers.base import (
    CARRYING,
    AdjointFeedback,
    Context,
    Facts,
    FeedbackLayer,
    LayerRule,
    Style,
    register,
)
from targetprop.layers.lookup import has_matrix, rule_of
from targetprop.layers.maps import MapFeedback
from targetprop.layers.operation import Carried, Given, Operation
from targetprop.layers.sequence import BranchedFeedback, BranchedRule, InnerMap, feedback_of
from targetprop.utils.errors import UserError


@dataclass(frozen=True)
class Place:
    """Where a layer stands in a graph.

    Attributes:
        sources: what it is run on: 0 is the graph's input, n the output of the nth layer; none of `LookAtBatch`.
        follows: whether its output follows the graph's input.
    """

    sources: tuple[int, ...]
    follows: bool


class LayerGraph(nn.Module):
    """Layers in an order in which each comes behind its sources; the output is that of the last.

    Args:
        layers: of one input each, but for an `Operation`.
        sources: of each layer, as in `Place`.
    """

    def __init__(self, layers: Sequence[nn.Module], sources: Sequence[tuple[int, ...]]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        follows = [True]
        for each in sources:
            follows.append(any(follows[source] for source in each))
        self.places = tuple(Place(*each) for each in zip(sources, follows[1:], strict=True))

    def __repr__(self) -> str:
        return f"LayerGraph({', '.join(map(title_of, self.layers))})"

    def forward(self, x: Tensor) -> Tensor:
        values = [x]
        for layer, place in zip(self.layers, self.places, strict=True):
            values.append(layer(*(values[source] for source in place.sources)))
        return values[-1]


def title_of(layer: nn.Module) -> str:
    """What a layer is called in few words."""
    if isinstance(layer, LayerGraph):
        return f"graph of {len(layer.layers)} layers"
    return layer.title if isinstance(layer, Operation) else type(layer).__name__


class GraphContext(NamedTuple):
    """A graph in one pass.

    Attributes:
        layers: the context of each layer.
        inputs: the input of each layer with a matrix or kernel, None of the others; detached.
        x: the input of the whole, detached.
    """

    layers: tuple[Context, ...]
    inputs: tuple[Tensor | None, ...]
    x: Tensor


class GraphFeedback(BranchedFeedback):
    """The feedback of every layer whose output follows the graph's input, in reverse.

    Args:
        places: of the layers.
        parts: the feedback of each, by its number.
    """

    def __init__(self, places: Sequence[Place], parts: dict[int, FeedbackLayer]) -> None:
        super().__init__()
        self.places = tuple(places)
        self.parts = nn.ModuleDict({str(number): part for number, part in parts.items()})

    def __iter__(self) -> Iterator[tuple[int, FeedbackLayer]]:
        return ((int(number), cast(FeedbackLayer, part)) for number, part in self.parts.items())

    @property
    def is_linear(self) -> bool:
        return all(part.is_linear for _, part in self)

    @property
    def is_affine(self) -> bool:
        return all(part.is_affine for _, part in self)

    @property
    def carries(self) -> bool:
        return all(part.carries for _, part in self)

    def carry(self, difference: Tensor, context: GraphContext) -> Tensor:
        return self._down(context, difference, lambda part, delta, number: part.carry(delta, context.layers[number]))

    def decode(self, y: Tensor, context: GraphContext) -> Tensor:
        return self._down(context, y, lambda part, delta, number: part.decode(delta, context.layers[number]))

    def _down(
        self, context: GraphContext, delta: Tensor, through: Callable[[FeedbackLayer, Tensor, int], Carried]
    ) -> Tensor:
        at: dict[int, Tensor] = {len(self.places): delta}
        for number, part in reversed(list(self)):
            if number + 1 not in at:
                continue  # nothing comes back there: only its size was looked at
            below = through(part, at.pop(number + 1), number)
            sources = self.places[number].sources
            for source, each in zip(sources, below if isinstance(below, tuple) else (below,), strict=True):
                if each is not None:
                    at[source] = at[source] + each if source in at else each
        return at[0] if 0 in at else torch.zeros_like(context.x)

    def weights(self, layer: nn.Module) -> Iterator[tuple[Tensor, Tensor]]:
        assert isinstance(layer, LayerGraph)
        for number, part in self:
            yield from part.weights(layer.layers[number])


@register(LayerGraph)
class GraphRule(BranchedRule[LayerGraph]):
    """The context is a `GraphContext`.

    Attributes:
        rules: of each layer; empty until the rule is bound.
    """

    keeps_dims = False

    def __init__(self, rules: Sequence[LayerRule[Any]] = ()) -> None:
        self.rules = tuple(rules)

    def bound(self, layer: LayerGraph) -> GraphRule:
        return GraphRule([rule_of(each) for each in layer.layers])

    def check_hooked(self, layer: LayerGraph) -> None:
        raise UserError("a hook on a whole LayerGraph is not seen; hook its layers instead.")

    def facts(self, layer: LayerGraph) -> Facts:
        return Facts(varies=any(rule.facts(each).varies for rule, each in zip(self.rules, layer.layers, strict=True)))

    def apply(self, layer: LayerGraph, x: Tensor) -> Tensor:
        values = [x]
        for each, rule, place in zip(layer.layers, self.rules, layer.places, strict=True):
            values.append(rule.apply(each, _given(values, place)))  # type: ignore[arg-type]
        return values[-1]

    def run(self, layer: LayerGraph, x: Tensor, clean: GraphContext | None = None) -> tuple[Tensor, Context]:
        values, contexts, inputs = [x], list[Context](), list[Tensor | None]()
        for number, (each, rule, place) in enumerate(zip(layer.layers, self.rules, layer.places, strict=True)):
            given, before = _given(values, place), None if clean is None else clean.layers[number]
            inputs.append(given.detach() if isinstance(given, Tensor) and has_matrix(each) else None)
            if place.follows:
                y, context = rule.run(each, given, before)  # type: ignore[arg-type]
            else:  # nothing goes down there, and a noisy pass looks at the same batch
                y = rule.apply(each, given) if before is None else before  # type: ignore[arg-type]
                context = y.detach()
            values.append(y)
            contexts.append(context)
        return values[-1], GraphContext(tuple(contexts), tuple(inputs), x.detach())

    def feedback(self, layer: LayerGraph, style: Style) -> GraphFeedback:
        style = "linear" if style in ("lee", "range", "map") else style
        parts = {}
        for number, (each, rule, place) in enumerate(zip(layer.layers, self.rules, layer.places, strict=True)):
            if place.follows:
                is_softmax = isinstance(rule, SoftmaxRule)
                parts[number] = AdjointFeedback(each, rule) if is_softmax else feedback_of(each, style)
        if style in CARRYING:
            for part in parts.values():
                if isinstance(part, MapFeedback):
                    part.map.register_parameter("bias", None)
        return GraphFeedback(layer.places, parts)

    def inner_maps(self, layer: LayerGraph, feedback: FeedbackLayer) -> list[InnerMap]:
        assert isinstance(feedback, GraphFeedback)
        return [
            InnerMap(layer.layers[number], part, (1, number), self.rules[number])
            for number, part in feedback
            if any(True for _ in part.parameters())
        ]

    @property
    def knows_its_gradients(self) -> bool:
        return False


def _given(values: Sequence[Tensor], place: Place) -> Given:
    if len(place.sources) == 1:
        return values[place.sources[0]]
    return tuple(values[source] for source in place.sources)
