"""Sign symmetry: feedback weights with the signs of the forward weights, and magnitudes of their own.

Liao et al., "How Important Is Weight Symmetry in Backpropagation?", 2015, https://arxiv.org/abs/1510.05067. An error
goes down through V with V^T = |M| * sign(W) in place of W, sign(0) = 0; the signs are those of the weights as they are.
The rules here differ in |M|. Its scale is a choice of implementations, not of the paper, whose text was not read: here
its root mean square is that of Xavier's initialisation, s = sqrt(2 / (fan_in + fan_out)). The paper's own optimisers
(Batch Manhattan, batch normalisation of errors) are not part of the rules.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, cast

import torch
from torch import Tensor

from targetprop.feedback.base import FeedbackLearning, FeedbackRule
from targetprop.noise import NoiseKey
from targetprop.properties import Needs
from targetprop.utils.errors import UserError

if TYPE_CHECKING:
    from targetprop.layers.base import Style
    from targetprop.network.feedback_map import FeedbackMap
    from targetprop.network.network import PairedNetwork
    from targetprop.network.passes import Pass, Scope

MAGNITUDE = "magnitude"
"""The buffer beside V that keeps magnitudes which are drawn once."""


@dataclass(frozen=True)
class SignSymmetry(FeedbackRule):
    """What the three rules have in common."""

    style: Style = field(default="linear", init=False)
    styles: ClassVar[frozenset[Style]] = frozenset({"linear"})
    words: ClassVar[str]

    @property
    def scope(self) -> Scope:
        return "block"

    @property
    def needs(self) -> Needs:
        return Needs(frozenset({"weight signs"}))

    def start(self, network: PairedNetwork) -> SignSymmetryLearning:
        for pair in network.trained:
            if pair.feedback_parameters() and not pair.maps:
                raise UserError(
                    f"block {pair.name}: sign symmetry needs a weight matrix for each one of the feedback; use another "
                    "rule, such as 'dtp'.",
                    key="network",
                )
        for pair in network.trained:
            for part in pair.maps:
                self.prepare(part)
        return SignSymmetryLearning(network, self)

    def prepare(self, part: FeedbackMap) -> None:
        """Before the first step, for each linear map."""

    @abstractmethod
    def magnitude(self, part: FeedbackMap, weight: Tensor, seen: Pass, key: NoiseKey) -> Tensor | float:
        """|M| of a linear map in this step: one number, or one for each weight, in the forward weight's shape."""


@dataclass(frozen=True)
class UniformSignSymmetry(SignSymmetry):
    """V^T = s sign(W): all magnitudes of a map are one number (uSF)."""

    words: ClassVar[str] = "signs of the forward weights, all of one magnitude"

    def magnitude(self, part: FeedbackMap, weight: Tensor, seen: Pass, key: NoiseKey) -> float:
        return xavier(weight)


@dataclass(frozen=True)
class BatchwiseSignSymmetry(SignSymmetry):
    """V^T = |M| sign(W), M ~ N(0, s^2) drawn anew for every batch (brSF)."""

    words: ClassVar[str] = "signs of the forward weights, magnitudes drawn for every batch"

    def magnitude(self, part: FeedbackMap, weight: Tensor, seen: Pass, key: NoiseKey) -> Tensor:
        return seen.noise(key, weight).abs_().mul_(xavier(weight))


@dataclass(frozen=True)
class FixedSignSymmetry(SignSymmetry):
    """V^T = |M| sign(W), M ~ N(0, s^2) drawn once (frSF)."""

    words: ClassVar[str] = "signs of the forward weights, magnitudes as first drawn"

    def prepare(self, part: FeedbackMap) -> None:
        weight = forward_weight(part)
        part.map.register_buffer(MAGNITUDE, torch.randn_like(weight).abs_().mul_(xavier(weight)))

    def magnitude(self, part: FeedbackMap, weight: Tensor, seen: Pass, key: NoiseKey) -> Tensor:
        return part.map.get_buffer(MAGNITUDE)


class SignSymmetryLearning(FeedbackLearning):
    """Sets V before the block's target goes down through it."""

    def __init__(self, network: PairedNetwork, rule: SignSymmetry) -> None:
        super().__init__(network)
        self.rule = rule

    def learn(self, seen: Pass, block: int) -> Tensor:
        for number, part in enumerate(self.network.pairs[block].maps):
            if part.map.weight.requires_grad:
                weight = forward_weight(part)
                key = NoiseKey(seen.step, block, number, "magnitude")
                part.map.transposed.copy_(weight.sign() * self.rule.magnitude(part, weight, seen, key))
        return self.no_loss(seen, block)

    def explain(self, block: int) -> str:
        if not any(part.map.weight.requires_grad for part in self.network.pairs[block].maps):
            return "feedback stays as it is, its weights are frozen"
        return self.rule.words


def xavier(weight: Tensor) -> float:
    """The standard deviation of Xavier's initialisation, sqrt(2 / (fan_in + fan_out)), for weights (out, in, ...)."""
    return cast(float, (2 / (weight[0].numel() + weight[:, 0].numel())) ** 0.5)


def forward_weight(part: FeedbackMap) -> Tensor:
    """W of a linear map, detached."""
    assert isinstance(part.layer.weight, Tensor)
    return part.layer.weight.detach()
