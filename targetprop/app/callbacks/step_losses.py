"""Feedback and local losses of every block, logged as means over the epoch."""

from __future__ import annotations

from typing import Any, cast

import lightning as L
import torch
from torch import Tensor

from targetprop.step import Step
from targetprop.trainable import Trainable


class StepLosses(L.Callback):
    """Logs at the end of an epoch, for block n: `feedback_loss/block{n}` and `local_loss/block{n}`.

    Sums are kept on the device: nothing is read back during the epoch.
    """

    def __init__(self) -> None:
        self._sums: tuple[Tensor, Tensor] | None = None
        self._steps = 0

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Add the step's losses."""
        step = cast(Step | None, pl_module.last_step)
        if step is None:
            return
        losses = (step.feedback_losses, step.local_losses)
        before = self._sums or (torch.zeros_like(losses[0]), torch.zeros_like(losses[1]))
        # What a checkpoint brought is on the CPU.
        self._sums = (before[0].to(losses[0].device) + losses[0], before[1].to(losses[1].device) + losses[1])
        self._steps += 1

    def feedback_loss(self) -> float | None:
        """Feedback loss so far in this epoch, summed over the blocks; None before the first step."""
        return float(self._sums[0].sum()) / self._steps if self._sums is not None else None

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Log the means and start anew."""
        if self._sums is None:
            return
        feedback, local = (torch.atleast_1d(total) / self._steps for total in self._sums)
        fed = cast(Trainable, pl_module.learner).network.fed_numbers
        values = {f"feedback_loss/block{n + 1}": value for n, value in zip(fed, feedback, strict=True)}
        values |= {f"local_loss/block{n}": value for n, value in enumerate(local, start=1)}
        pl_module.log_dict(values)
        self._sums, self._steps = None, 0

    def state_dict(self) -> dict[str, Any]:
        """The sums so far in this epoch."""
        return {"sums": self._sums, "steps": self._steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with them."""
        self._sums, self._steps = state_dict["sums"], state_dict["steps"]
