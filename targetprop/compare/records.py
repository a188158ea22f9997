"""What is kept of a run: one JSON file for each trial, whole or not there.

A record belongs to a trial if the configuration of its command is the trial's: so records of another comparison, of
another machine or of an earlier edition can be taken over (`adopt`).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from targetprop.app.overrides import check_overrides
from targetprop.compare.run_folder import compact, read_run
from targetprop.compare.trial import Trial
from targetprop.utils.errors import UserError
from targetprop.utils.files import write_text

Record = dict[str, Any]
PLACES = (
    "data_dir", "output_dir", "ckpt_path", "overwrite", "logger", "seed", "task_name", "tags", "optimized_metric",
    "print_config",
)  # fmt: skip
"""Keys that decide no result, and the seed, which a record has beside its configuration."""
OF_MACHINE = {
    "trainer": ("threads", "gpus", "enable_progress_bar", "default_root_dir", "log_every_n_steps"),
    "datamodule": ("data_dir", "seed", "num_workers"),
}
DECIDING = ("best", "early_stopping")
"""Callbacks that do more than to look."""


def find(folder: Path, trial: Trial) -> Record | None:
    """The record of a trial, if it has been run.

    Raises:
        UserError: there is one of a run with other settings.
    """
    path = folder / trial.file
    if not path.is_file():
        return None
    record: Record = json.loads(path.read_text())
    if not is_of(record, trial):
        changed = ", ".join(differences(deciding(record["overrides"]), deciding(trial.overrides))) or "seed"
        message = f"it is of a run with other settings ({changed}); move it away, or choose another --folder"
        raise UserError(message, key=str(path))
    return record


def missing(folder: Path, trials: Iterable[Trial]) -> list[Trial]:
    """Those that are still to be run."""
    return [trial for trial in trials if find(folder, trial) is None]


def is_of(record: Record, trial: Trial) -> bool:
    """Whether it is the record of this trial, or of a run with the same configuration."""
    if record["seed"] != trial.seed:
        return False
    return record["overrides"] == trial.overrides or deciding(record["overrides"]) == deciding(trial.overrides)


def deciding(overrides: Sequence[str]) -> dict[str, Any]:
    """All of a configuration that decides the result, but for the seed."""
    return _deciding(tuple(each for each in overrides if not each.startswith("seed=")))


@cache
def _deciding(overrides: tuple[str, ...]) -> dict[str, Any]:
    config = check_overrides([*overrides, "output_dir=."])  # which only a run has
    plain = OmegaConf.to_container(config, resolve=True)
    assert isinstance(plain, dict)
    return without_places({str(key): value for key, value in plain.items()})


def without_places(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration, changed in place, without what decides no result, and without its seed."""
    for key in PLACES:
        config.pop(key, None)
    for group, keys in OF_MACHINE.items():
        for key in keys:
            config[group].pop(key, None)
    callbacks = config.pop("callbacks", None) or {}
    config["callbacks"] = {name: callbacks.get(name) for name in DECIDING}
    for each in config["callbacks"].values():
        if each is not None:
            each.pop("dirpath", None)  # which is within the run's own directory
    return config


def flat(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of nested mappings by their full keys."""
    if isinstance(value, dict):
        for name, each in value.items():
            yield from flat(each, f"{key}.{name}" if key else str(name))
    else:
        yield key, value


def differences(first: dict[str, Any], second: dict[str, Any]) -> list[str]:
    """What differs in two nested mappings: "key: this against that"."""
    one, other = dict(flat(first)), dict(flat(second))
    keys = [key for key in {**one, **other} if one.get(key, _Nothing) != other.get(key, _Nothing)]
    return [f"{key}: {one.get(key, _Nothing)} against {other.get(key, _Nothing)}" for key in keys]


class _Missing:
    def __repr__(self) -> str:
        return "nothing"


_Nothing = _Missing()


def measured(output: Path) -> Record:
    """Scores, curves, angles, configuration and cost of a run that ended; validation is that of the last epoch."""
    run = read_run(output)
    if run.metrics is None:
        raise UserError("expected csv/metrics.csv, which logger=csv writes", key=str(output))
    validation = run.curve
    if not validation:
        raise UserError("there is no validation to choose rates by; set datamodule.val_fraction=0.1", key=str(output))
    kept = compact(run)
    return {
        **kept,
        "validation": round(validation[-1], 6),
        "angles": run.metrics.angles.by_epoch(),
        "cost": run.cost,
        "config": {key: value for key, value in run.config.items() if key not in ("data_dir", "output_dir")},
    }


def keep(folder: Path, trial: Trial, record: Record) -> None:
    """Write the record of a trial: all of it, or none."""
    path = folder / trial.file
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(record, indent=1) + "\n")


def adopt(source: Path, folder: Path, trials: Sequence[Trial]) -> int:
    """Take over the records below `source` that are of these trials, but for those that are there; returns how many."""
    by_seed: dict[int, list[Trial]] = {}
    for trial in trials:
        if not (folder / trial.file).is_file():
            by_seed.setdefault(trial.seed, []).append(trial)
    taken = 0
    for path in sorted(source.rglob("*.json")):
        record = json.loads(path.read_text())
        if not isinstance(record, dict) or not {"overrides", "seed", "diverged"} <= set(record):
            continue
        for trial in by_seed.get(record["seed"], []):
            if is_of(record, trial):
                (folder / trial.file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, folder / trial.file)
                taken += 1
    return taken
