"""How long `python main.py` takes at rest, and beside processes that keep all cores busy, by how threads wait.

    python benchmarks/busy.py --busy 8 --repeats 3
    DATA_DIR=data python benchmarks/busy.py --networks small --policies spins own passive

Every repeat runs each policy at rest and beside the busy processes (endless loops in pure Python), so that what else
the machine does disturbs all of them. A row is the median time of a training epoch, without the first one.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import product
from pathlib import Path

from targetprop.app.waiting import NUMBER, WAITING
from timing import parser, positive, prepare, write_record

MAIN = Path(__file__).parents[1] / "main.py"
COMMON = ("logger=none", "callbacks.best=null", "test=false", "trainer.enable_progress_bar=false")
NETWORKS = {
    "tiny": (),
    "small": ("experiment=cifar10_small", "model=delta_mirror", "trainer.limit_val_batches=1"),
}
"""Overrides of each network: "tiny" is the default run, "small" needs CIFAR-10."""
POLICIES: dict[str, tuple[dict[str, str], str]] = {
    "own": ({}, "null"),
    "one thread": ({}, "1"),
    "spins": ({"GOMP_SPINCOUNT": "300000"}, "{threads}"),
    "50000": ({"GOMP_SPINCOUNT": "50000"}, "{threads}"),
    "10000": ({"GOMP_SPINCOUNT": "10000"}, "{threads}"),
    "1000": ({"GOMP_SPINCOUNT": "1000"}, "{threads}"),
    "passive": ({"OMP_WAIT_POLICY": "passive"}, "{threads}"),
}
"""Variables and `trainer.threads` of each policy: "own" is the command line's, and "spins" what libgomp does itself."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run, print the table, keep the record."""
    made = parser(__doc__)
    made.add_argument("--networks", nargs="+", choices=NETWORKS, default=["tiny"])
    made.add_argument("--policies", nargs="+", choices=POLICIES, default=list(POLICIES))
    made.add_argument("--busy", type=positive, default=8, help="how many processes")
    made.add_argument("--repeats", type=positive, default=3)
    made.add_argument("--batches", type=positive, default=10, help="in an epoch")
    made.add_argument("--timeout", type=float, default=600.0, help="seconds after which a run is ended and not counted")
    options = made.parse_args(arguments)
    prepare(options)
    cells = list(product(options.networks, options.policies, (0, options.busy)))
    times: dict[tuple[str, str, int], list[float]] = {cell: [] for cell in cells}
    for _ in range(options.repeats):
        for network, policy, busy in cells:
            with busy_processes(busy):
                seconds = epoch_seconds(network, policy, options)
            times[network, policy, busy].append(seconds)
            print(f"{network}, {policy}, {busy} busy: {seconds:.3f} s", flush=True)
    rows = [row(*pair, times, options.busy) for pair in product(options.networks, options.policies)]
    print(f"{'network':8}{'policy':12}{'at rest, s':>12}{'busy, s':>10}{'ratio':>8}")
    for each in rows:
        print(f"{each['network']:8}{each['policy']:12}{each['rest']:12.3f}{each['busy']:10.3f}{each['ratio']:8.1f}")
    write_record(options, "busy", {"rows": rows})


def row(network: str, policy: str, times: dict[tuple[str, str, int], list[float]], busy: int) -> dict[str, str | float]:
    """Medians of a policy, and how many times as long an epoch takes beside the busy processes."""
    rest, beside = (statistics.median(times[network, policy, count]) for count in (0, busy))
    return {"network": network, "policy": policy, "rest": rest, "busy": beside, "ratio": beside / rest}


@contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """So many endless loops for as long as this lasts."""
    started = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for each in started:
            each.kill()
            each.wait()


def epoch_seconds(network: str, policy: str, options: argparse.Namespace) -> float:
    """The median training epoch of a short run, without the first; infinite if the run takes too long."""
    variables, threads = POLICIES[policy]
    environment = {name: value for name, value in os.environ.items() if name not in (*WAITING, *NUMBER)}
    with tempfile.TemporaryDirectory() as folder:
        place = (f"hydra.run.dir={folder}", "trainer.max_epochs=3", f"trainer.limit_train_batches={options.batches}")
        counts = f"trainer.threads={threads.format(threads=options.threads)}"
        command = [sys.executable, str(MAIN), *NETWORKS[network], *COMMON, *place, counts]
        environment |= variables
        try:
            subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL, timeout=options.timeout)
        except subprocess.TimeoutExpired:
            return float("inf")
        results = json.loads(Path(folder, "results.json").read_text())
    return statistics.median(results["epoch_seconds"][1:])


if __name__ == "__main__":
    main()
