"""Direct difference target propagation (DDTP): targets straight from the output to every hidden block.

Meulemans et al., "A Theoretical Framework for Target Propagation", 2020, https://arxiv.org/abs/2006.14331.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from targetprop.layers.direct import DirectFeedback, HiddenLayerFeedback, RandomLayer
from targetprop.layers.sequence import last_activation
from targetprop.targets.base import OutputSignal, output_difference
from targetprop.targets.from_output import FromOutput
from targetprop.utils.errors import require, require_whole

if TYPE_CHECKING:
    from targetprop.layers.base import FeedbackLayer, Style
    from targetprop.network.passes import Pass
    from targetprop.network.shapes import Blocks

HIDDEN = "random hidden layer"
"""Under which name blocks have it in common."""


class ByDirectFeedback(FromOutput):
    """t^n = s^n + Q^n(t^N) - Q^n(s^N), with feedback Q^n from the network's output to that of hidden block n."""

    def needs_feedback(self, block: int, blocks: int) -> bool:
        return block < blocks - 1

    def feedback_layer(self, blocks: Blocks, block: int, style: Style) -> FeedbackLayer | None:
        return self.direct_feedback(blocks, block) if self.needs_feedback(block, len(blocks)) else None

    @abstractmethod
    def direct_feedback(self, blocks: Blocks, block: int) -> FeedbackLayer:
        """A new Q^n: (batch, *network output) to (batch, *output of the block); its context is the latter's value.

        Raises:
            UserError: the shapes of the blocks' outputs are not known.
        """

    def sweep(self, seen: Pass, output: OutputSignal) -> Iterator[tuple[int, Tensor]]:
        last, difference = len(seen.network.pairs) - 1, output_difference(output.gradient, self.beta)
        yield last, difference
        for block in range(last - 1, -1, -1):
            clean = seen.trace(block).y.detach()
            yield block, seen.network.pairs[block].decode_difference(seen.output, difference, clean)


@dataclass(frozen=True)
class DirectTargets(ByDirectFeedback):
    """Feedback that is a matrix Q^n: DDTP-linear, if it learns by `direct_drl`; DFA, if it does not learn.

    Args:
        feedback_bias: whether Q^n has an offset. It cancels here, and matters to the loss of DDTP-control alone.
    """

    feedback_bias: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require(isinstance(self.feedback_bias, bool), "feedback_bias", "true or false", self.feedback_bias)

    def direct_feedback(self, blocks: Blocks, block: int) -> FeedbackLayer:
        return DirectFeedback(blocks.output_shape(-1), blocks.output_shape(block), bias=self.feedback_bias)


@dataclass(frozen=True)
class HiddenLayerTargets(ByDirectFeedback):
    """Q^n(y) = g(V^n z(y) + c^n), with a fixed random hidden layer z(y) = tanh(R y + r): DDTP-RHL.

    All blocks share z; g is the block's own activation. The last hidden block is told the output itself, without z and
    without its own activity, as published.

    Args:
        hidden_units: of z. Published: 1024 for MNIST, 2048 for CIFAR-10.
        recurrent: whether V^n sees the block's own clean activity beside z: V^n [z, s^n].
    """

    hidden_units: int = 1024
    recurrent: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require_whole("hidden_units", self.hidden_units, least=1)
        require(isinstance(self.recurrent, bool), "recurrent", "true or false", self.recurrent)

    def direct_feedback(self, blocks: Blocks, block: int) -> FeedbackLayer:
        source, goal, activation = blocks.output_shape(-1), blocks.output_shape(block), last_activation(blocks[block])
        if block == len(blocks) - 2:
            return HiddenLayerFeedback(source, goal, None, activation)
        hidden = self._hidden_layer(blocks, source.numel())
        return HiddenLayerFeedback(source, goal, hidden, activation, recurrent=self.recurrent)

    def _hidden_layer(self, blocks: Blocks, inputs: int) -> RandomLayer:
        if HIDDEN not in blocks.common:
            blocks.common[HIDDEN] = RandomLayer(inputs, self.hidden_units)
        hidden = blocks.common[HIDDEN]
        assert isinstance(hidden, RandomLayer)
        return hidden
