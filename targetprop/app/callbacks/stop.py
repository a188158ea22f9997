"""Ends a run that was asked to by a signal, with a checkpoint."""

from __future__ import annotations

from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Checkpoint

from targetprop.app.callbacks.checkpoint import LastCheckpoint, between_batches
from targetprop.app.callbacks.find import find_callback
from targetprop.app.signals import Signals, StoppedError


class StopOnSignal(Checkpoint):
    """Raises `StoppedError` once the step, or the batch of a validation, is done and `LastCheckpoint` has saved.

    As a callback of Lightning's kind for checkpoints it comes after all others. Processes that train together agree
    after every step, so that all of them stop at the same one.
    """

    def __init__(self, signals: Signals) -> None:
        self.signals = signals

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Hear signals in place of Lightning, whose way to end a run keeps nothing."""
        self.signals.listen()

    on_validation_start = on_test_start = on_train_start

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop between two batches; before a validation or the end of an epoch those see to it."""
        if (heard := self._agreed(trainer)) and between_batches(trainer):
            self._stop(trainer, heard, save=True)

    def on_validation_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *batch: Any) -> None:
        """Stop; the validation begins anew."""
        if heard := self._agreed(trainer):
            self._stop(trainer, heard, save=trainer.state.fn == "fit" and not trainer.sanity_checking)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop behind the checkpoint of the epoch's end."""
        if heard := self._agreed(trainer):
            self._stop(trainer, heard, save=False)

    def on_test_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *batch: Any) -> None:
        """Stop: a run that goes on from its end only tests."""
        self.stop_if_asked(trainer)

    def stop_if_asked(self, trainer: L.Trainer) -> None:
        """Stop where there is nothing to save."""
        if heard := self._agreed(trainer):
            self._stop(trainer, heard, save=False)

    def _agreed(self, trainer: L.Trainer) -> int:
        """The signal that this process has heard, or another one that it trains with; 0 if there is none."""
        agree = getattr(trainer.strategy, "agree", None)
        return int(agree(self.signals.heard)) if agree else self.signals.heard

    @staticmethod
    def _stop(trainer: L.Trainer, heard: int, *, save: bool) -> None:
        last = find_callback(trainer, LastCheckpoint)
        if save and last is not None:
            last.save(trainer)
        raise StoppedError(heard)
