"""The loop of a search: ask for settings, run them, tell what they gave."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from hydra.core.utils import JobReturn
from optuna.trial import TrialState

from targetprop.app.lock import owned
from targetprop.app.search.results import show
from targetprop.app.search.space import Space, override_of, space_of
from targetprop.app.search.study import PRUNED, ended, open_study, refuse_other_direction, try_again
from targetprop.app.sweep import FAILED
from targetprop.utils.errors import UserError, prefixed, require, require_whole

log = logging.getLogger(__name__)
Launch = Callable[..., Sequence[JobReturn]]
"""Runs jobs with these overrides, numbered from `initial_job_idx` on: what a launcher of Hydra does."""


@dataclass(frozen=True)
class Settings:
    """Of a search.

    Attributes:
        n_trials: how many, those of earlier commands included.
        n_jobs: how many are chosen at a time.
        seed: of Optuna's choices.
        storage: where the study is; None is a file in the sweep's directory.
        study_name: of the study.
    """

    n_trials: int
    n_jobs: int
    seed: int
    storage: str | None
    study_name: str

    def __post_init__(self) -> None:
        require_whole("n_trials", self.n_trials, least=1)
        require_whole("n_jobs", self.n_jobs, least=1)
        require_whole("seed", self.seed, least=0)
        require(self.storage is None or isinstance(self.storage, str), "storage", "a URL or null", self.storage)
        require(bool(self.study_name), "study_name", "a name", self.study_name)


def search(
    arguments: Sequence[str],
    params: Mapping[str, Any],
    settings: Settings,
    sweep_dir: str,
    launch: Launch,
    *,
    minimize: bool = False,
) -> float:
    """Try settings until there are as many trials as asked for; returns the best value.

    Args:
        arguments: overrides of every trial, sweeps among them.
        params: sweeps, by key.
        sweep_dir: the directory of the jobs, one for each trial, by its number.
        minimize: whether less of what jobs return is better.

    Raises:
        UserError: the space or the study cannot be used, or no trial has a result.
    """
    folder = Path(sweep_dir)
    with prefixed("hydra.sweeper"):
        study = open_study(folder, settings.study_name, settings.storage, settings.seed, minimize=minimize)
        refuse_other_direction(study, minimize=minimize)
    space = space_of(params, arguments)
    with owned(folder):
        if study.trials:
            again = try_again(study)
            log.info("Going on with %d trials of %s%s.", len(ended(study)), folder, f", {again} again" if again else "")
        while (left := settings.n_trials - len(ended(study))) > 0:
            _try(study, space, min(left, settings.n_jobs), folder, launch)
            show(study, space, folder)
    return show(study, space, folder, told=True)


def _try(study: optuna.Study, space: Space, count: int, folder: Path, launch: Launch) -> None:
    """So many trials, each with a job of its own number."""
    trials = [study.ask(space.varied) for _ in range(count)]
    batch = [[*space.fixed, *(override_of(*pair) for pair in each.params.items())] for each in trials]
    first = trials[0].number
    if [each.number for each in trials] != list(range(first, first + count)):
        raise UserError("another search is at work on this study: give each its own.", key="hydra.sweeper.study_name")
    for trial, job in zip(trials, launch(batch, initial_job_idx=first), strict=True):
        _tell(study, trial, job, folder / str(trial.number))


def _tell(study: optuna.Study, trial: optuna.Trial, job: JobReturn, folder: Path) -> None:
    """What a job gave: a value, an early end (also by divergence, which is worse than any value), or nothing."""
    value = job.return_value
    if (folder / FAILED).is_file() or value is None:
        study.tell(trial, state=TrialState.FAIL)
    elif not math.isfinite(value) or study.trials[trial.number].user_attrs.get(PRUNED):
        study.tell(trial, state=TrialState.PRUNED)
    else:
        study.tell(trial, value)
