"""The course of a run: one row an epoch, a line in the log for each, and the curves."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import lightning as L

from targetprop.app.callbacks.epoch import epoch_of
from targetprop.app.callbacks.find import find_callback
from targetprop.app.callbacks.measurements import Measurements
from targetprop.app.callbacks.picture import Picture
from targetprop.app.report.curves import draw_curves

if TYPE_CHECKING:
    from targetprop.app.module import TaskModule

log = logging.getLogger(__name__)


class History(Picture):
    """Keeps every epoch's metrics and training time, through resumes too, and draws `curves.png` from them.

    The picture is drawn at the end, also of a run that fails, and in between at most once in `redraw_seconds`. Above it
    stand `title` and the best of the metric by which the task compares checkpoints.
    """

    def __init__(self, path: str | Path, redraw_seconds: float = 60.0, title: str | None = None) -> None:
        self.path = Path(path)
        self.title = title
        self.redraw_seconds = redraw_seconds
        self.epochs: list[dict[str, float]] = []
        self.start_clock()
        self._epoch_start = time.monotonic()
        self._validation_seconds = self._validation_start = 0.0
        self._validated = False
        self._carried = 0.0  # seconds of a running epoch that an earlier process spent on it

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Go on with the epoch of a run that goes on within one; another starts its own clock."""
        self._epoch_start = time.monotonic() - self._carried

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock."""
        self._epoch_start, self._validation_seconds = time.monotonic(), 0.0
        self._validated = False

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Validation is not training time."""
        self._validation_start = time.monotonic()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop the validation's clock."""
        self._validation_seconds = time.monotonic() - self._validation_start
        self._validated = True

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Add the epoch's row; the module's own metrics of the epoch are not yet among the logged ones."""
        metrics = {
            name: float(value)
            for name, value in trainer.callback_metrics.items()
            if name.startswith("feedback_loss/") or (self._validated and name.startswith("val/"))
        }
        module = cast("TaskModule", pl_module)
        metrics |= {f"train/{name}": float(metric.compute()) for name, metric in module.train_metrics.items()}
        metrics["epoch"] = trainer.current_epoch + 1
        metrics["seconds"] = time.monotonic() - self._epoch_start - self._validation_seconds
        self.epochs.append(metrics)
        log.info("%s: %s, %.1f s", epoch_of(trainer), module.task.line(metrics), metrics["seconds"])
        self.redraw(trainer)

    def paint(self, trainer: L.Trainer) -> None:
        """Draw the epochs so far."""
        if self.epochs:
            measured = find_callback(trainer, Measurements)
            task = cast("TaskModule", trainer.lightning_module).task
            title = ": ".join(each for each in (self.title, task.best(self.epochs)) if each)
            draw_curves(self.path, self.epochs, measured.rows if measured else [], task.curves, title)

    def state_dict(self) -> dict[str, Any]:
        """The rows so far, and what is known of the running epoch."""
        elapsed = time.monotonic() - self._epoch_start - self._validation_seconds
        return {"epochs": self.epochs, "seconds": elapsed, "validated": self._validated}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on after the rows of the resumed run."""
        self.epochs = list(state_dict["epochs"])
        self._carried, self._validated = state_dict["seconds"], state_dict["validated"]
