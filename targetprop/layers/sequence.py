"""Layers in sequence."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from torch import Tensor, nn

from targetprop.layers.base import Context, Facts, FeedbackLayer, LayerRule, Style, register
from targetprop.layers.lookup import Opaque, not_in_place, rule_of

L = TypeVar("L", bound=nn.Module)


class FeedbackChain(FeedbackLayer):
    """The feedback of layers in sequence: that of each, in reverse; in the style "lee" activations come last.

    Args:
        ending: what comes behind all of them, with no context: in the style "range" an activation.

    Attributes:
        parts: the feedback of each layer, in forward order.
        style: of the parts.
        order: the order in which they decode.
    """

    def __init__(self, parts: Sequence[FeedbackLayer], style: Style, ending: FeedbackLayer | None = None) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)
        self.style = style
        self.ending = ending
        self.order = list(reversed(range(len(parts))))
        if style == "lee":
            self.order.sort(key=lambda i: parts[i].is_activation)

    def reordered(self, order: Sequence[int]) -> FeedbackChain:
        """The same feedback for the same layers in this order."""
        parts = list(self)
        return FeedbackChain([parts[i] for i in order], self.style, self.ending)

    def __iter__(self) -> Iterator[FeedbackLayer]:
        return iter(cast(Sequence[FeedbackLayer], self.parts))

    @property
    def is_linear(self) -> bool:
        return self.ending is None and all(part.is_linear for part in self)

    @property
    def is_affine(self) -> bool:
        return self.ending is None and all(part.is_affine for part in self)

    @property
    def carries(self) -> bool:
        return self.ending is None and all(part.carries for part in self)

    def carry(self, difference: Tensor, context: Context) -> Tensor:
        for i in self.order:
            difference = cast(FeedbackLayer, self.parts[i]).carry(difference, context[i])
        return difference

    def weights(self, layer: nn.Module) -> Iterator[tuple[Tensor, Tensor]]:
        assert isinstance(layer, nn.Sequential)
        for child, part in zip(layer, self, strict=True):
            yield from part.weights(child)

    def decode(self, y: Tensor, context: Context) -> Tensor:
        for i in self.order:
            y = cast(FeedbackLayer, self.parts[i]).decode(y, context[i])
        return y if self.ending is None else self.ending.decode(y, None)


@register(nn.Sequential)
class SequenceRule(LayerRule[nn.Sequential]):
    """The context is a tuple of those of the layers.

    Attributes:
        layers, rules: the layers, and the rule of each; empty until the rule is bound.
    """

    any_memory_order = True
    is_container = True

    def __init__(self, layers: Sequence[nn.Module] = ()) -> None:
        self.layers = tuple(layers)
        self.rules = tuple(rule_of(layer) for layer in layers)

    def bound(self, layer: nn.Sequential) -> SequenceRule:
        return SequenceRule(tuple(layer))

    def facts(self, layer: nn.Sequential) -> Facts:
        facts = [rule.facts(each) for rule, each in zip(self.rules, self.layers, strict=True)]
        dims = None
        for each, rule in zip(facts, self.rules, strict=True):
            dims = each.dims
            unknown = isinstance(rule, Opaque) and rule.known is None
            if dims is not None or each.reshapes or unknown or not rule.keeps_dims:
                break
        return Facts(varies=any(each.varies for each in facts), dims=dims)

    def apply(self, layer: nn.Sequential, x: Tensor) -> Tensor:
        for each, rule in zip(self.layers, self.rules, strict=True):
            x = rule.apply(each, x)
        return x

    def run(self, layer: nn.Sequential, x: Tensor, clean: Context = None) -> tuple[Tensor, Context]:
        contexts = []
        for i, (each, rule) in enumerate(zip(self.layers, self.rules, strict=True)):
            x, context = rule.run(each, x, None if clean is None else clean[i])
            contexts.append(context)
        return x, tuple(contexts)

    def run_before(self, position: int, x: Tensor, context: Context) -> Tensor:
        """The input of the layer at `position` for an input x of the sequence, as in the pass of this context."""
        for i in range(position):
            x, _ = self.rules[i].run(self.layers[i], x, context[i])
        return x

    def feedback(self, layer: nn.Sequential, style: Style) -> FeedbackChain:
        return FeedbackChain([feedback_of(each, style) for each in layer], style)


@dataclass(frozen=True)
class InnerMap:
    """A layer with feedback weights within a `BranchedRule`'s layer.

    Attributes:
        layer: the layer.
        feedback: its feedback.
        path: the indices at which the context of the whole holds the input of the layer in a pass.
        rule: of the layer.
    """

    layer: nn.Module
    feedback: FeedbackLayer
    path: tuple[int, ...]
    rule: LayerRule[Any]


class BranchedFeedback(FeedbackLayer):
    """Feedback of a layer in which others stand side by side, made of theirs."""


class BranchedRule(LayerRule[L]):
    """The rule of a layer in which others stand side by side; its context has the inputs of those with a matrix."""

    any_memory_order = True
    is_container = True

    @abstractmethod
    def inner_maps(self, layer: L, feedback: FeedbackLayer) -> list[InnerMap]:
        """The layers in it whose feedback has weights."""


def feedback_of(layer: nn.Module, style: Style = "published") -> FeedbackLayer:
    """A new feedback layer for `layer`, in this style.

    Raises:
        UserError: none is known for this type of layer, or for this setting of it.
    """
    not_in_place(layer)
    return rule_of(layer).feedback(layer, style)


def feedback_to_below(blocks: Sequence[nn.Sequential], number: int, style: Style) -> FeedbackLayer:
    """A new feedback of one of the blocks, to its input space; in the style "range" with the activation of that below.

    Raises:
        UserError: a layer of it has no feedback.
    """
    feedback = feedback_of(blocks[number], style)
    if style == "range" and number:
        assert isinstance(feedback, FeedbackChain)
        feedback.ending = last_activation(blocks[number - 1])
    return feedback


def last_activation(block: nn.Sequential) -> FeedbackLayer | None:
    """The activation that a block's output has passed, again, as feedback; None of a block that ends with weights."""
    for layer in reversed(block):
        if (again := rule_of(layer).again(layer)) is not None:
            return again
        if any(True for _ in layer.parameters()):
            break
    return None


def leaves(block: nn.Module) -> list[nn.Module]:
    """The layers of a block in order, plain Sequentials in it opened."""
    if isinstance(rule_of(block), SequenceRule):
        assert isinstance(block, nn.Sequential)
        return [leaf for child in block for leaf in leaves(child)]
    return [block]
