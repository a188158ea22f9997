"""How a network was cut: its blocks, the layers in them, the paths between these, and what the feedback of each is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import nn

from targetprop.layers.graph import GraphFeedback, LayerGraph, title_of
from targetprop.layers.sequence import FeedbackChain, leaves

if TYPE_CHECKING:
    from targetprop.layers.base import FeedbackLayer
    from targetprop.network.network import PairedNetwork
    from targetprop.network.pair import Pair


@dataclass(frozen=True)
class Described:
    """A layer of a block.

    Attributes:
        number: within the block, from 1.
        name: in the user's module; empty of a function.
        kind: its type, or the function's name.
        sources: numbers of the layers that it is run on, 0 of the block's input; none where it looks at the batch.
        role: what its feedback is; empty without one.
        at_target: whether the feedback is a nonlinear function evaluated at the target.
    """

    number: int
    name: str
    kind: str
    sources: tuple[int, ...]
    role: str = ""
    at_target: bool = False

    def __str__(self) -> str:
        name = f"{self.name} ({self.kind})" if self.name else self.kind
        of = " and ".join("the input" if each == 0 else str(each) for each in self.sources) or "the batch"
        return f"{self.number}: {name} of {of}" + (f"; back by {self.role}" if self.role else "")


def described(network: PairedNetwork) -> list[list[Described]]:
    """The layers of each block, in forward order."""
    names = {id(each): name for owner in network.owners for name, each in owner.named_modules()}
    return [_block(pair, names) for pair in network.pairs]


def _block(pair: Pair, names: Mapping[int, str]) -> list[Described]:
    layers = leaves(pair.block)
    whole = isinstance(pair.feedback, FeedbackChain) and len(list(pair.feedback)) == len(layers)
    parts = list(pair.feedback) if isinstance(pair.feedback, FeedbackChain) and whole else [None] * len(layers)
    found: list[Described] = []
    for layer, part in zip(layers, parts, strict=True):
        if isinstance(layer, LayerGraph):
            found += _graph(layer, part, len(found), names)
        else:
            found.append(_layer(layer, part, len(found) + 1, (len(found),), names))
    return found


def _graph(layer: LayerGraph, part: FeedbackLayer | None, before: int, names: Mapping[int, str]) -> list[Described]:
    """The layers of a graph whose input is the layer of the number `before`."""
    parts = dict(part) if isinstance(part, GraphFeedback) else {}
    return [
        _layer(each, parts.get(i), before + i + 1, tuple(before + source for source in place.sources), names)
        for i, (each, place) in enumerate(zip(layer.layers, layer.places, strict=True))
    ]


def _layer(
    layer: nn.Module, part: FeedbackLayer | None, number: int, sources: Sequence[int], names: Mapping[int, str]
) -> Described:
    name, kind = names.get(id(layer), ""), title_of(layer)
    if part is None:
        return Described(number, name, kind, tuple(sources))
    return Described(number, name, kind, tuple(sources), part.role, part.at_target)
