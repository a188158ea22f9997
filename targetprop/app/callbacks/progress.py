"""How far the run is: a bar on a terminal, now and then a line where there is none."""

from __future__ import annotations

import logging
import sys
import time
from typing import Any, cast

import lightning as L
from lightning.pytorch.callbacks import RichProgressBar

from targetprop.app.callbacks.find import find_callback
from targetprop.app.callbacks.step_losses import StepLosses
from targetprop.app.module import TaskModule

log = logging.getLogger(__name__)


class ProgressBar(RichProgressBar):
    """Batches, time left, and the epoch so far: metrics of training, feedback loss, the last validation.

    Numbers are read back from the device only when the bar is redrawn, every `refresh_rate` batches.
    """

    def __init__(self, refresh_rate: int = 10) -> None:
        super().__init__(refresh_rate=refresh_rate, leave=False)

    def get_metrics(self, trainer: L.Trainer, pl_module: L.LightningModule) -> dict[str, Any]:
        """What stands at the right of the bar."""
        return dict(epoch_so_far(trainer, cast(TaskModule, pl_module)))


class ProgressLines(L.Callback):
    """Where the output is no terminal, so that no bar is seen: a line in the log about every `seconds`."""

    def __init__(self, seconds: float = 60.0) -> None:
        self.seconds = seconds
        self._first = self._last = time.monotonic()

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock."""
        self._first = self._last = time.monotonic()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write a line if one is due."""
        now = time.monotonic()
        if batch_idx == 0:
            self._first = now  # it may take many times as long as the others
        if now - self._last < self.seconds or sys.stdout.isatty() or not trainer.is_global_zero:
            return
        self._last = now
        done, total = batch_idx + 1, int(trainer.num_training_batches)
        left = f", {(now - self._first) * (total - done) / batch_idx:.0f} s left of it" if batch_idx else ""
        numbers = ", ".join(
            f"{name} {value}" for name, value in epoch_so_far(trainer, cast(TaskModule, pl_module)).items()
        )
        log.info("Epoch %d, batch %d/%d%s: %s", trainer.current_epoch + 1, done, total, left, numbers)


def epoch_so_far(trainer: L.Trainer, module: TaskModule) -> dict[str, str]:
    """The metrics and the feedback loss of this epoch, and the last validation, as text."""
    row = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val/")}
    losses = None
    if trainer.training and module.train_metrics["loss"].update_count:
        row |= {f"train/{name}": float(metric.compute()) for name, metric in module.train_metrics.items()}
        losses = find_callback(trainer, StepLosses)
    shown = module.task.shown(row)
    validation = {"validation": shown.pop("validation")} if "validation" in shown else {}
    if losses and (feedback := losses.feedback_loss()) is not None:
        shown["feedback loss"] = f"{feedback:.3g}"
    return shown | validation
