"""What a run starts from: the checkpoint that it goes on from, or that it evaluates."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
from torch import Tensor

from targetprop.app.checkpoint.files import record_in
from targetprop.app.checkpoint.find import find, run_of
from targetprop.app.checkpoint.position import Position, saved_position
from targetprop.app.checkpoint.record import KEY, Place
from targetprop.app.checkpoint.settings import Change, changes
from targetprop.utils.errors import UserError, prefixed
from targetprop.version import __version__

log = logging.getLogger(__name__)

KEY_OF_PATH = "ckpt_path"
STATE = {"callbacks": Mapping, "loops": Mapping, "optimizer_states": list, "lr_schedulers": list}
"""What a run needs to go on, beside the weights."""


class Start(NamedTuple):
    """What a run goes on from.

    Attributes:
        path: of the checkpoint; None of a run that begins, or only evaluates.
        position: where in the run it was written.
        places: where the run has been (see `record.with_place`).
        running: what was under way (see `running`).
        changed: settings that are other ones from here on.
    """

    path: Path | None = None
    position: Position = Position(0, 0, 0)
    places: Sequence[Place] = ()
    running: Mapping[str, Any] | None = None
    changed: Sequence[Change] = ()

    @property
    def run(self) -> Path | None:
        """The directory of the run so far."""
        return run_of(self.path) if self.path else None


def start(config: Mapping[str, Any], module: L.LightningModule) -> Start:
    """What a run with this plain configuration goes on from.

    Of one that is only evaluated the weights are loaded into `module`: the trainer would want all the rest, too.

    Raises:
        UserError: the checkpoint fits neither module nor configuration; the message says how.
    """
    if config["ckpt_path"] is None:
        return Start()
    with prefixed("ckpt_path"):
        found = find(str(config["ckpt_path"]), config["output_dir"], train=config["train"])
    if found is None:
        return Start()
    path, saved = found
    if config["train"]:
        went_on = _went_on(path, saved, config)
        check_state(path, saved["state_dict"], module)
        return went_on
    check_state(path, saved["state_dict"], module)
    log.info("Evaluating %s", path)
    try:
        module.load_state_dict(saved["state_dict"])
    except Exception as error:  # whatever a state that may come from anywhere leads to
        raise unusable(path, error) from error
    return Start()


def unusable(path: Path, error: Exception, key: str = KEY_OF_PATH) -> UserError:
    """The error of a checkpoint whose content cannot be taken over, as this error shows.

    Args:
        key: what names the checkpoint.
    """
    kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
    reason = " ".join(f"{kind}{error}".split())[:200]
    return UserError(f"what {path} holds cannot be taken over: {reason}", key=key)


def _went_on(path: Path, saved: Mapping[str, Any], config: Mapping[str, Any]) -> Start:
    """Where a run goes on from a checkpoint.

    Raises:
        UserError: there it cannot, or not with these settings.
    """
    record = record_in(saved)
    lacking = [name for name, kind in STATE.items() if not isinstance(saved.get(name), kind)]
    if record is None or lacking:
        message = (
            f"{path} holds weights, but not what a run needs to go on from it ({', '.join(lacking or [KEY])}); "
            "train=false evaluates it."
        )
        raise UserError(message, key="ckpt_path")
    if record.get("version") != __version__:
        message = "%s was written by version %s of targetprop, and this is %s: the rest of the run may differ."
        log.warning(message, path, record.get("version"), __version__)
    try:
        position = saved_position(saved)
    except UserError as error:
        raise UserError(f"{path}: {error.message}", key="ckpt_path") from None
    changed = changes(record["config"], config, within_epoch=position.batch > 0)
    _check_length(path, position, config["trainer"].get("max_epochs"))
    log.info("Going on from %s: %s.", path, position)
    if changed:
        log.info("From here on: %s", ", ".join(map(str, changed)))
    running = record.get("running")
    return Start(path, position, record.get("places", ()), running if isinstance(running, Mapping) else None, changed)


def _check_length(path: Path, position: Position, max_epochs: int | None) -> None:
    """Refuse a run that would be shorter than it already is."""
    begun = position.epoch + (position.batch > 0)
    if max_epochs not in (None, -1) and begun > max_epochs:
        message = f"expected {begun} or more, the epochs that {path} has behind it, got {max_epochs}"
        raise UserError(message, key="trainer.max_epochs")


def check_state(path: Path, saved: Mapping[str, Any], module: L.LightningModule, key: str = KEY_OF_PATH) -> None:
    """Refuse a state that was written by another edition, or for another network.

    Args:
        key: what names the checkpoint.

    Raises:
        UserError: says what differs.
    """
    state = module.state_dict()
    if _edition(saved) not in (None, _edition(state)):
        message = f"{path} was written by another edition of targetprop or for another model, and cannot be read."
        raise UserError(message, key=key)
    here, there = _shapes(state), _shapes(saved)
    differing = [name for name in {**here, **there} if here.get(name) != there.get(name)]
    if differing:
        message = f"{path} was made with other settings of model or network: {differing[0]} differs."
        raise UserError(message, key=key)


def _edition(state: Mapping[str, Any]) -> tuple[str, ...] | None:
    """What is kept beside the weights, by which editions differ; None of a model that keeps nothing."""
    beside = state.get("learner._extra_state")
    return (*sorted(beside), str(beside.get("format"))) if isinstance(beside, dict) else None


def _shapes(state: Mapping[str, Any]) -> dict[str, tuple[Any, ...]]:
    """Of tensors also whether they hold numbers with fractions, which are not to be cut off."""
    return {
        name: (*value.shape, value.is_floating_point()) if isinstance(value, Tensor) else ()
        for name, value in state.items()
    }
