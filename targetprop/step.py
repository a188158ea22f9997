"""What one training step begins with, and what it saw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from targetprop.local import local_loss
from targetprop.utils.errors import UserError, require
from targetprop.utils.precision import wide


@dataclass(frozen=True)
class Step:
    """What one training step saw, detached; in forward order.

    Attributes:
        feedback_losses: for each block with feedback, the mean over its updates; of a block that learns by the delta
            rule, the share of the response to noise that its feedback does not predict; 0 without a loss.
        local_losses: for each block, before the update, (blocks,).
        activities: mean output of each block, (blocks,).
        outputs, targets: of each block, (batch, ...); empty unless `backward` was told to keep them.
    """

    feedback_losses: Tensor
    local_losses: Tensor
    activities: Tensor
    outputs: list[Tensor]
    targets: list[Tensor]


class Record:
    """What a sweep over a batch of so many samples sees, block by block, until it is a `Step`."""

    def __init__(self, keep: bool, samples: int) -> None:
        self.keep = keep
        self.samples = samples
        self.feedback_losses: dict[int, Tensor] = {}
        self.local_losses: dict[int, Tensor] = {}
        self.activities: dict[int, Tensor] = {}
        self.outputs: dict[int, Tensor] = {}
        self.targets: dict[int, Tensor] = {}

    def add(self, block: int, y: Tensor, difference: Tensor) -> None:
        """A block's output and the difference of its target to it."""
        self.local_losses[block] = local_loss(difference, self.samples)
        self.activities[block] = y.mean(dtype=wide(y.dtype))
        if self.keep:
            self.outputs[block], self.targets[block] = y, y + difference

    def step(self, blocks: int, fed: Sequence[int], x: Tensor) -> Step:
        """All of it, in forward order."""
        learned = [self.feedback_losses[block] for block in fed]
        return Step(
            torch.stack(learned) if learned else x.new_zeros(0),
            torch.stack([self.local_losses[block] for block in range(blocks)]),
            torch.stack([self.activities[block] for block in range(blocks)]),
            [self.outputs[block] for block in range(blocks) if self.keep],
            [self.targets[block] for block in range(blocks) if self.keep],
        )


def sample_gradients(loss: Tensor, output: Tensor, *, retain_graph: bool = False) -> Tensor:
    """dL/ds^N of each sample's own loss, (batch, ...): with what a step begins.

    Args:
        loss: one value per sample (batch,), or their mean; its own parameters get their gradients.
        output: s^N, a leaf that the loss was computed from.
        retain_graph: whether to keep the graph of the loss.

    Raises:
        UserError: the loss has another shape, or is of another output.
    """
    require(isinstance(loss, Tensor), "backward", "a loss, computed from the output", type(loss).__name__)
    if loss.dim() and len(loss) != len(output):
        raise UserError(
            f"expected one loss for each of {len(output)} samples, or their mean; got {tuple(loss.shape)}.",
            key="backward",
        )
    if loss.requires_grad:
        loss.mean().backward(retain_graph=retain_graph)
    if output.grad is None:
        raise UserError("the loss must be computed from the output of the latest call.", key="backward")
    return output.grad * len(output)


def refuse_lost_gradient(output: Tensor) -> None:
    """The hook of an output whose gradient is to come by `backward` of the learner.

    Raises:
        UserError: always.
    """
    output.grad = None  # or it would be taken for part of the next step's
    raise UserError(
        "a gradient reached the output by loss.backward(), which trains nothing here: use learner.backward(loss) "
        "in its place, or make the learner a targetprop.hooked(learner).",
        key="backward",
    )
