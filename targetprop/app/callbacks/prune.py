"""Ends a trial of a search early, where it is worse than the others were at the same epoch."""

from __future__ import annotations

import logging
from pathlib import Path

import lightning as L

from targetprop.utils.errors import require, require_whole

log = logging.getLogger(__name__)


class Prune(L.Callback):
    """Tells the study of a search the validation of every epoch, and ends training if the study says so.

    Args:
        monitor: the metric of validation.
        mode: whether less ("min") or more ("max") of it is better.
        folder: the sweep's directory.
        trial: number of the trial.
        study_name: of the study.
        storage: where it is, if not in the folder.
    """

    def __init__(
        self, monitor: str, mode: str, folder: str | Path, trial: int, study_name: str, storage: str | None = None
    ) -> None:
        require(mode in ("min", "max"), "mode", "min or max", mode)
        require_whole("trial", trial, least=0)
        self.monitor = monitor
        self.sign = 1.0 if mode == "max" else -1.0
        self.folder = Path(folder)
        self.number = trial
        self.study_name = study_name
        self.storage = storage

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Report, and ask whether to go on; of several processes the first one does."""
        if trainer.state.fn != "fit" or trainer.sanity_checking or self.monitor not in trainer.callback_metrics:
            return
        value, epoch = float(trainer.callback_metrics[self.monitor]), trainer.current_epoch
        says_end = trainer.is_global_zero and self._says_end(value, epoch)
        if trainer.strategy.reduce_boolean_decision(says_end, all=False):
            log.info("This trial ends with epoch %d: the others were better by then.", epoch + 1)
            trainer.should_stop = True

    def _says_end(self, value: float, epoch: int) -> bool:
        """Whether the study ends the trial, which it is told."""
        import optuna

        from targetprop.app.search.study import PRUNED, minimizes, open_study  # here, because Optuna is an extra

        study = open_study(self.folder, self.study_name, self.storage)
        trial = optuna.trial.Trial(study, study.trials[self.number]._trial_id)
        trial.report(-self.sign * value if minimizes(study) else self.sign * value, epoch)
        if not trial.should_prune():
            return False
        trial.set_user_attr(PRUNED, True)
        return True
