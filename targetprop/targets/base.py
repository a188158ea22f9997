"""What every target rule has in common: where targets start, and how they come down to every block."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from targetprop.layers.sequence import feedback_to_below
from targetprop.properties import Needs

if TYPE_CHECKING:
    from targetprop.layers.base import FeedbackLayer, Style
    from targetprop.network.pair import Pair, Trace
    from targetprop.network.passes import Pass, Scope
    from targetprop.network.shapes import Blocks


@dataclass(frozen=True)
class OutputSignal:
    """What a target rule is told at the output.

    Attributes:
        gradient: dL/ds^N of each sample's own loss, (batch, ...).
        labels: (batch,), if the caller gave them.
        loss: the loss as a function of the output, if the caller gave it: a rule may evaluate it again.
    """

    gradient: Tensor
    labels: Tensor | None = None
    loss: Callable[[Tensor], Tensor] | None = None


class TargetRule(ABC):
    """How targets start and come down. A value: a frozen dataclass with its own numbers.

    A target t^n is kept as its difference d^n = t^n - s^n to what the block put out.
    """

    @property
    @abstractmethod
    def scope(self) -> Scope:
        """How far it looks: at one block, or further."""

    @property
    def needs(self) -> Needs:
        """What it needs beside each block's own activity."""
        return Needs()

    @property
    def update_scale(self) -> float | None:
        """What updates are times backprop's gradient, about; None where there is nothing to compare."""
        return None

    def weight(self, block: int, blocks: int) -> float:
        """What the local loss of block number `block`, from 0, of so many is multiplied by."""
        return 1.0

    @abstractmethod
    def needs_feedback(self, block: int, blocks: int) -> bool:
        """Whether block number `block`, from 0, of so many carries a target by feedback."""

    def feedback_layer(self, blocks: Blocks, block: int, style: Style) -> FeedbackLayer | None:
        """The feedback of one of the blocks: here, from its output space to its input space; None if it needs none.

        One of another size may ask the blocks for the shapes of what they put out.

        Raises:
            UserError: a layer of it has no feedback.
        """
        return feedback_to_below(blocks, block, style) if self.needs_feedback(block, len(blocks)) else None

    @abstractmethod
    def sweep(self, seen: Pass, output: OutputSignal) -> Iterator[tuple[int, Tensor]]:
        """Yield (block, d^n) from the output down.

        Whoever iterates trains the feedback of that block, and takes its forward update, before asking for the next.
        """


def output_difference(gradient: Tensor, beta: float) -> Tensor:
    """d^N: t^N = s^N - beta dL/ds^N, with the per-sample gradient dL/ds^N (batch, ...). Lee et al. 2015."""
    return -beta * gradient


def adjoint_difference(pair: Pair, trace: Trace, difference: Tensor) -> Tensor:
    """J^T d^n, by the transposed Jacobian of the block itself, on the clean batch.

    Below an output block that follows the loss, d = -dL/ds^N, this is -dL/ds^{N-1}.
    """
    with torch.enable_grad():
        x = trace.x.detach().requires_grad_()
        y, _ = pair.encode(x, trace.context)
        return torch.autograd.grad(y, x, difference)[0]
