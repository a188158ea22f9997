"""Feedback in two halves whose weights stay as they start.

Shibuya et al., "Fixed-Weight Difference Target Propagation", 2023, https://arxiv.org/abs/2212.10352.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from targetprop.feedback.base import FeedbackRule
from targetprop.feedback.fixed import FixedLearning
from targetprop.feedback.starting import Start, set_all
from targetprop.layers.base import Style

if TYPE_CHECKING:
    from targetprop.network.network import PairedNetwork
    from targetprop.network.passes import Scope


@dataclass(frozen=True)
class FixedWeights(FeedbackRule):
    """Weights are drawn once, with an activation behind them: FW-DTP.

    Args:
        init: how weights start, KIND-K: 10^-K times what is uniform in [-1, 1], gaussian, orthogonal, eye or constant;
            with -sparse-SHARE behind it that share of every row is zero. Published default: "uniform-3".
    """

    init: str = "uniform-3"
    style: Style = field(default="lee", init=False)
    styles: ClassVar[frozenset[Style]] = frozenset({"lee"})

    def __post_init__(self) -> None:
        Start.of(self.init)

    @property
    def scope(self) -> Scope:
        return "block"

    def start(self, network: PairedNetwork) -> FixedLearning:
        set_all(network, Start.of(self.init))
        return FixedLearning(network)


@dataclass(frozen=True)
class Identity(FeedbackRule):
    """The rectangular identity, padded with zeros or cut off, without an activation behind it: ITP.

    The feedback of a convolution is the identity of its channels: the published code knows fully connected layers only.
    """

    style: Style = field(default="map", init=False)
    styles: ClassVar[frozenset[Style]] = frozenset({"map"})

    @property
    def scope(self) -> Scope:
        return "block"

    def start(self, network: PairedNetwork) -> FixedLearning:
        set_all(network, Start("eye", 0.0))
        return FixedLearning(network)
