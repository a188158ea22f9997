"""Trials in processes of their own, several at a time: each is a run as `python main.py` makes it.

Every one has a directory, in which it keeps a checkpoint of each epoch. Whatever ends a comparison ends its runs; the
next one goes on with them from there.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

from targetprop import version
from targetprop.app.workers.orphans import die_with_parent
from targetprop.compare.records import Record, measured
from targetprop.compare.trial import Trial
from targetprop.utils.errors import UserError

PACKAGE = Path(version.__file__).parent
DIVERGED = "Training diverged"
PATIENCE = 20.0
"""Seconds that a run has to write its last checkpoint when it is stopped."""
TOLD = 400
"""Letters of what a run that failed said last."""


@dataclass
class Running:
    """A run under way.

    Args:
        folder: of all runs under way.
        machine: facts of this machine.
    """

    trial: Trial
    folder: Path
    threads: int
    data: Path | None
    machine: Mapping[str, Any]
    start: float = field(init=False)

    def __post_init__(self) -> None:
        self.start = time.perf_counter()
        self.folder.mkdir(parents=True, exist_ok=True)
        here = [f"trainer.threads={self.threads}", "trainer.enable_progress_bar=false", "ckpt_path=auto"]
        places = [f"hydra.run.dir={self.output}", *([] if self.data is None else [f"data_dir={self.data.resolve()}"])]
        with self.log.open("w") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "targetprop", *self.trial.overrides, *here, *places],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # an interrupt from the keyboard is the comparison's to pass on
                preexec_fn=partial(die_with_parent, os.getpid()) if os.name == "posix" else None,
            )

    @property
    def output(self) -> Path:
        return self.folder / self.trial.file.removesuffix(".json").replace("/", "_")

    @property
    def log(self) -> Path:
        return self.output.with_name(f"{self.output.name}.log")

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None

    def result(self) -> Record:
        """What is kept of it.

        Raises:
            UserError: it failed otherwise than by diverging; with the end of what it said.
        """
        said = " ".join(self.log.read_text(errors="replace").split())
        if self._process.returncode == 0:
            return {**self._facts(), "diverged": False, **measured(self.output)}
        if DIVERGED in said:
            return {**self._facts(), "diverged": True}
        start = max(said.rfind("Error: "), 0)
        raise UserError(said[start:][-TOLD:] or f"it ended with code {self._process.returncode} and said nothing")

    def _facts(self) -> Record:
        command = ["python", "main.py", *self.trial.overrides, f"trainer.threads={self.threads}"]
        return {
            "rule": self.trial.rule,
            "contest": self.trial.contest,
            "rate": self.trial.rate,
            "seed": self.trial.seed,
            "overrides": self.trial.overrides,
            "command": shlex.join(command),
            "commit": current_commit(),
            "targetprop": version.__version__,
            "machine": {**self.machine, "threads": self.threads},
            "wall_seconds": round(time.perf_counter() - self.start, 1),
        }

    def forget(self) -> None:
        """Remove what is kept elsewhere by now."""
        shutil.rmtree(self.output, ignore_errors=True)
        self.log.unlink(missing_ok=True)

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Ask it to write a checkpoint and end."""
        if not self.ended:
            os.killpg(self._process.pid, number)

    def close(self) -> None:
        """Wait for its end, and bring it about if that takes too long."""
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.stop(signal.SIGKILL)
            self._process.wait()


@cache
def current_commit() -> str:
    """Of this project's repository, with "-dirty" where files differ from it; "unknown" of an installed package."""
    git = ["git", "-C", str(PACKAGE)]
    look: dict[str, Any] = {"capture_output": True, "text": True, "check": True}
    try:
        if Path(subprocess.run([*git, "rev-parse", "--show-toplevel"], **look).stdout.strip()) != PACKAGE.parent:
            return "unknown"
        return str(
            subprocess.run([*git, "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"], **look).stdout
        ).strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def run_all(
    trials: Sequence[Trial], folder: Path, jobs: int, threads: int, data: Path | None, machine: Mapping[str, Any]
) -> Generator[Running, None, None]:
    """Run them, so many at a time, and give every one when it has ended; whatever ends this ends those under way."""
    waiting, running = list(trials), list[Running]()
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                running.append(Running(waiting.pop(0), folder, threads, data, machine))
            for each in [each for each in running if each.ended]:
                running.remove(each)
                yield each
            time.sleep(0.1)
    finally:
        for each in running:
            each.stop()
        for each in running:
            each.close()
