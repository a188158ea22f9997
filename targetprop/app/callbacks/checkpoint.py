"""The checkpoints of a run: the last one, the one before it, and the one that is best in validation."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint

from targetprop.app.checkpoint.files import read
from targetprop.app.checkpoint.names import LAST, PREVIOUS
from targetprop.app.checkpoint.position import position_of
from targetprop.app.unwritten import or_told
from targetprop.utils.errors import UserError, is_number, require, require_whole
from targetprop.utils.files import to_disk, whole_file

log = logging.getLogger(__name__)


class LastCheckpoint(Checkpoint):
    """Keeps `dirpath`/last.ckpt after every epoch, and previous.ckpt, which was the last one before it.

    Args:
        dirpath: where they are kept.
        every_n_steps: also after every so many steps; None for none.
        every_n_minutes: also when the last one is so many minutes old; None for never.

    A checkpoint that cannot be written is told, and the run goes on; the last good one stays.
    """

    def __init__(
        self, dirpath: str | Path, every_n_steps: int | None = None, every_n_minutes: float | None = None
    ) -> None:
        if every_n_steps is not None:
            require_whole("every_n_steps", every_n_steps, least=1)
        if every_n_minutes is not None:
            fits = is_number(every_n_minutes) and every_n_minutes > 0
            require(fits, "every_n_minutes", "a number above 0, or null", every_n_minutes)
        self.folder = Path(dirpath)
        self.every_n_steps = every_n_steps
        self.every_n_minutes = every_n_minutes
        self._saved_at = time.monotonic()
        self._saved_step = 0
        self._last_is_good = True

    @property
    def path(self) -> Path | None:
        """The last checkpoint, if there is one."""
        return next((path for name in (LAST, PREVIOUS) if (path := self.folder / name).is_file()), None)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Count from here; a last checkpoint that the run did not go on from, but from the one before it, is bad."""
        self._saved_at, self._saved_step = time.monotonic(), trainer.global_step
        went_on_from = None if trainer.ckpt_path is None else Path(trainer.ckpt_path).resolve()
        self._last_is_good = went_on_from != (self.folder / PREVIOUS).resolve()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save if it is time, between two batches; the end of an epoch comes by itself."""
        if self._is_time(trainer) and between_batches(trainer):
            self.save(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save."""
        self.save(trainer)

    def save(self, trainer: L.Trainer) -> None:
        """Write the last checkpoint; all processes of a run call this."""
        self._saved_at, self._saved_step = time.monotonic(), trainer.global_step
        new = self.folder / f"new-{LAST}"
        trainer.save_checkpoint(new)
        with or_told(self.folder / LAST):
            if trainer.is_global_zero and new.is_file():
                if (last := self.folder / LAST).is_file() and self._last_is_good:
                    os.replace(last, self.folder / PREVIOUS)
                os.replace(new, self.folder / LAST)
                self._last_is_good = True
                to_disk(self.folder)

    def _is_time(self, trainer: L.Trainer) -> bool:
        steps = trainer.global_step - self._saved_step
        if self.every_n_steps is not None and steps > 0 and trainer.global_step % self.every_n_steps == 0:
            return True
        if self.every_n_minutes is None or steps == 0:
            return False
        old = time.monotonic() - self._saved_at > 60 * self.every_n_minutes
        return trainer.strategy.reduce_boolean_decision(old)  # the same for all processes


def between_batches(trainer: L.Trainer) -> bool:
    """Whether a checkpoint after this batch holds all of it: no gradients wait, and no validation or epoch's end."""
    position = position_of(trainer)
    ends = trainer.fit_loop.epoch_loop._num_ready_batches_reached()
    return not (position.accumulated or position.validation_due or ends)


class BestCheckpoint(ModelCheckpoint):
    """Keeps the best checkpoint so far, through resumes too: a run that goes on elsewhere takes a copy along.

    A checkpoint names files; none is looked at but those beside it.
    """

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Take over the best so far."""
        state = checkpoint["callbacks"].get(self.state_key)
        if not state or trainer.ckpt_path is None or trainer.state.fn != "fit":
            return
        source, own = Path(trainer.ckpt_path).parent, Path(str(self.dirpath))
        files = {old: source / Path(old).name for old in _named(state)}
        kept = {old: _taken(path, own, trainer) for old, path in files.items() if _is_past(path, checkpoint)}
        best = kept.get(state["best_model_path"], "")
        if state["best_model_path"] and not best:
            log.warning(
                "The best checkpoint so far is no longer beside %s: the best from here on counts.", trainer.ckpt_path
            )
            state.update(best_model_score=None, kth_value=None, kth_best_model_path="", best_k_models={})
        state.update(
            dirpath=str(own),
            best_model_path=best,
            kth_best_model_path=kept.get(state["kth_best_model_path"], ""),
            last_model_path=kept.get(state["last_model_path"], ""),
            best_k_models={kept[old]: score for old, score in state["best_k_models"].items() if old in kept},
        )

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As ever, and with the score of the last epoch, which Lightning leaves out."""
        super().load_state_dict(state_dict)
        self.current_score = state_dict["current_score"]


def _named(state: dict[str, Any]) -> set[str]:
    """The files that the state of a callback names."""
    single = (state[key] for key in ("best_model_path", "kth_best_model_path", "last_model_path"))
    return {each for each in (*single, *state["best_k_models"]) if each}


def _is_past(path: Path, checkpoint: dict[str, Any]) -> bool:
    """Whether a file is a checkpoint of the run up to where it goes on from; a later one would be of another run."""
    try:
        return bool(read(path)["global_step"] <= checkpoint["global_step"])
    except (UserError, KeyError, TypeError):
        return False


def _taken(path: Path, own: Path, trainer: L.Trainer) -> str:
    """Where a checkpoint is that was taken along to the own folder."""
    here = own / path.name
    if here.resolve() != path.resolve() and trainer.is_global_zero:
        with or_told(here):
            own.mkdir(parents=True, exist_ok=True)
            with whole_file(here) as partial:
                partial.write_bytes(path.read_bytes())
    return str(here)
