"""Run the suite: python -m tests.torture [--short] [--only kills,flips] [--seed 0] [--jobs 2] [--project PATH].

Each case follows from the seed and its number. What came of it is a line in the file of outcomes at once, so that a
suite that was ended goes on where it was when the same command is given again.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import random
import secrets
import shlex
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import checkpoint_flips, clocks, configurations, data_files, directories, full_disk, hostile_checkpoints, kills
from . import workers as dead_workers
from .case import Bench, BrokenReferenceError, Fault, NotApplicableError, Outcome, References
from .child import SUITE, Server
from .project import Project, UntranslatableError
from .table import aligned

FAULTS: Mapping[str, Fault] = {
    each.name: each
    for each in (
        kills.Kills(),
        configurations.Configurations(),
        data_files.DataFiles(),
        hostile_checkpoints.HostileCheckpoints(),
        checkpoint_flips.CheckpointFlips(),
        full_disk.FullDisk(),
        dead_workers.Workers(),
        directories.Directories(),
        clocks.Clocks(),
    )
}
MOST = 8
"""Complaints about one case that are kept."""


@dataclass
class Suite:
    """The cases of a suite, and what came of those that were tried."""

    project: Project
    seed: int
    out: Path
    again: str
    outcomes: list[dict[str, Any]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def load(self) -> None:
        """Take over what an earlier call has tried.

        Raises:
            SystemExit: that was with another seed, or of another state of the project.
        """
        here = {"seed": self.seed, "commit": self.project.commit}
        lines = self.out.read_text().splitlines() if self.out.is_file() else []
        if not lines:
            self.out.parent.mkdir(parents=True, exist_ok=True)
            self.out.write_text(json.dumps(here) + "\n")
            return
        if json.loads(lines[0]) != here:
            sys.exit(f"Error: {self.out} is of {json.loads(lines[0])}, and this is {here}; --out names another file.")
        whole = [line for line in lines if line.endswith("}")]  # but one that was being written when the suite ended
        self.outcomes = [json.loads(line) for line in whole[1:]]
        self.out.write_text("".join(f"{line}\n" for line in whole))

    def left(self, cases: Sequence[tuple[str, int]]) -> list[tuple[str, int]]:
        """The cases that have no outcome yet."""
        done = {(each["class"], each["number"]) for each in self.outcomes}
        return [case for case in cases if case not in done]

    def tried(self, case: tuple[str, int], verdict: str, outcome: Outcome, seconds: float) -> None:
        """Keep what came of a case, and say so if it was wrong."""
        name, number = case
        if len(outcome.complaints) > MOST:
            outcome = Outcome(outcome.did, [*outcome.complaints[:MOST], f"and {len(outcome.complaints) - MOST} more"])
        line = {"class": name, "number": number, "verdict": verdict, "did": outcome.did}
        line |= {"complaints": list(outcome.complaints), "seconds": round(seconds, 1)}
        with self._lock, self.out.open("a") as file:
            self.outcomes.append(line)
            file.write(json.dumps(line) + "\n")
            if verdict in ("wrong", "hung"):
                print(f"\n{verdict}: {name} {number}: {outcome.did}", *outcome.complaints, sep="\n    ")
                print(f"    repeat: {self.again} --only {name} --number {number}", flush=True)


def try_cases(suite: Suite, cases: Sequence[tuple[str, int]], jobs: int) -> None:
    """Try them all, so many at a time."""
    waiting: queue.SimpleQueue[tuple[str, int]] = queue.SimpleQueue()
    for case in cases:
        waiting.put(case)
    with tempfile.TemporaryDirectory(prefix="torture-", ignore_cleanup_errors=True) as scratch:
        references = References(Path(scratch))
        folders = [Path(scratch, f"bench{number}") for number in range(jobs)]
        threads = [threading.Thread(target=_work, args=(suite, waiting, each, references)) for each in folders]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def _work(suite: Suite, waiting: queue.SimpleQueue[tuple[str, int]], folder: Path, references: References) -> None:
    server = Server(suite.project.root, folder.parent)
    bench = Bench(suite.project, server, folder, references)
    while True:
        try:
            name, number = waiting.get_nowait()
        except queue.Empty:
            break
        start = time.monotonic()
        verdict, outcome = _try(suite, bench, FAULTS[name], number)
        suite.tried((name, number), verdict, outcome, time.monotonic() - start)
    server.close()


def _try(suite: Suite, bench: Bench, fault: Fault, number: int) -> tuple[str, Outcome]:
    bench.clear()
    chance = random.Random(f"{suite.seed}/{fault.name}/{number}")
    try:
        outcome = fault.run(bench, number, chance)
    except (NotApplicableError, UntranslatableError) as error:
        return "not applicable", Outcome(str(error))
    except BrokenReferenceError as error:  # another edition may have no such run
        verdict = "not applicable" if suite.project.is_first_edition else "wrong"
        return verdict, Outcome("what others are compared with", [str(error)])
    except Exception as error:  # a fault of a run must not end the suite, nor be taken for a success
        return "wrong", Outcome("the suite itself", [f"{type(error).__name__}: {error}"])
    return outcome.verdict, outcome


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.torture", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--short", action="store_true", help="some three minutes of it")
    parser.add_argument("--only", default="", metavar="CLASSES", help=f"some of {','.join(FAULTS)}")
    parser.add_argument("--number", type=int, help="one case, of the one class that --only names; it is tried anew")
    parser.add_argument("--limit", type=int, help="at most so many cases of each class")
    parser.add_argument("--seed", type=int, help="drawn and printed unless it is given")
    parser.add_argument("--jobs", type=int, default=2, help="cases at a time")
    parser.add_argument("--out", type=Path, help="file of outcomes; runs/torture-SEED.jsonl")
    parser.add_argument("--project", type=Path, default=SUITE, help="the checkout that is tried")
    options = parser.parse_args(arguments)
    options.names = [each for each in options.only.split(",") if each] or list(FAULTS)
    if unknown := [each for each in options.names if each not in FAULTS]:
        parser.error(f"there is no class {', '.join(unknown)}; there are {', '.join(FAULTS)}")
    if options.number is not None and (len(options.names) != 1 or options.seed is None):
        parser.error("--number needs --seed, and --only with one class")
    return options


def cases_of(options: argparse.Namespace) -> list[tuple[str, int]]:
    """The cases that the options choose."""
    if options.number is not None:
        return [(options.names[0], options.number)]
    counts = {name: FAULTS[name].short if options.short else FAULTS[name].full for name in options.names}
    if options.limit is not None:
        counts = {name: min(count, options.limit) for name, count in counts.items()}
    return [(name, number) for name, count in counts.items() for number in range(count)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Try the cases, print the table; 1 if any was wrong."""
    options = parse(arguments)
    if options.seed is None:
        options.seed = secrets.randbelow(2**31)
    project = Project(options.project.resolve())
    again = f"python -m tests.torture --seed {options.seed}"
    if options.project != SUITE:
        again += f" --project {shlex.quote(str(options.project))}"
    out = options.out or Path("runs", f"torture-{options.seed}.jsonl")
    suite = Suite(project, options.seed, out, again)
    if options.number is None:
        suite.load()
    else:
        suite.out = Path(os.devnull)  # it is tried anew each time
    cases = cases_of(options)
    left = suite.left(cases)
    print(
        f"Seed {options.seed}, {project.root} at {project.commit}: {len(left)} of {len(cases)} cases, into {suite.out}"
    )
    start = time.monotonic()
    try_cases(suite, left, min(options.jobs, max(1, len(left))))
    print(f"\n{aligned(suite.outcomes)}\n\n{(time.monotonic() - start) / 60:.1f} minutes")
    return int(any(each["verdict"] in ("wrong", "hung") for each in suite.outcomes))


if __name__ == "__main__":
    sys.exit(main())
