"""Pair: a forward block and its feedback."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from targetprop.layers.lookup import rule_of
from targetprop.layers.sequence import SequenceRule
from targetprop.network.feedback_map import FeedbackMap
from targetprop.network.linear_feedback import LinearPart, feedback_maps, linear_part
from targetprop.utils.errors import UserError
from targetprop.utils.precision import wide

if TYPE_CHECKING:
    from targetprop.layers.base import Context, FeedbackLayer, LayerRule
    from targetprop.layers.linear_map import LinearMap


@dataclass(frozen=True)
class Chain:
    """A block of layers in sequence with one linear map, at this `position`, whose gradients need no autograd."""

    rule: SequenceRule
    position: int
    map: LinearMap


@dataclass(frozen=True)
class Trace:
    """One pair's part of a forward pass: its input x (detached), its output y, and the pass's context.

    Gradients flow from y to the block's own parameters and end there. There is a graph for that only where the block
    needs one (its pair has no `chain`), or where the network's input asks for a gradient: it ends at the first x then.

    Attributes:
        chain: of the pair, as it was in this pass.
    """

    x: Tensor
    y: Tensor
    context: Context
    chain: Chain | None = None

    def detach(self) -> Trace:
        """The same without the graph to the block's parameters."""
        return Trace(self.x.detach(), self.y.detach(), self.context, self.chain)


class Pair(nn.Module):
    """A forward block F^n and its feedback G^n.

    Args:
        block: the forward block; a layer or layers in sequence.
        feedback: None for a block that carries no target down.
        name: how messages call it, e.g. "2 (Conv2d, ELU, MaxPool2d)".

    Attributes:
        rule: of the block.
        chain: the block as a chain whose gradients are known, or None.
        linear: the linear part of the feedback, or None, and `not_linear` says why.
        maps: the linear maps of the feedback, if it is made of such maps alone.
    """

    rule: LayerRule[Any]
    chain: Chain | None
    linear: LinearPart | None
    not_linear: str
    maps: tuple[FeedbackMap, ...]

    def __init__(self, block: nn.Module, feedback: FeedbackLayer | None, name: str = "block") -> None:
        super().__init__()
        self.block = block
        self.feedback = feedback
        self.name = name
        self.analyse()

    def analyse(self) -> None:
        """Look at the layers of the block and of its feedback, and at their hooks, as they are now."""
        self.rule = rule_of(self.block)
        as_it_is = type(self).encode is Pair.encode  # else the context may be another
        self.chain = _chain(self.rule) if as_it_is else None
        self.linear, self.not_linear = linear_part(self.rule, self.feedback)
        self.maps = (self.linear,) if self.linear is not None else feedback_maps(self.rule, self.feedback)

    def trace(self, x: Tensor) -> Trace:
        """Run the block on x, with a graph to its parameters only where its gradients need one, or x asks for one."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and (self.chain is None or x.requires_grad)):
            return Trace(x, *self.encode(x), self.chain)

    def encode(self, x: Tensor, clean: Context = None) -> tuple[Tensor, Context]:
        """F(x) and the context of this pass; `clean` is the context of the clean pass if this one is noisy."""
        return self.rule.run(self.block, x, clean)

    def decode(self, y: Tensor, context: Context) -> Tensor:
        """G(y): from the block's output space (batch, ...) to its input space, decoded with `context`."""
        if self.feedback is None:
            raise UserError(f"block {self.name} has no feedback.")
        return self.feedback.decode(y, context)

    def decode_difference(self, y: Tensor, difference: Tensor, context: Context) -> Tensor:
        """G(y + difference) - G(y), in one pass through the feedback's linear part where it has one."""
        if self.feedback is not None and self.feedback.carries:
            return self.feedback.carry(difference, context)
        part = self.linear
        if part is None:
            return self.decode(y + difference, context) - self.decode(y, context)
        clean = y.to(wide(y.dtype))  # bfloat16 would not hold the difference of features that nearly agree
        return part.feed_back(part.features_difference(clean, difference, context).to(y.dtype), context)

    def weights(self) -> list[tuple[Tensor, Tensor]]:
        """Forward weight W and transposed feedback weight V^T of every linear layer, in one shape; detached views."""
        return [] if self.feedback is None else list(self.feedback.weights(self.block))

    @property
    def carries_differences(self) -> bool:
        """Whether `decode_difference` forms no difference of nearly equal numbers in a narrow type."""
        return self.linear is not None or (self.feedback is not None and self.feedback.carries)

    def feedback_parameters(self) -> list[nn.Parameter]:
        """The weights of the feedback, none without one."""
        return [] if self.feedback is None else list(self.feedback.parameters())


def _chain(rule: LayerRule[Any]) -> Chain | None:
    if not isinstance(rule, SequenceRule):
        return None
    layers = list(zip(rule.layers, rule.rules, strict=True))
    maps = [(i, found) for i, (layer, each) in enumerate(layers) if (found := each.linear_map(layer)) is not None]
    if len(maps) != 1:
        return None
    (position, found) = maps[0]
    known = all(each.knows_its_gradients for i, each in enumerate(rule.rules) if i != position)
    own_before = any(True for layer in rule.layers[:position] for _ in layer.parameters())
    return Chain(rule, position, found) if known and not own_before else None
