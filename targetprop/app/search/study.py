"""The study of a search: what has been tried, in a file that a later command, or another process, goes on with."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from targetprop.utils.errors import UserError

FILE = "study.log"
"""In the sweep's directory, where no other place is named."""
PRUNED = "pruned"
"""Note of a trial that a run was ended early as."""
AGAIN = "tried again as another trial, as it was interrupted"
"""Note of a trial that an earlier command left behind."""
UNPRUNED = 5
"""Trials that are never ended early, for the others to be compared with."""


def open_study(folder: Path, name: str, storage: str | None, seed: int = 0, *, minimize: bool = False) -> optuna.Study:
    """The study of the search in a folder, which is begun unless it is there.

    Args:
        storage: another place for it, a URL as Optuna takes it.
        seed: of its choices.
        minimize: whether less is better, of a study that is begun; one that is there says so itself.

    Raises:
        UserError: it cannot be opened.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with _quiet():
            found = _storage(folder, storage)
            direction = StudyDirection.MINIMIZE if minimize else StudyDirection.MAXIMIZE
            study = optuna.create_study(
                storage=found, study_name=name, direction=direction, load_if_exists=True, pruner=pruner()
            )
            # Another command draws other numbers, where the same seed would try the same again.
            study.sampler = optuna.samplers.TPESampler(seed=seed + len(study.trials))
            return study
    except Exception as error:  # whatever a storage raises
        where = storage or folder / FILE
        raise UserError(f"{where} cannot be used: {' '.join(str(error).split())[:200]}", key="storage") from error


def minimizes(study: optuna.Study) -> bool:
    """Whether less is better."""
    return study.direction == StudyDirection.MINIMIZE


def refuse_other_direction(study: optuna.Study, *, minimize: bool) -> None:
    """Refuse to go on with a study of another metric.

    Raises:
        UserError: it was begun for one of which the contrary is better.
    """
    if minimizes(study) != minimize:
        less, more = ("less", "more") if minimize else ("more", "less")
        message = (
            f"of what is searched by {less} is better, and this study was begun where {more} is; give it another name"
        )
        raise UserError(message, key="study_name")


def pruner() -> optuna.pruners.BasePruner:
    """Ends what is worse, at its best so far, than the median of the others at the same epoch."""
    return optuna.pruners.MedianPruner(n_startup_trials=UNPRUNED)


def ended(study: optuna.Study) -> list[FrozenTrial]:
    """What has been tried to its end, with a result or without."""
    return [each for each in study.trials if each.state.is_finished() and AGAIN not in each.user_attrs]


def try_again(study: optuna.Study) -> int:
    """Put what an interrupted command left behind at the head of what is to be tried; returns how many trials."""
    left = [each for each in study.trials if each.state == TrialState.RUNNING]
    for each in left:
        study.enqueue_trial(each.params)
        optuna.trial.Trial(study, each._trial_id).set_user_attr(AGAIN, True)
        study.tell(each.number, state=TrialState.FAIL)
    return len(left)


def _storage(folder: Path, url: str | None) -> BaseStorage | str:
    if url is not None:
        return url
    folder.mkdir(parents=True, exist_ok=True)
    return JournalStorage(JournalFileBackend(str(folder / FILE)))


@contextmanager
def _quiet() -> Iterator[None]:
    """Optuna warns of what it calls experimental."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        yield
