"""Time of a training step in two trees of this package, interleaved in one run.

    python benchmarks/compare_editions.py BEFORE_TREE AFTER_TREE --networks small full --threads 2 --json editions.json

Each tree has a worker process of its own, started with PYTHONPATH set to the tree: `edition_worker.py`, which runs on
the first edition and on the second. Workers wait for commands and make one step each in turn, so that only one of them
computes at a time; which one goes first changes from round to round. Weights, batch, threads and memory settings are
the same. Steps are those of strict backprop, of the delta mirror (in the first edition, amortised feedback) with its
whole budget, and of L-DRL in closed form, with few iterations to keep it short. The table shows medians, and of the
ratios after / before of all rounds the median and the quartiles.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from rich.console import Console
from rich.table import Table

from edition_worker import CHANNELS
from timing import parser, positive, prepare, title, write_record

MODES = ("backprop", "delta_mirror", "closed_form")
EDITIONS = ("before", "after")
REST = 0.01
"""Seconds between two turns: threads that have done their part wait busily for some milliseconds before they sleep."""


class Worker:
    """A process that makes steps by the package in `tree`."""

    def __init__(self, tree: Path, threads: int) -> None:
        command = [sys.executable, str(Path(__file__).with_name("edition_worker.py")), str(threads)]
        environment = {**os.environ, "PYTHONPATH": str(tree.resolve())}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=tree
        )
        package = Path(self._answer()["package"]).parent
        if package != tree.resolve() / "targetprop":
            sys.exit(f"Expected the package in {tree}, the worker imports {package}.")

    def ask(self, **command: Any) -> dict[str, Any]:
        """What it answers to a command."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            sys.exit("A worker has ended; what it says is above.")
        values: dict[str, Any] = json.loads(line)
        return values

    def end(self) -> None:
        """Let it go."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def rounds(workers: Sequence[Worker], repeats: int, seconds: float) -> list[list[float]]:
    """Of each worker the seconds of its steps, made in turn; not more of them than take so many seconds in all."""
    times: list[list[float]] = [[] for _ in workers]
    for number in range(repeats):
        order = range(len(workers)) if number % 2 == 0 else reversed(range(len(workers)))
        for each in order:
            time.sleep(REST)
            times[each].append(workers[each].ask(step=True)["seconds"])
        if number and sum(map(sum, times)) > seconds:
            break
    return times


def compared(times: Sequence[Sequence[float]]) -> dict[str, Any]:
    """Medians in both editions, and of the ratios the quartiles and the median."""
    ratios = [after / before for before, after in zip(*times, strict=True)]
    low, middle, high = quantiles(ratios, n=4, method="inclusive")
    medians = {name: median(each) for name, each in zip(EDITIONS, times, strict=True)}
    seconds = dict(zip(EDITIONS, times, strict=True))
    return {"medians": medians, "ratio": middle, "quartiles": [low, high], "seconds": seconds}


def table_of(heading: str, rows: Sequence[dict[str, Any]]) -> Table:
    """Milliseconds, and their ratio."""
    table = Table("network", "step", "before, ms", "after, ms", "after / before", "quartiles", "rounds", title=heading)
    for row in rows:
        before, after = (f"{1000 * row['medians'][name]:.2f}" for name in EDITIONS)
        low, high = row["quartiles"]
        count = str(len(row["seconds"]["before"]))
        table.add_row(row["network"], row["mode"], before, after, f"{row['ratio']:.3f}", f"{low:.3f} {high:.3f}", count)
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    made = parser(__doc__)
    made.add_argument("before", type=Path, help="a tree that holds the package's folder")
    made.add_argument("after", type=Path)
    made.add_argument("--networks", nargs="+", choices=CHANNELS, default=["small", "full"])
    made.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    made.add_argument("--batch", type=positive, default=128)
    made.add_argument("--iterations", type=positive, default=2, help="of closed_form, for each block")
    made.add_argument("--repeats", type=positive, default=60, help="rounds of each network and mode, 2 or more")
    made.add_argument("--seconds", type=float, default=120.0, help="after which no further round is begun")
    options = made.parse_args(arguments)
    if options.device != "cpu" or options.repeats < 2:
        made.error("it needs --device cpu, and two rounds or more for the quartiles.")
    prepare(options)
    workers = [Worker(tree, options.threads) for tree in (options.before, options.after)]
    rows = []
    for network in options.networks:
        for mode in options.modes:
            asked = {"make": mode, "network": network, "batch": options.batch, "iterations": options.iterations}
            norms = [worker.ask(**asked)["gradient"] for worker in workers]
            times = rounds(workers, options.repeats, options.seconds)
            rows.append({"network": network, "mode": mode, "gradient_norms": norms, **compared(times)})
    for worker in workers:
        worker.end()
    Console(width=120).print(table_of(title(f"Two editions, batch {options.batch}", options), rows))
    write_record(options, "compare_editions", {"rows": rows})


if __name__ == "__main__":
    main()
