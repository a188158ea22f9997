"""Checkpoints: how they are written, whether one fits the module that goes on from it, and which one is evaluated."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins import TorchCheckpointIO

from targetprop.app.callbacks.checkpoint import BestCheckpoint
from targetprop.app.callbacks.find import find_callback
from targetprop.utils.errors import UserError
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


def fitting(path: str | None, module: L.LightningModule) -> str | None:
    """The path of a checkpoint, which fits the module; None if there is no path.

    Raises:
        UserError: the file is no checkpoint, or one of another module.
    """
    if path is None:
        return None
    if not Path(path).is_file():
        raise UserError(f"there is no file {path}.", key="ckpt_path")
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    except Exception as error:
        raise UserError(f"{path} is no checkpoint of targetprop: {error}", key="ckpt_path") from None
    state = module.state_dict()
    if _edition(saved) not in (None, _edition(state)):
        message = f"{path} was written by another edition of targetprop or for another model, and cannot be read."
        raise UserError(message, key="ckpt_path")
    here, there = _shapes(state), _shapes(saved)
    differing = [name for name in {**here, **there} if here.get(name) != there.get(name)]
    if differing:
        message = f"{path} was made with other settings of model or network: {differing[0]} differs."
        raise UserError(message, key="ckpt_path")
    return path


def best(trainer: L.Trainer) -> str | None:
    """The checkpoint that was best in validation, if there is one."""
    kept = find_callback(trainer, BestCheckpoint)
    if kept is None or not kept.best_model_path:
        return None
    if Path(kept.best_model_path).is_file():
        return kept.best_model_path
    log.warning("The best checkpoint %s is gone: the last weights are evaluated.", kept.best_model_path)
    return None


def _edition(state: dict[str, Any]) -> tuple[str, ...] | None:
    """What is kept beside the weights, by which editions differ; None of a model that keeps nothing."""
    beside = state.get("learner._extra_state")
    return (*sorted(beside), str(beside.get("format"))) if isinstance(beside, dict) else None


def _shapes(state: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(getattr(value, "shape", ())) for name, value in state.items()}
