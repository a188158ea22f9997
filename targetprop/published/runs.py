"""Tables and curves of runs with published settings: `reproduce=NAME` on several seeds, in processes of their own.

Each run is kept as soon as it has ended, one that was under way goes on from its last epoch.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

import torch
from matplotlib.figure import Figure

from targetprop.app.machine import machine
from targetprop.compare.processes import Running, run_all
from targetprop.compare.progress import telling
from targetprop.compare.records import Record, find, keep, missing
from targetprop.compare.trial import Trial
from targetprop.published.drawing import accuracies, legend, lines, panels
from targetprop.published.experiment import Means, Row, Rows
from targetprop.published.numbers import Published
from targetprop.utils.errors import UserError

MEULEMANS = ("backprop", "dfa", "dtp", "drl", "ddtp_linear", "ddtp_rhl")
"""Behind DATA_mlp_meulemans_ in the names of settings."""
DATA = ("mnist", "fashion_mnist", "cifar10")
QUICK = (
    "datamodule=digits",
    "datamodule.batch_size=64",
    "datamodule.mean=[0.305]",
    "datamodule.std=[0.376]",
    "network.hparams.hidden=[8,8,8]",
    "trainer.max_epochs=1",
)
"""Settings over all others; the callbacks that measure do so every few steps."""
ANGLES = {"angle": "backprop", "gnt_angle": "Gauss-Newton targets"}


def meulemans(data: tuple[str, ...]) -> dict[tuple[str, str], tuple[str, ...]]:
    """The runs of their table on these data sets."""
    return {(each, rule): (f"reproduce={each}_mlp_meulemans_{rule}",) for each in data for rule in MEULEMANS}


def shibuya() -> dict[tuple[str, str], tuple[str, ...]]:
    """FW-DTP and DTP with their defaults."""
    rules = ("fw_dtp", "shibuya_dtp")
    return {(each, rule): (f"reproduce={each}_mlp_{rule}",) for each in DATA for rule in rules}


@dataclass(frozen=True)
class RunTable:
    """Test accuracies of runs, beside published ones where these could be read.

    Attributes:
        runs: by data set and rule, the overrides of one.
        seeds: of each.
        measured: steps between two looks at the angles of updates to backprop's and to those of Gauss-Newton targets;
            None takes none, and draws accuracies.
    """

    title: str
    paper: str
    runs: Mapping[tuple[str, str], tuple[str, ...]]
    seeds: tuple[int, ...] = (1, 2, 3)
    published: Published = field(default_factory=dict)
    measured: int | None = None

    def rows(self, means: Means) -> Rows:
        """A row for each run; of angles one for each run, epoch and block."""
        trials = self._trials(means)
        lacking = missing(means.folder / "records", trials)
        failed = list[str]()
        facts = machine(torch.device("cpu"))
        with telling(means.console, "runs", len(lacking)) as tell:
            seconds = list[float]()
            under_way = means.folder / "under_way"
            for run in run_all(lacking, under_way, means.jobs, means.threads, means.data, facts):
                try:
                    record = self._record(run)
                except UserError as error:
                    failed.append(f"{run.trial}: {error}")
                    tell(f"{run.trial} failed: {error}", 0.0)
                    continue
                keep(means.folder / "records", run.trial, record)
                run.forget()
                seconds.append(float(record["wall_seconds"]))
                left = fmean(seconds) * (len(lacking) - len(seconds)) / means.jobs
                tell(f"{run.trial.contest} {run.trial.rule}, seed {run.trial.seed}: {_said(record)}", left)
        if failed:
            raise UserError(f"{len(failed)} runs failed, the same command makes them again; the first is {failed[0]}")
        records = {trial: find(means.folder / "records", trial) for trial in trials}
        return [row for trial, record in records.items() if record for row in self._rows(trial, record)]

    def _trials(self, means: Means) -> list[Trial]:
        seeds = means.seeds or (self.seeds[:1] if means.quick else self.seeds)
        every = 10 if means.quick else self.measured
        look = () if self.measured is None else (
            "callbacks=measures",
            "callbacks.measures.which=[gauss_newton_targets]",
            f"callbacks.measures.every_n_steps={every}",
            f"callbacks.alignment.every_n_steps={every}",
        )  # fmt: skip
        small = QUICK if means.quick else ()
        return [
            Trial("fresh", data, rule, 0.0, seed, (*overrides, *look, *small))
            for seed in seeds
            for (data, rule), overrides in self.runs.items()
        ]

    def _record(self, run: Running) -> Record:
        record = run.result()
        if self.measured is not None and not record["diverged"]:
            record["measured"] = angles_by_epoch(run.output / "csv" / "metrics.csv")
        return record

    def _rows(self, trial: Trial, record: Record) -> Rows:
        first: Row = {"data": trial.contest, "rule": trial.rule, "seed": trial.seed}
        if self.measured is not None:
            return [first | row for row in record.get("measured", [])]
        test = None if record["diverged"] else 100 * record["test"]
        validation = None if record["diverged"] else 100 * record["validation"]
        published = self.published.get((trial.contest, trial.rule))
        return [first | {"test": test, "validation": validation, "published": published}]

    def draw(self, rows: Rows) -> Figure:
        """Accuracies as bars, or angles of the first hidden block against epochs."""
        if self.measured is None:
            return accuracies(rows, "data")
        titles = [f"block 1: angle to {against}" for against in ANGLES.values()]
        figure, axes = panels(len(ANGLES), titles)
        for angle, each in zip(ANGLES, axes, strict=True):
            shown = [row for row in rows if row["block"] == 1 and row["against"] == ANGLES[angle]]
            if shown:
                lines(each, shown, "degrees", "epoch", "rule", ("epoch", "degrees"))
        legend(figure, axes[0])
        return figure


def angles_by_epoch(path: Path) -> Rows:
    """Mean angles of each epoch of a run, for each block."""
    with path.open() as file:
        table = list(csv.DictReader(file))
    ends = sorted({int(row["step"]) for row in table if row.get("train/loss")})  # last step of each epoch
    found: dict[tuple[int, int, str], list[float]] = {}
    for row in table:
        epoch = 1 + sum(int(row["step"]) > end for end in ends)
        for name, value in row.items():
            quantity, _, block = name.partition("/block")
            if value and quantity in ANGLES and block.isdigit():
                found.setdefault((epoch, int(block), quantity), []).append(float(value))
    return [
        {"epoch": epoch, "block": block, "against": ANGLES[quantity], "degrees": fmean(values)}
        for (epoch, block, quantity), values in found.items()
    ]


def _said(record: Record) -> str:
    return "diverged" if record["diverged"] else f"test {100 * record['test']:.2f} %"
