"""Residual: y = body(x) + skip(x), and its feedback.

A block is a Residual and the layers behind it, such as the last activation of a ResNet's block (He et al., "Deep
Residual Learning for Image Recognition", 2016, https://arxiv.org/abs/1512.03385); its pair is the whole block, with the
skip inside. The feedback sends y back through the feedback of both branches and adds up:

    G(y) = B(y) + S(y)

with feedback weights of its own for every convolution; a skip without layers is its own feedback. In the styles
"published" and "adjoint" the feedback of the branches is in that style, too. In the styles "linear", "matched" and
"gained" a difference goes down both branches along the clean pass: adjoints of the batch norms, maps without bias, and
inner activations that have targets of their own, as if the block were cut there: what they put out in the clean pass,
plus the difference.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, cast

from torch import Tensor, nn

from targetprop.layers.base import CARRYING, Context, Facts, FeedbackLayer, LayerRule, Style, register
from targetprop.layers.lookup import has_matrix, rule_of
from targetprop.layers.maps import MapFeedback
from targetprop.layers.sequence import (
    BranchedFeedback,
    BranchedRule,
    FeedbackChain,
    InnerMap,
    SequenceRule,
    leaves,
)
from targetprop.utils.errors import UserError


class Residual(nn.Module):
    """body(x) + skip(x). Put the activation that follows the sum behind it.

    >>> body = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1))
    >>> block = nn.Sequential(Residual(body), nn.ReLU())

    Args:
        body: layers in sequence.
        skip: what stands beside them, a layer or layers in sequence; None passes x on as it is.
    """

    def __init__(self, body: nn.Module, skip: nn.Module | None = None) -> None:
        super().__init__()
        self.body = nn.Sequential(*leaves(body))
        self.skip = nn.Sequential(*([] if skip is None else leaves(skip)))

    @property
    def branches(self) -> tuple[nn.Sequential, nn.Sequential]:
        """The body and the skip."""
        return self.body, self.skip

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + self.skip(x)


class BranchContext(NamedTuple):
    """One branch in one pass.

    Attributes:
        layers: the context of each layer.
        inputs: the input of each layer with a matrix or kernel, None of the others; detached.
    """

    layers: tuple[Context, ...]
    inputs: tuple[Tensor | None, ...]


class ResidualFeedback(BranchedFeedback):
    """The sum of the feedback of both branches."""

    def __init__(self, body: FeedbackChain, skip: FeedbackChain) -> None:
        super().__init__()
        self.body, self.skip = body, skip

    @property
    def branches(self) -> tuple[FeedbackChain, FeedbackChain]:
        """The feedback of the body and of the skip."""
        return self.body, self.skip

    @property
    def is_linear(self) -> bool:
        return self.body.is_linear and self.skip.is_linear

    @property
    def is_affine(self) -> bool:
        return self.body.is_affine and self.skip.is_affine

    @property
    def carries(self) -> bool:
        return self.body.carries and self.skip.carries

    def carry(self, difference: Tensor, context: Context) -> Tensor:
        body, skip = (chain.carry(difference, each.layers) for chain, each in zip(self.branches, context, strict=True))
        return body + skip

    def weights(self, layer: nn.Module) -> Iterator[tuple[Tensor, Tensor]]:
        assert isinstance(layer, Residual)
        for branch, chain in zip(layer.branches, self.branches, strict=True):
            yield from chain.weights(branch)

    def decode(self, y: Tensor, context: Context) -> Tensor:
        body, skip = (chain.decode(y, each.layers) for chain, each in zip(self.branches, context, strict=True))
        return body + skip


@register(Residual)
class ResidualRule(BranchedRule[Residual]):
    """The context is a `BranchContext` for each branch.

    Attributes:
        branches: the rule of each; empty until the rule is bound.
    """

    def __init__(self, branches: tuple[SequenceRule, ...] = ()) -> None:
        self.branches = branches

    def bound(self, layer: Residual) -> LayerRule[Any]:
        rules = [rule_of(branch) for branch in layer.branches]
        if not all(isinstance(rule, SequenceRule) for rule in rules):
            raise UserError(f"{type(layer).__name__}: a hook on a whole branch is not seen; hook its layers instead.")
        return ResidualRule(cast(tuple[SequenceRule, ...], tuple(rules)))

    def check_hooked(self, layer: Residual) -> None:
        raise UserError(f"{type(layer).__name__}: a hook on a whole Residual is not seen; hook its layers instead.")

    def facts(self, layer: Residual) -> Facts:
        facts = [rule.facts(branch) for rule, branch in zip(self.branches, layer.branches, strict=True)]
        return Facts(varies=any(each.varies for each in facts), dims=facts[0].dims or facts[1].dims)

    def apply(self, layer: Residual, x: Tensor) -> Tensor:
        body, skip = (rule.apply(branch, x) for rule, branch in zip(self.branches, layer.branches, strict=True))
        return body + skip

    def run(self, layer: Residual, x: Tensor, clean: Context = None) -> tuple[Tensor, Context]:
        (body, body_context), (skip, skip_context) = (
            _run_branch(rule, x, None if clean is None else clean[i]) for i, rule in enumerate(self.branches)
        )
        return body + skip, (body_context, skip_context)

    def feedback(self, layer: Residual, style: Style) -> ResidualFeedback:
        style = "linear" if style in ("lee", "range", "map") else style
        feedback = ResidualFeedback(
            *(rule.feedback(b, style) for rule, b in zip(self.branches, layer.branches, strict=True))
        )
        if style in CARRYING:
            for each in feedback.modules():
                if isinstance(each, MapFeedback):
                    each.map.register_parameter("bias", None)
        return feedback

    def inner_maps(self, layer: Residual, feedback: FeedbackLayer) -> list[InnerMap]:
        assert isinstance(feedback, ResidualFeedback)
        return [
            InnerMap(branch.layers[index], part, (number, 1, index), branch.rules[index])
            for number, (branch, chain) in enumerate(zip(self.branches, feedback.branches, strict=True))
            for index, part in enumerate(chain)
            if any(True for _ in part.parameters())
        ]

    @property
    def knows_its_gradients(self) -> bool:
        return False


def _run_branch(rule: SequenceRule, x: Tensor, clean: BranchContext | None) -> tuple[Tensor, BranchContext]:
    contexts, inputs = [], []
    for i, (layer, each) in enumerate(zip(rule.layers, rule.rules, strict=True)):
        inputs.append(x.detach() if has_matrix(layer) else None)
        x, context = each.run(layer, x, None if clean is None else clean.layers[i])
        contexts.append(context)
    return x, BranchContext(tuple(contexts), tuple(inputs))
