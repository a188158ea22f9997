"""Results of a checkpoint on the validation and the test set."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import lightning as L
from omegaconf import DictConfig

from targetprop.app.callbacks.checkpoint import BestCheckpoint
from targetprop.app.callbacks.find import find_callback
from targetprop.app.task import Result
from targetprop.data.views import VIEWS
from targetprop.utils.errors import UserError

if TYPE_CHECKING:
    from targetprop.app.datamodule import HeldDataModule
    from targetprop.app.module import TaskModule

log = logging.getLogger(__name__)


def evaluated_checkpoint(config: DictConfig, trainer: L.Trainer) -> str | None:
    """The checkpoint that is evaluated at the end: that of the best validation; None for the weights as they are."""
    kept = find_callback(trainer, BestCheckpoint) if config.train else None
    if kept is None or not kept.best_model_path:
        return None
    if Path(kept.best_model_path).is_file():
        return kept.best_model_path
    log.warning("The best checkpoint %s is gone: the last weights are evaluated.", kept.best_model_path)
    return None


def evaluate(
    trainer: L.Trainer, module: TaskModule, datamodule: HeldDataModule, checkpoint: str | None, views: str | None
) -> dict[str, Result]:
    """Results of a checkpoint, or of the last weights, on validation and test set, where there are any.

    With views there are those of the mean over them as well, as "validation_mirror" beside "validation".
    """
    if views is not None and len(datamodule.shape) != 3:
        raise UserError(f"expected null, since inputs of {datamodule.shape} are no images, got {views!r}", key="views")
    module.views = None if views is None else VIEWS[views]
    if checkpoint:
        log.info("Evaluating %s", checkpoint)
    results = {}
    for part, key, run in (("validation", "val", trainer.validate), ("test", "test", trainer.test)):
        if not (datamodule.val_fraction if key == "val" else datamodule.has_test):
            continue
        module.results.clear()
        run(module, datamodule=datamodule, ckpt_path=checkpoint, weights_only=True, verbose=False)
        for name, place in {part: key, f"{part}_{views}": f"{key}_views"}.items():
            if place in module.results:  # not where the number of batches is limited to 0
                results[name] = module.results[place]
    return results
