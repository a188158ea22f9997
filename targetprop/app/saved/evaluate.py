"""The metrics of a run's data, measured again on what it left behind."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import lightning as L
from omegaconf import OmegaConf

from targetprop.app.described import describe
from targetprop.app.evaluation import evaluate
from targetprop.app.objects import build, plain
from targetprop.utils.errors import UserError, prefixed

if TYPE_CHECKING:
    from targetprop.app.datamodule import HeldDataModule
    from targetprop.app.saved.load import Trained
    from targetprop.app.task import Result

IN_ONE_PROCESS = "targetprop.app.trainer.build_trainer"
"""What trainer evaluates, whichever one trained."""
KEPT = ("gpus", "precision", "matmul_precision", "limit_val_batches", "limit_test_batches")
"""Settings of the run's trainer by which an evaluation gives the run's own numbers."""


def data_of(trained: Trained, data_dir: Path | None = None) -> HeldDataModule:
    """The data of a run, read again.

    Args:
        data_dir: where they are now.

    Raises:
        UserError: they cannot be read, or are no longer what the run was trained on.
    """
    settings = trained.config.datamodule.copy()
    if data_dir is not None:
        if "data_dir" not in settings:
            raise UserError("this run's data are not in a directory of data sets.", key="--data-dir")
        settings.data_dir = str(data_dir)
    datamodule: HeldDataModule = build(settings)
    with prefixed("datamodule"):
        found = describe(datamodule)
        for name, value in trained.data._asdict().items():
            if getattr(found, name) != value:
                raise UserError(f"expected {value!r}, as the run had it, got {getattr(found, name)!r}", key=name)
    return datamodule


def evaluate_again(trained: Trained, datamodule: HeldDataModule) -> dict[str, Result]:
    """Results on validation and test set, where there are any; nothing is written."""
    options = {key: value for key, value in plain(trained.config.trainer).items() if key in KEPT}
    quiet = {"enable_progress_bar": False, "enable_model_summary": False}
    trainer: L.Trainer = build(OmegaConf.create({"_target_": IN_ONE_PROCESS, **options, **quiet}))
    return evaluate(trainer, trained.module, datamodule, None, trained.config.get("views"))
