"""Losses of sequences: what torch's own do not average as a batch of sequences is averaged here."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from targetprop.utils.errors import UserError


def token_cross_entropy(
    outputs: Tensor, tokens: Tensor, *, label_smoothing: float = 0.0, reduction: str = "mean"
) -> Tensor:
    """Cross-entropy of a class at every place of sequences, in nats: the mean over time, and over the batch.

    A batch is a mean of samples, and a sample's loss the mean over its places: its gradient at the output of one place
    is 1 / time of what it would be in a sequence of one place. `Learner.backward` takes the mean, or one loss a sample.

    Args:
        outputs: logits, (batch, time, classes).
        tokens: labels, (batch, time).
        label_smoothing: share of each label that is spread over all classes.
        reduction: "mean" of the batch, "sample" for one loss of each (batch,), "none" for all places (batch, time).

    Raises:
        UserError: the shapes do not fit.
    """
    if outputs.ndim != 3 or outputs.shape[:2] != tokens.shape:
        expected = "outputs (batch, time, classes) for labels (batch, time)"
        raise UserError(f"expected {expected}, got {tuple(outputs.shape)} for {tuple(tokens.shape)}", key="outputs")
    if reduction not in ("mean", "sample", "none"):
        raise UserError(f"expected mean, sample or none, got {reduction!r}", key="reduction")
    flat = F.cross_entropy(outputs.flatten(0, 1), tokens.flatten(), reduction="none", label_smoothing=label_smoothing)
    losses = flat.view(tokens.shape)
    if reduction == "none":
        return losses
    samples = losses.mean(1)
    return samples if reduction == "sample" else samples.mean()
