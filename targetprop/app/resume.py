"""What a run starts from: the checkpoint that it goes on from, or that it evaluates."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
import torch

from targetprop.app.record import KEY, Place, refuse_other_settings
from targetprop.utils.errors import UserError, prefixed
from targetprop.version import __version__

log = logging.getLogger(__name__)

STATE = {"callbacks": Mapping, "loops": Mapping, "optimizer_states": list, "lr_schedulers": list}
"""What a run needs to go on, beside the weights."""


class Start(NamedTuple):
    """What a run goes on from.

    Attributes:
        path: of the checkpoint; None of a run that begins, or only evaluates.
        epochs: that it has behind it.
        places: where it has been (see `record.with_place`).
    """

    path: str | None = None
    epochs: int = 0
    places: Sequence[Place] = ()


def start(config: Mapping[str, Any], module: L.LightningModule) -> Start:
    """What a run with this plain configuration goes on from.

    Of one that is only evaluated the weights are loaded into `module`: the trainer would want all the rest, too.

    Raises:
        UserError: the checkpoint fits neither module nor configuration; the message says how.
    """
    path = config["ckpt_path"]
    if path is None:
        return Start()
    saved = _load(str(path))
    epochs = _check_resume(path, saved, config) if config["train"] else 0
    _check_state(path, saved["state_dict"], module)
    if config["train"]:
        return Start(str(path), epochs, saved[KEY].get("places", ()))
    log.info("Evaluating %s", path)
    if config["trainer"].get("precision") == "64-true":
        module.double()  # as the trainer will: before it, so that no digit is lost
    with prefixed("ckpt_path"):
        module.load_state_dict(saved["state_dict"])
    return Start()


def _load(path: str) -> dict[str, Any]:
    """What the file holds.

    Raises:
        UserError: it is no checkpoint, or none of this edition.
    """
    if not Path(path).is_file():
        raise UserError(f"there is no file {path}.", key="ckpt_path")
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever reading a file that is none of ours raises
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(f"{path} is no checkpoint of targetprop: {reason}", key="ckpt_path") from None
    if not isinstance(saved, dict) or not isinstance(saved.get("state_dict"), dict):
        raise UserError(f"{path} is no checkpoint of targetprop: it has no state_dict.", key="ckpt_path")
    if "pytorch-lightning_version" in saved and _record(saved) is None:
        raise UserError(
            f"{path} was written by the first edition of targetprop or by another program, "
            f"and cannot be read by version {__version__}: train anew.",
            key="ckpt_path",
        )
    return saved


def _record(saved: Mapping[str, Any]) -> Mapping[str, Any] | None:
    record = saved.get(KEY)
    return record if isinstance(record, Mapping) and isinstance(record.get("config"), Mapping) else None


def _check_resume(path: str, saved: Mapping[str, Any], config: Mapping[str, Any]) -> int:
    """The epochs that the checkpoint has behind it."""
    record = _record(saved)
    lacking = [name for name, kind in STATE.items() if not isinstance(saved.get(name), kind)]
    if record is None or lacking:
        message = (
            f"{path} holds weights, but not what a run needs to go on from it ({', '.join(lacking or [KEY])}); "
            "train=false evaluates it."
        )
        raise UserError(message, key="ckpt_path")
    refuse_other_settings(record, config)
    if record.get("version") != __version__:
        message = "%s was written by version %s of targetprop, and this is %s: the rest of the run may differ."
        log.warning(message, path, record.get("version"), __version__)
    return _check_epoch(path, saved["loops"], config["trainer"].get("max_epochs"))


def _check_epoch(path: str, loops: Mapping[str, Any], max_epochs: int | None) -> int:
    """Refuse what was written within an epoch, whose order of images would begin anew, or after the last one."""
    try:
        epochs = loops["fit_loop"]["epoch_progress"]["current"]
        ended = loops["fit_loop"]["epoch_loop.batch_progress"]["is_last_batch"]
        begun, done = int(epochs["ready"]), int(epochs["processed"])
    except (KeyError, TypeError, ValueError):
        raise UserError(f"{path} does not say where in the run it was written.", key="ckpt_path") from None
    if begun != done or not ended:
        message = (
            f"{path} was written within epoch {begun}, whose order of images would begin anew, so that some would come "
            "twice and others never; a run goes on from the end of an epoch only, as last.ckpt is."
        )
        raise UserError(message, key="ckpt_path")
    if max_epochs not in (None, -1) and done > max_epochs:
        message = f"expected {done} or more, the epochs that {path} has behind it, got {max_epochs}"
        raise UserError(message, key="trainer.max_epochs")
    return done


def _check_state(path: str, saved: Mapping[str, Any], module: L.LightningModule) -> None:
    state = module.state_dict()
    if _edition(saved) not in (None, _edition(state)):
        message = f"{path} was written by another edition of targetprop or for another model, and cannot be read."
        raise UserError(message, key="ckpt_path")
    here, there = _shapes(state), _shapes(saved)
    differing = [name for name in {**here, **there} if here.get(name) != there.get(name)]
    if differing:
        message = f"{path} was made with other settings of model or network: {differing[0]} differs."
        raise UserError(message, key="ckpt_path")


def _edition(state: Mapping[str, Any]) -> tuple[str, ...] | None:
    """What is kept beside the weights, by which editions differ; None of a model that keeps nothing."""
    beside = state.get("learner._extra_state")
    return (*sorted(beside), str(beside.get("format"))) if isinstance(beside, dict) else None


def _shapes(state: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(getattr(value, "shape", ())) for name, value in state.items()}
