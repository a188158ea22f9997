"""The output's error, or the labels, straight to every hidden block by matrices that stay as they start.

Neither forms a target that a block could hit: what is carried down is linear in the error, or knows of none.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor, nn

from targetprop.layers.direct import DirectFeedback
from targetprop.properties import Needs
from targetprop.targets.base import OutputSignal, TargetRule, output_difference
from targetprop.targets.from_output import FromOutput
from targetprop.utils.errors import UserError

if TYPE_CHECKING:
    from targetprop.layers.base import FeedbackLayer, Style
    from targetprop.network.passes import Pass, Scope
    from targetprop.network.shapes import Blocks


@dataclass(frozen=True)
class DirectErrors(FromOutput):
    """d^n = -beta B^n dL/ds^N: direct feedback alignment, if B^n does not learn.

    The local update multiplies by the slope of the activation: delta = f'(a) * (B e), and the output block has
    backprop's gradient, all times beta. Nøkland, "Direct Feedback Alignment Provides Learning in Deep Neural Networks",
    2016, https://arxiv.org/abs/1609.01596.
    """

    def needs_feedback(self, block: int, blocks: int) -> bool:
        return block < blocks - 1

    def feedback_layer(self, blocks: Blocks, block: int, style: Style) -> FeedbackLayer | None:
        return _projection(blocks, block) if self.needs_feedback(block, len(blocks)) else None

    def sweep(self, seen: Pass, output: OutputSignal) -> Iterator[tuple[int, Tensor]]:
        difference = output_difference(output.gradient, self.beta)
        return _projected(seen, difference, difference)


@dataclass(frozen=True)
class DirectLabels(TargetRule):
    """d^n = -B^n onehot(label): direct random target projection (DRTP), if B^n does not learn.

    Hidden blocks know the labels and no error; the output block has backprop's gradient. B^n is uniform in
    +-sqrt(6 / units), as published. There the hidden updates are sums over the batch, which is a factor of the rate,
    and a convolution's projection enters before its pooling, where here it enters at the output of the whole block.

    Frenkel, Lefebvre and Bol, "Learning without feedback: Direct random target projection as a feedback-alignment
    algorithm with layerwise feedforward training", 2019, https://arxiv.org/abs/1909.01311.
    """

    @property
    def scope(self) -> Scope:
        return "network"

    @property
    def needs(self) -> Needs:
        return Needs(frozenset({"labels"}))

    def needs_feedback(self, block: int, blocks: int) -> bool:
        return block < blocks - 1

    def feedback_layer(self, blocks: Blocks, block: int, style: Style) -> FeedbackLayer | None:
        if not self.needs_feedback(block, len(blocks)):
            return None
        made = _projection(blocks, block)
        bound = (6 / made.goal.numel()) ** 0.5
        nn.init.uniform_(made.map.weight, -bound, bound)
        return made

    def sweep(self, seen: Pass, output: OutputSignal) -> Iterator[tuple[int, Tensor]]:
        labels = output.labels
        if labels is None or labels.shape != seen.output.shape[:1] or labels.is_floating_point():
            raise UserError("this rule needs the labels of the batch, (batch,).", key="labels")
        wanted = F.one_hot(labels, seen.output.shape[1]).to(output.gradient.dtype)
        return _projected(seen, output_difference(output.gradient, 1.0), -wanted)


def _projection(blocks: Blocks, block: int) -> DirectFeedback:
    """A new B^n."""
    return DirectFeedback(blocks.output_shape(-1), blocks.output_shape(block), bias=False)


def _projected(seen: Pass, at_output: Tensor, told: Tensor) -> Iterator[tuple[int, Tensor]]:
    """The difference at the output, and B^n times what every hidden block n is told, (batch, *output)."""
    last = len(seen.network.pairs) - 1
    yield last, at_output
    for block in range(last - 1, -1, -1):
        yield block, seen.network.pairs[block].decode(told, None)
