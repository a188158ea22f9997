"""Runs of `python main.py`, several at a time, each kept as one JSON record once it has ended."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Any, Literal

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from protocol.plan import Plan
from runs import compact, read_run
from targetprop import __version__
from targetprop.utils.errors import UserError
from targetprop.utils.files import write_text
from timing import machine

ROOT = Path(__file__).parents[2]
ALWAYS = ("logger=csv", "callbacks.best=null", "callbacks.last=null")
"""Of every run: its metrics in a file, and no checkpoint, so that the last weights are evaluated."""
Record = dict[str, Any]
Phase = Literal["search", "fresh"]


@dataclass(frozen=True)
class Trial:
    """One run.

    Attributes:
        rate: effective one.
        settings: overrides of this method at this rate.
    """

    phase: Phase
    method: str
    rate: float
    seed: int
    settings: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.method}, rate {self.rate:g}, seed {self.seed}"

    @property
    def overrides(self) -> list[str]:
        """All that decides its result; only fresh runs see the test set."""
        return [*self.settings, *ALWAYS, f"test={str(self.phase == 'fresh').lower()}", f"seed={self.seed}"]

    @property
    def file(self) -> str:
        """Of its record, below the folder of records."""
        return f"{self.phase}/{self.method}_rate_{self.rate:g}_seed_{self.seed}.json"


def find(folder: Path, trial: Trial) -> Record | None:
    """The record of a trial, if it has been run.

    Raises:
        UserError: there is one of a run with other settings.
    """
    path = folder / trial.file
    if not path.is_file():
        return None
    record: Record = json.loads(path.read_text())
    if record["overrides"] != trial.overrides:
        raise UserError(f"{path} is of a run with other settings; move it away, or choose another folder: --records.")
    return record


def missing(folder: Path, trials: Sequence[Trial]) -> list[Trial]:
    """Those that are still to be run."""
    return [trial for trial in trials if find(folder, trial) is None]


def expected_seconds(plan: Plan, folder: Path) -> dict[str, float]:
    """Of a run of each method: the mean of those that there are and did not diverge, or what the plan says."""
    expected = {name: 60 * method.minutes for name, method in plan.methods.items()}
    records = [json.loads(path.read_text()) for path in sorted(folder.glob("*/*.json"))]
    for name in expected:
        taken = [each["wall_seconds"] for each in records if each["method"] == name and not each["diverged"]]
        expected[name] = fmean(taken) if taken else expected[name]
    return expected


@dataclass
class Running:
    """A run in a process of its own, which an interrupt from the keyboard does not reach."""

    trial: Trial
    threads: int
    data: Path | None
    commit: str = field(init=False)
    start: float = field(init=False)

    def __post_init__(self) -> None:
        self.commit, self.start = current_commit(), time.perf_counter()
        self._scratch = TemporaryDirectory()
        self._log = Path(self._scratch.name, "log")
        places = [f"hydra.run.dir={self.output}", *([] if self.data is None else [f"data_dir={self.data.resolve()}"])]
        overrides = [*self.trial.overrides, f"trainer.threads={self.threads}", *places]
        command = [sys.executable, str(ROOT / "main.py"), *overrides]
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )

    @property
    def output(self) -> Path:
        return Path(self._scratch.name, "run")

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None

    def result(self) -> Record:
        """What is kept of it.

        Raises:
            UserError: it failed otherwise than by diverging; with the end of what it said.
        """
        if not self._process.returncode:
            return {**self._facts(), "diverged": False, **measured(self.output)}
        said = " ".join(self._log.read_text().split())
        if "Training diverged" not in said:
            raise UserError(f"{self.trial} failed: {said[-500:]}")
        return {**self._facts(), "diverged": True}

    def _facts(self) -> Record:
        command = ["python", "main.py", *self.trial.overrides, f"trainer.threads={self.threads}"]
        device = "cpu" if "trainer.gpus=0" in self.trial.overrides or not torch.cuda.is_available() else "cuda"
        return {
            "method": self.trial.method,
            "rate": self.trial.rate,
            "seed": self.trial.seed,
            "overrides": self.trial.overrides,
            "command": shlex.join(command),
            "commit": self.commit,
            "targetprop": __version__,
            "machine": {**machine(torch.device(device)), "threads": self.threads},
            "wall_seconds": round(time.perf_counter() - self.start, 1),
        }

    def close(self) -> None:
        """End it if it still runs, and leave nothing behind."""
        if not self.ended:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._scratch.cleanup()


def measured(output: Path) -> Record:
    """Accuracies and angles of a run that ended; validation is that of the last epoch."""
    run = read_run(output)
    assert run.metrics is not None
    kept = compact(run)
    return {
        **kept,
        "validation": round(run.metrics.epochs["val/accuracy"][-1], 6),
        "angles": run.metrics.angles.by_epoch(),
    }


def current_commit() -> str:
    """Of this repository, with "-dirty" where files differ from it."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def run_all(trials: Sequence[Trial], jobs: int, threads: int, data: Path | None) -> Iterator[Running]:
    """Run them, so many at a time, and give every one when it has ended; whatever ends this ends those in progress."""
    waiting, running = list(trials), list[Running]()
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                running.append(Running(waiting.pop(0), threads, data))
            for each in [each for each in running if each.ended]:
                yield each
                running.remove(each)
                each.close()
            time.sleep(0.1)
    finally:
        for each in running:
            each.close()


def keep_all(plan: Plan, folder: Path, trials: Sequence[Trial], jobs: int, threads: int, data: Path | None) -> None:
    """Run them and keep every record in the folder as soon as it is there, with a bar that tells how long it takes.

    Raises:
        UserError: some runs failed otherwise than by diverging; all others have been made.
    """
    left, failed = list(trials), list[str]()
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=Console(highlight=False)) as progress:
        task = progress.add_task(_left(plan, folder, left, jobs), total=len(trials))
        for run in run_all(trials, jobs, threads, data):
            try:
                progress.console.print(f"{run.trial}: {said_of(keep(run, folder))}")
            except UserError as error:
                failed.append(str(error))
                progress.console.print(f"{run.trial}: failed", style="red")
            left.remove(run.trial)
            progress.update(task, advance=1, description=_left(plan, folder, left, jobs))
    if failed:
        raise UserError(f"{len(failed)} of {len(trials)} runs failed. {failed[0]}")


def keep(run: Running, folder: Path) -> Record:
    """Write the record of a run that has ended: all of it, or none."""
    record, path = run.result(), folder / run.trial.file
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(record, indent=1) + "\n")
    return record


def said_of(record: Record) -> str:
    """A record in a few words."""
    if record["diverged"]:
        return "diverged"
    parts = [f"{part} {100 * record[part]:.2f} %" for part in ("validation", "test") if record[part] is not None]
    return f"{', '.join(parts)}, {record['wall_seconds']:.0f} s"


def seconds_left(plan: Plan, folder: Path, trials: Sequence[Trial], jobs: int) -> float:
    """How long these runs are expected to take, so many at a time."""
    expected = expected_seconds(plan, folder)
    return sum(expected[trial.method] for trial in trials) / jobs


def _left(plan: Plan, folder: Path, trials: Sequence[Trial], jobs: int) -> str:
    return f"about {duration(seconds_left(plan, folder, trials, jobs))} left"


def duration(seconds: float) -> str:
    """In hours and minutes."""
    hours, minutes = divmod(round(max(0.0, seconds) / 60), 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min"
