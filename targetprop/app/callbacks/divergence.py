"""Stop a run that has diverged before it overwrites its last good checkpoint."""

from __future__ import annotations

from typing import Any, cast

import lightning as L
import torch
from torch import Tensor

from targetprop.app.callbacks.checkpoint import LastCheckpoint
from targetprop.app.callbacks.find import find_callback
from targetprop.app.errors import DivergenceError
from targetprop.app.finite import ADVICE, block_not_finite
from targetprop.app.module import TaskModule
from targetprop.step import Step


class StopOnDivergence(L.Callback):
    """Raises `DivergenceError`, naming step and block, once an activation or a loss is infinite or not a number.

    They are looked at every `every_n_steps` steps and before each checkpoint, so that a GPU is seldom waited for;
    the first bad step and block are known exactly all the same.
    """

    def __init__(self, every_n_steps: int = 20) -> None:
        self.every_n_steps = every_n_steps
        self._pending: list[tuple[int, Tensor]] = []
        self._by_block = False  # whether steps say what they saw, block by block

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Remember one number of everything that can go wrong in the step, in the order of cause and effect."""
        values = [outputs["loss"].detach().reshape(1)]
        step = cast(Step | None, pl_module.last_step)
        self._by_block = step is not None
        if step is not None:
            values = [step.activities, *values, step.feedback_losses, step.local_losses.flip(0)]
        self._pending.append((trainer.global_step, torch.cat(values)))
        if len(self._pending) >= self.every_n_steps:
            self._check(trainer, pl_module)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Look at the steps so far and at the weights that they came to, which validation could name no step of."""
        if trainer.state.fn == "fit":
            self._check_weights(trainer, pl_module)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Look at what is left of the epoch, and at the weights that a checkpoint would keep."""
        self._check_weights(trainer, pl_module)

    def _check_weights(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._check(trainer, pl_module)
        what = block_not_finite(cast(TaskModule, pl_module).learner.network.pairs)
        if what is not None:
            raise self._error(trainer, what, trainer.global_step)

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Look at all steps so far, so that no checkpoint holds what came of a bad one."""
        self._check(trainer, pl_module)

    def _check(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        pending, self._pending = self._pending, []
        if not pending:
            return
        bad = torch.stack([values for _, values in pending]).isfinite().logical_not().nonzero()
        if len(bad):
            row, column = bad[0].tolist()
            causes = _causes(cast(TaskModule, pl_module)) if self._by_block else ["the loss"]
            raise self._error(trainer, causes[column], pending[row][0])

    @staticmethod
    def _error(trainer: L.Trainer, what: str, step: int) -> DivergenceError:
        last = find_callback(trainer, LastCheckpoint)
        kept = last.path if last else None
        hint = "There was no checkpoint yet." if kept is None else f"The last good checkpoint is {kept}."
        where = f"step {step} (epoch {trainer.current_epoch + 1})"
        return DivergenceError(f"Training diverged at {where}: {what} is not finite. {hint} {ADVICE}")


def _causes(module: TaskModule) -> list[str]:
    """What the remembered numbers of a step are of, in their order."""
    blocks = [pair.name for pair in module.learner.network.pairs]
    return [
        *(f"the output of block {name}" for name in blocks),
        "the loss",
        *(f"the feedback loss of block {pair.name}" for pair in module.learner.network.trained),
        *(f"the local loss of block {name}" for name in reversed(blocks)),
    ]
