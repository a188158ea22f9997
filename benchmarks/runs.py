"""The same training run over several seeds: test accuracy, time and peak memory, each as mean and standard deviation.

    python benchmarks/runs.py --seeds 5 --json runs.json model=dtp trainer.max_epochs=3

Every run is what `python main.py OVERRIDES seed=k` makes, in a process of its own, one after the other. Time is that
of the training epochs, memory the most that the process had in use: on the host, and of a GPU what torch allocated.
"""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import mean, stdev
from tempfile import TemporaryDirectory
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from targetprop.app.cli import check_overrides
from targetprop.utils.errors import UserError
from timing import parser, positive, prepare, title, write_record

COLUMNS = {
    "accuracy": ("test accuracy, %", 100.0),
    "seconds": ("training, s", 1.0),
    "host_bytes": ("host memory, MiB", 2.0**-20),
    "gpu_bytes": ("GPU memory, MiB", 2.0**-20),
}
"""What is measured of a run, and how a table shows it."""


def one_run(overrides: Sequence[str], threads: int) -> dict[str, float]:
    """Train once, in a process that has done nothing else."""
    from targetprop.app.run import train

    torch.set_num_threads(threads)
    config = check_overrides(list(overrides))
    metrics = train(config)
    epochs = json.loads((Path(config.output_dir) / "results.json").read_text())["epoch_seconds"]
    scale = 1 if sys.platform == "darwin" else 1024  # of what the system counts memory in
    return {
        "accuracy": metrics["test/accuracy"],
        "seconds": sum(epochs),
        "host_bytes": float(scale * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss),
        "gpu_bytes": float(torch.cuda.max_memory_allocated()),
    }


def table_of(heading: str, runs: Sequence[dict[str, float]]) -> Table:
    """A row for each seed, and one for mean and standard deviation."""
    shown = [key for key in COLUMNS if any(run[key] for run in runs)]
    table = Table("seed", *(COLUMNS[key][0] for key in shown), title=heading)
    for run in runs:
        table.add_row(f"{run['seed']:.0f}", *(f"{COLUMNS[key][1] * run[key]:.2f}" for key in shown))
    table.add_section()
    values = [[COLUMNS[key][1] * run[key] for run in runs] for key in shown]
    table.add_row("mean (sd)", *(f"{mean(each):.2f} ({_spread(each):.2f})" for each in values))
    return table


def summary_of(runs: Sequence[dict[str, float]]) -> dict[str, Any]:
    """Mean and standard deviation of everything measured."""
    columns = {key: [run[key] for run in runs] for key in COLUMNS}
    return {key: {"mean": mean(values), "sd": _spread(values)} for key, values in columns.items()}


def _spread(values: Sequence[float]) -> float:
    return stdev(values) if len(values) > 1 else 0.0


def main(arguments: Sequence[str] | None = None) -> None:
    """Run, print, write."""
    made = parser(__doc__)
    made.add_argument("--seeds", type=positive, default=5, help="how many")
    made.add_argument("--first-seed", type=int, default=1)
    made.add_argument("overrides", nargs="*", help="as main.py takes them")
    options = made.parse_intermixed_args(arguments)
    prepare(options)
    runs = []
    with TemporaryDirectory() as folder:
        for seed in range(options.first_seed, options.first_seed + options.seeds):
            device = [] if options.device == "cuda" else ["trainer.gpus=0"]
            overrides = [*device, *options.overrides, "test=true", f"seed={seed}", f"output_dir={folder}/{seed}"]
            try:
                check_overrides(overrides)
                with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
                    runs.append({"seed": seed, **process.submit(one_run, overrides, options.threads).result()})
            except UserError as error:
                sys.exit(f"Error: {error}")
    Console().print(table_of(title(" ".join(["runs of", *options.overrides]), options), runs))
    write_record(options, "runs", {"runs": runs, "summary": summary_of(runs)})


if __name__ == "__main__":
    main()
