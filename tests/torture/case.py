"""A case of the suite: what it needs to be run, and what came out."""

from __future__ import annotations

import random
import shutil
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from . import oracle, records
from .child import PATIENCE, End, Launch, Process, Server
from .project import Project
from .records import Records

Verdict = Literal["survived", "wrong", "hung", "not applicable"]

SMALL = (
    "network.hparams.channels=[8,8]", "model.hparams.feedback_training_iterations=2", "trainer.threads=1",
    "trainer.enable_progress_bar=false", "trainer.max_epochs=3", "trainer.limit_train_batches=4",
)  # fmt: skip
"""A run of DTP on the digits of two seconds."""
ROOM = 8 << 30
"""Bytes of address space of a run; importing torch takes 3 of them, and no file of the suite is large."""


class NotApplicableError(Exception):
    """The checkout, or this machine, cannot express the case."""


@dataclass(frozen=True)
class Outcome:
    """What came of a case.

    Attributes:
        did: what was done, for a reader.
        complaints: what was wrong; none if nothing.
    """

    did: str
    complaints: Sequence[str] = ()

    @property
    def verdict(self) -> Verdict:
        if any(each.startswith(oracle.HUNG) for each in self.complaints):
            return "hung"
        return "wrong" if self.complaints else "survived"


class Fault(Protocol):
    """A class of faults, whose cases follow from their number and a seed.

    Attributes:
        name: of the class.
        full: how many cases the whole suite has.
        short: how many the short one has.
    """

    name: str
    full: int
    short: int

    def run(self, bench: Bench, number: int, chance: random.Random) -> Outcome:
        """Try the case with this number; `chance` is its own source of random numbers."""
        ...


@dataclass
class References:
    """Uninterrupted runs, each made once for the whole suite."""

    folder: Path
    _found: dict[tuple[str, ...], Records] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def of(self, bench: Bench, overrides: Sequence[str]) -> Records:
        """The records of the run with these overrides, made by the bench if it was not there."""
        key = tuple(overrides)
        with self._lock:
            if key not in self._found:
                run = self.folder / f"reference{len(self._found)}"
                end = bench.run([*overrides, f"hydra.run.dir={run}"])
                if said := oracle.ended_well(end):
                    raise BrokenReferenceError(f"the uninterrupted run {' '.join(overrides)} failed: {said}")
                self._found[key] = records.read(run)
            return self._found[key]


class BrokenReferenceError(Exception):
    """The uninterrupted run, with which others are compared, does not work itself."""


@dataclass
class Bench:
    """Where one case at a time is tried.

    Attributes:
        project: the checkout whose runs these are.
        server: forks them.
        folder: this bench's own; emptied before each case.
        references: shared by all benches.
    """

    project: Project
    server: Server
    folder: Path
    references: References

    def clear(self) -> None:
        """An empty folder."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)

    @property
    def rundir(self) -> Path:
        """The directory of the case's run, the same for all cases."""
        return self.folder / "run"

    def launch(self, overrides: Sequence[str], **more: object) -> Launch:
        """A launch in the bench's folder, in the words of the project's edition."""
        arguments = self.project.translated(overrides)
        surely = {"directory": self.folder, "memory": ROOM, "environment": self.project.environment}
        return Launch(arguments, **{**surely, **more})  # type: ignore[arg-type]

    def run(self, overrides: Sequence[str], patience: float = PATIENCE, **more: object) -> End:
        """Fork a run and wait for it."""
        return self.project.heard(self.server.run(self.launch(overrides, **more), patience))

    def process(self, overrides: Sequence[str], **more: object) -> Process:
        """Start a run as a process of its own."""
        return Process(self.project.root, self.launch(overrides, memory=0, **more), self.folder)

    def reference(self, overrides: Sequence[str]) -> Records:
        """The records of the uninterrupted run."""
        return self.references.of(self, overrides)

    def place(self) -> str:
        """The override that puts a run into its directory."""
        return f"hydra.run.dir={self.rundir}"
