"""Feedback that does not learn."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor

from targetprop.feedback.base import FeedbackLearning, FeedbackRule
from targetprop.layers.base import STYLES, Style
from targetprop.utils.errors import require

if TYPE_CHECKING:
    from targetprop.network.network import PairedNetwork
    from targetprop.network.passes import Pass, Scope


@dataclass(frozen=True)
class Fixed(FeedbackRule):
    """Feedback weights stay as they were initialised.

    Args:
        init_symmetric_weights: whether they are the transposed forward weights of the start.
        style: of the feedback layers.
    """

    init_symmetric_weights: bool = False
    style: Style = "published"
    styles: ClassVar[frozenset[Style]] = frozenset(STYLES)

    def __post_init__(self) -> None:
        symmetric = self.init_symmetric_weights
        require(isinstance(symmetric, bool), "init_symmetric_weights", "true or false", symmetric)
        self.check_style()

    @property
    def scope(self) -> Scope:
        return "block"

    def start(self, network: PairedNetwork) -> FixedLearning:
        if self.init_symmetric_weights:
            network.make_symmetric()
        return FixedLearning(network)


@dataclass(frozen=True)
class Untrained(FeedbackRule):
    """For target rules that have no feedback, or make one that is not to learn: there is nothing to set."""

    style: Style = field(default="published", init=False)
    styles: ClassVar[frozenset[Style]] = frozenset({"published"})

    @property
    def scope(self) -> Scope:
        return "block"

    def start(self, network: PairedNetwork) -> FixedLearning:
        return FixedLearning(network)


class FixedLearning(FeedbackLearning):
    """Nothing happens."""

    @property
    def learns_alone(self) -> bool:
        return False

    def learn(self, seen: Pass, block: int) -> Tensor:
        return self.no_loss(seen, block)

    def explain(self, block: int) -> str:
        return "feedback stays as it is, the rule trains none"
