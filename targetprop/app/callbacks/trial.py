"""What the legacy command line does beside the training: end a trial that does not learn, keep a record of it."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

import lightning as L

from targetprop.app.callbacks.find import find_callback
from targetprop.app.callbacks.history import History
from targetprop.utils.errors import is_number, require
from targetprop.utils.files import write_text

if TYPE_CHECKING:
    from targetprop.app.module import TaskModule

log = logging.getLogger(__name__)


class AccuracyFloor(L.Callback):
    """Ends training after an epoch whose training accuracy is below `least`, a fraction."""

    reads: ClassVar[tuple[str, ...]] = ("train/accuracy",)

    def __init__(self, least: float) -> None:
        require(is_number(least) and 0 <= least <= 1, "least", "a number in [0, 1]", least)
        self.least = least

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop if the epoch was too bad."""
        accuracy = float(cast("TaskModule", pl_module).train_metrics["accuracy"].compute())
        if trainer.strategy.reduce_boolean_decision(accuracy < self.least):  # the same for all processes
            message = "Training accuracy %.2f %% is below %.2f %%: training ends with epoch %d."
            log.warning(message, 100 * accuracy, 100 * self.least, trainer.current_epoch + 1)
            trainer.should_stop = True


class TrialRecord(L.Callback):
    """Keeps `path`, a JSON file: hyper-parameters, the command that reproduces the trial, and accuracies (fractions).

    "train_accuracy" has a number for each epoch (those of `History`), "test_accuracy" is of the final test.
    """

    reads: ClassVar[tuple[str, ...]] = ("train/accuracy",)

    def __init__(self, path: str | Path, command: str | None, hyperparameters: Mapping[str, Any]) -> None:
        self.path = Path(path)
        self.record: dict[str, Any] = {"command": command, "hyperparameters": dict(hyperparameters)}

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the accuracies of the epochs so far."""
        history = find_callback(trainer, History)
        self.record["train_accuracy"] = [row["train/accuracy"] for row in history.epochs] if history else []
        self._write(trainer)

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Add the accuracy on the test set."""
        if "test/accuracy" in trainer.callback_metrics:
            self.record["test_accuracy"] = float(trainer.callback_metrics["test/accuracy"])
            self._write(trainer)

    def _write(self, trainer: L.Trainer) -> None:
        if trainer.is_global_zero:
            write_text(self.path, json.dumps(self.record, indent=2) + "\n")
