"""What a training run leaves in its directory."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

from omegaconf import OmegaConf

from targetprop.app.score import Score
from targetprop.app.task import score_of
from targetprop.utils.errors import UserError

EPOCH_METRICS = ("train/loss", "train/accuracy", "val/loss", "val/accuracy", "val/accuracy_as_printed", "val/r2",
                 "train/bits", "val/bits", "val/perplexity")  # fmt: skip


@dataclass(frozen=True)
class Angles:
    """Between update and backprop gradient, degrees.

    Attributes:
        blocks: names of the blocks.
        epochs: of every measurement, counted from 1.
        degrees: of every measurement, one for each block.
    """

    blocks: list[str]
    epochs: list[int]
    degrees: list[list[float]]

    def by_epoch(self) -> dict[int, dict[str, float]]:
        """The means over the measurements of each epoch."""
        means = {}
        for epoch in dict.fromkeys(self.epochs):
            of_epoch = [each for number, each in zip(self.epochs, self.degrees, strict=True) if number == epoch]
            means[epoch] = dict(zip(self.blocks, map(fmean, zip(*of_epoch, strict=True)), strict=True))
        return means

    def at_the_end(self) -> list[float]:
        """Of each block, the mean over the last quarter of the measurements."""
        return [fmean(each) for each in zip(*self.degrees[-max(1, len(self.degrees) // 4) :], strict=True)]


@dataclass(frozen=True)
class Metrics:
    """What stands in csv/metrics.csv of a run.

    Attributes:
        epochs: for those of `EPOCH_METRICS` that there are, the values of all epochs.
        steps: number of steps made until each validation.
        angles: to backprop.
    """

    epochs: dict[str, list[float]]
    steps: list[int]
    angles: Angles


@dataclass(frozen=True)
class Run:
    """What a run directory says.

    Attributes:
        validation, test: what results.json says of these sets, such as accuracy and per_class; None if not evaluated.
        epoch_seconds: of training.
        metrics: None where the run wrote none.
        config: of config.yaml, without interpolations.
        cost: what it took, as results.json says it; empty where it does not.
        overrides: of its command line, as results.json says it; None where it does not.
    """

    seed: int
    validation: dict[str, Any] | None
    test: dict[str, Any] | None
    epoch_seconds: list[float]
    metrics: Metrics | None
    config: dict[str, Any] = field(default_factory=dict)
    cost: dict[str, Any] = field(default_factory=dict)
    overrides: list[str] | None = None

    @cached_property
    def score(self) -> Score:
        """By which it is compared."""
        return score_of(self.config)

    def of(self, part: Mapping[str, Any] | None) -> float | None:
        """The score on a part of the data, if it was evaluated."""
        return None if part is None else part[self.score.kept]

    @property
    def curve(self) -> list[float]:
        """The score after each epoch; empty where it was not written."""
        return self.metrics.epochs.get(f"val/{self.score.name}", []) if self.metrics else []


def read_run(folder: Path) -> Run:
    """The run in this directory.

    Raises:
        UserError: there is none that has ended.
    """
    for name in ("results.json", "config.yaml"):
        if not (folder / name).is_file():
            raise UserError(f"expected the directory of a run that has ended, but there is no {name}", key=str(folder))
    results = json.loads((folder / "results.json").read_text())
    seconds, metrics = results["epoch_seconds"], folder / "csv" / "metrics.csv"
    config = OmegaConf.to_container(OmegaConf.load(folder / "config.yaml"))
    assert isinstance(config, dict)
    return Run(
        int(config["seed"]),
        results.get("validation"),
        results.get("test"),
        seconds,
        read_metrics(metrics, len(seconds)) if metrics.is_file() else None,
        {str(key): value for key, value in config.items()},
        results.get("cost") or {},
        results.get("overrides"),
    )


def read_metrics(path: Path, epochs: int | None = None) -> Metrics:
    """The metrics in a file; of validation those of so many epochs, behind which stands the final evaluation."""
    with path.open() as file:
        rows = list(csv.DictReader(file))
    columns = {name: [float(row[name]) for row in rows if row.get(name)][:epochs] for name in EPOCH_METRICS}
    validated = [row for row in rows if row.get("val/accuracy") or row.get("val/loss")]
    steps = [int(row["step"]) + 1 for row in validated][:epochs]
    return Metrics({name: values for name, values in columns.items() if values}, steps, read_angles(rows))


def read_angles(rows: Sequence[Mapping[str, str]]) -> Angles:
    """The angles among the rows of a file of metrics."""
    named = [name for name in (rows[0] if rows else ()) if name.startswith("angle/block")]
    named.sort(key=lambda name: int(name.removeprefix("angle/block")))
    ends = sorted({int(row["step"]) for row in rows if row.get("train/loss")})  # last step of each epoch
    measured = [row for row in rows if named and all(row[name] for name in named)]
    return Angles(
        [name.removeprefix("angle/") for name in named],
        [1 + sum(int(row["step"]) > end for end in ends) for row in measured],
        [[float(row[name]) for name in named] for row in measured],
    )


def compact(run: Run) -> dict[str, Any]:
    """What a record keeps of a run."""
    epochs = run.metrics.epochs if run.metrics else {}
    return {
        "seed": run.seed,
        "test": run.of(run.test),
        "test_per_class": run.test and run.test.get("per_class"),
        "validation": run.of(run.validation),
        "epoch_seconds": [round(seconds, 2) for seconds in run.epoch_seconds],
        "epochs": {name: [round(value, 5) for value in values] for name, values in epochs.items()},
    }
