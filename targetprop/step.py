"""One training step seen from outside: with what it begins, and what it saw."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from targetprop.utils.errors import UserError


@dataclass(frozen=True)
class Step:
    """What one training step saw, detached; in forward order.

    Attributes:
        feedback_losses: for each block with feedback, the mean over its iterations, (blocks - 1,), or (blocks - 2,)
            where the output block follows the loss itself; of a block that learns by the amortised rule, the share of
            the response to noise that its feedback does not predict.
        local_losses: for each block, before the update, (blocks,).
        activities: mean output of each block, (blocks,).
        outputs, targets: of each block, (batch, ...); empty unless `backward` was told to keep them.
    """

    feedback_losses: Tensor
    local_losses: Tensor
    activities: Tensor
    outputs: list[Tensor]
    targets: list[Tensor]


def sample_gradients(loss: Tensor, output: Tensor) -> Tensor:
    """dL/ds^N of each sample's own loss, (batch, ...): with what a step begins.

    Args:
        loss: one value per sample (batch,), or their mean; its own parameters get their gradients.
        output: s^N, a leaf that the loss was computed from.

    Raises:
        UserError: the loss has another shape, or is of another output.
    """
    if loss.dim() and len(loss) != len(output):
        raise UserError(
            f"backward: expected one loss for each of {len(output)} samples, or their mean; got {tuple(loss.shape)}."
        )
    if loss.requires_grad:
        loss.mean().backward()
    if output.grad is None:
        raise UserError("backward: the loss must be computed from the output of the latest call.")
    return output.grad * len(output)
