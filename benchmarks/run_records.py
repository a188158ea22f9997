"""The accuracies of runs of `python main.py`, a row for each kind of run, and their epochs in one compact file.

    python benchmarks/run_records.py --runs "as printed" runs/a1 runs/a2 --runs backprop runs/b1 --json records.json

`--picture FILE` draws accuracy against epochs and against seconds of training, a colour for each kind of run.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from omegaconf import OmegaConf
from rich.console import Console
from rich.table import Table

COLUMNS = ("train/loss", "train/accuracy", "val/loss", "val/accuracy", "val/accuracy_as_printed")


def read_run(folder: Path) -> dict[str, Any]:
    """Seed, accuracies, and for each epoch the metrics of `COLUMNS` that the run has."""
    results = json.loads((folder / "results.json").read_text())
    with (folder / "csv" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    epochs = len(results["epoch_seconds"])  # in the columns of validation, behind them stands the final evaluation
    columns = {name: [float(row[name]) for row in rows if row.get(name)][:epochs] for name in COLUMNS}
    return {
        "seed": int(OmegaConf.load(folder / "config.yaml").seed),
        "test": results["test"]["accuracy"],
        "test_per_class": results["test"]["per_class"],
        "validation": results.get("validation", {}).get("accuracy"),
        "epoch_seconds": [round(seconds, 2) for seconds in results["epoch_seconds"]],
        "epochs": {name: [round(value, 5) for value in values] for name, values in columns.items() if values},
    }


def row(name: str, runs: Sequence[dict[str, Any]]) -> list[str]:
    """Name, runs, mean accuracies, the deviation of test accuracy between runs, and seconds of training."""
    test = [100 * run["test"] for run in runs]
    deviation = f" +- {stdev(test):.2f}" if len(test) > 1 else ""
    validation = [100 * run["validation"] for run in runs if run["validation"] is not None]
    return [
        name,
        str(len(runs)),
        f"{mean(validation):.2f}" if validation else "",
        f"{mean(test):.2f}{deviation}",
        f"{mean(sum(run['epoch_seconds']) for run in runs):.0f}",
    ]


def draw(path: Path, records: Mapping[str, Sequence[dict[str, Any]]]) -> None:
    """Training accuracy thin, validation accuracy thick."""
    figure = Figure(figsize=(11, 4), layout="constrained")
    by_epoch, by_second = figure.subplots(1, 2, sharey=True)
    for number, (name, runs) in enumerate(records.items()):
        for run in runs:
            seconds = list(accumulate(run["epoch_seconds"]))
            for column, width, style in (("train/accuracy", 1.0, "--"), ("val/accuracy", 2.0, "-")):
                y = [100 * value for value in run["epochs"].get(column, [])]
                if y:
                    label = f"{name}, {'training' if column.startswith('train') else 'validation'}"
                    by_epoch.plot(range(1, len(y) + 1), y, style, color=f"C{number}", linewidth=width)
                    by_second.plot(
                        seconds,
                        y,
                        style,
                        color=f"C{number}",
                        linewidth=width,
                        label=None if run is not runs[0] else label,
                    )
    by_epoch.set(xlabel="epoch", ylabel="accuracy (%)")
    by_epoch.xaxis.set_major_locator(MaxNLocator(integer=True))
    by_second.set(xlabel="seconds of training")
    by_second.legend(frameon=False)
    for axes in (by_epoch, by_second):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)


def main(arguments: Sequence[str] | None = None) -> None:
    """Read, print, write."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--runs", nargs="+", action="append", required=True, help="a name and run directories")
    made.add_argument("--json", type=Path)
    made.add_argument("--picture", type=Path)
    options = made.parse_args(arguments)
    records = {name: [read_run(Path(folder)) for folder in folders] for name, *folders in options.runs}
    table = Table("", "runs", "validation (%)", "test (%)", "training (s)")
    for name, runs in records.items():
        table.add_row(*row(name, runs))
    Console().print(table)
    if options.json:
        options.json.write_text(json.dumps(records, indent=1) + "\n")
    if options.picture:
        draw(options.picture, records)


if __name__ == "__main__":
    main()
