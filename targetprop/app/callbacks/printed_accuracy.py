"""Accuracy as the course notebook counts it, beside the true one."""

from __future__ import annotations

import logging
import math
from typing import ClassVar, cast

import lightning as L

from targetprop.app.datamodule import ImageDataModule

log = logging.getLogger(__name__)


class PrintedAccuracy(L.Callback):
    """Logs `val/accuracy_as_printed`: right answers over batches times batch size, as if the last batch were full.

    With 10,000 images in batches of 1024 that is 10,000 / 10,240 of the true accuracy, which it writes beside.
    """

    reads: ClassVar[tuple[str, ...]] = ("val/accuracy",)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Derive it from the true one."""
        data = cast(ImageDataModule, trainer.datamodule)  # type: ignore[attr-defined]
        images = len(data.val_dataloader().images)  # type: ignore[union-attr]
        counted = math.ceil(images / data.batch_size) * data.batch_size
        true = float(trainer.callback_metrics["val/accuracy"])
        printed = true * images / counted
        for logger in trainer.loggers:
            logger.log_metrics({"val/accuracy_as_printed": printed}, step=trainer.global_step)
        log.info("Validation accuracy as the notebook counts: %.2f %%; truly %.2f %%", 100 * printed, 100 * true)
