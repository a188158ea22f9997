"""Checkpoints: how they are written, and which one is evaluated at the end of a run."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import lightning as L
from lightning.fabric.plugins import TorchCheckpointIO

from targetprop.app.callbacks.checkpoint import BestCheckpoint
from targetprop.app.callbacks.find import find_callback
from targetprop.utils.files import whole_file

log = logging.getLogger(__name__)


class WholeFiles(TorchCheckpointIO):
    """Replaces a checkpoint by the next one in one move.

    Lightning copies it from the directory of temporary files, which may lie on another disk: a process that is ended
    meanwhile, as the others are if one of several dies, would leave half a file in place of the last good one.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write beside the file, then take its place."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with whole_file(Path(path)) as partial:
            super().save_checkpoint(checkpoint, partial, storage_options)


def best(trainer: L.Trainer) -> str | None:
    """The checkpoint that was best in validation, if there is one."""
    kept = find_callback(trainer, BestCheckpoint)
    if kept is None or not kept.best_model_path:
        return None
    if Path(kept.best_model_path).is_file():
        return kept.best_model_path
    log.warning("The best checkpoint %s is gone: the last weights are evaluated.", kept.best_model_path)
    return None
