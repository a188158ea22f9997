"""Targets through feedback in two halves: a map with an activation behind it, and a correction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor, nn

from targetprop.layers.halves import HalvesFeedback, halves_of
from targetprop.targets.layerwise import DifferenceTargets, PlainTargets

if TYPE_CHECKING:
    from targetprop.layers.base import FeedbackLayer, Style
    from targetprop.network.pair import Pair, Trace


@dataclass(frozen=True)
class CorrectedTargets(DifferenceTargets):
    """Difference targets, standardised where activations are: t^{n-1} = act_c(g(t^n) + s^{n-1} - g(s^n)).

    g(y) = act(V y), with the activation of the block below behind the map. act_c is the standardisation over the batch
    of the block below; without one these are the targets of Lee et al. 2015, and V has no bias.

    Shibuya et al., "Fixed-Weight Difference Target Propagation", 2023, https://arxiv.org/abs/2212.10352.
    """

    def feedback_layer(self, blocks: Sequence[nn.Sequential], block: int, style: Style) -> FeedbackLayer | None:
        return halves_of(blocks, block, style) if self.needs_feedback(block, len(blocks)) else None

    def carry(self, pair: Pair, trace: Trace, difference: Tensor, at_map: Tensor | None = None) -> Tensor:
        feedback = pair.feedback
        if not (isinstance(feedback, HalvesFeedback) and feedback.standardizes):
            return pair.decode_difference(trace.y, difference, trace.context)
        moved, clean = (pair.decode(y, trace.context) for y in (trace.y + difference, trace.y))
        return feedback.correct(moved, trace.x, clean) - trace.x


@dataclass(frozen=True)
class UncorrectedTargets(PlainTargets):
    """Target propagation through the first half alone: t^{n-1} = g(t^n) = act(V t^n).

    As in `CorrectedTargets`, the activation is that of the block below, with its standardisation if it has one.
    """

    def feedback_layer(self, blocks: Sequence[nn.Sequential], block: int, style: Style) -> FeedbackLayer | None:
        return halves_of(blocks, block, style) if self.needs_feedback(block, len(blocks)) else None
