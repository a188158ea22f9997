"""Two ways to train with the same seeds: accuracies, their mean difference with its 95 % interval, and the curves.

    python benchmarks/paired_runs.py --first runs/amortised_* --second runs/backprop_* \
        --names "DTP, amortised" backprop --step-ms 96.8 89.0 --json pairs.json --picture pairs.png

Arguments are run directories of `python main.py`, paired by their seed. Step times, from `step_time.py` on a quiet
machine, scale the second panel: the runs themselves may have shared the machine.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from matplotlib.figure import Figure
from omegaconf import OmegaConf
from rich.console import Console
from rich.table import Table
from scipy.stats import t as student  # type: ignore[import-untyped]

from alignment_table import mean_angles

COLORS = ("tab:blue", "tab:orange")


def read_run(folder: Path) -> dict[str, Any]:
    """Seed, final accuracies, and per epoch the step it ended at, validation accuracy and mean angles, of one run."""
    with (folder / "csv" / "metrics.csv").open() as file:
        whole = list(csv.DictReader(file))
    rows = [row for row in whole if row.get("val/accuracy")]
    training = [float(row["train/accuracy"]) for row in whole if row.get("train/accuracy")]
    results = json.loads((folder / "results.json").read_text())
    rows = rows[: len(results["epoch_seconds"])]  # behind them stands the final evaluation
    return {
        "seed": int(OmegaConf.load(folder / "config.yaml").seed),
        "test": results["test"]["accuracy"] if "test" in results else None,
        "validation": results["validation"]["accuracy"],
        "training": training[-1] if training else None,
        "epoch_steps": [int(row["step"]) + 1 for row in rows],
        "epoch_validation": [float(row["val/accuracy"]) for row in rows],
        "epoch_angles": mean_angles(folder / "csv" / "metrics.csv"),
        "epoch_seconds": results["epoch_seconds"],
    }


def interval(differences: Sequence[float]) -> tuple[float, float]:
    """Mean and half the width of its 95 % interval (Student's t)."""
    half = student.ppf(0.975, len(differences) - 1) * stdev(differences) / len(differences) ** 0.5
    return mean(differences), float(half)


def draw(path: Path, names: Sequence[str], groups: Sequence[list[dict[str, Any]]], step_ms: Sequence[float]) -> None:
    """Validation accuracy against epochs and against seconds, and the first group's angles."""
    figure = Figure(figsize=(13, 3.8), layout="constrained")
    by_epoch, by_second, angles = figure.subplots(1, 3)
    for name, runs, color, ms in zip(names, groups, COLORS, step_ms, strict=True):
        for run in runs:
            y = [100 * value for value in run["epoch_validation"]]
            style = {"color": color, "alpha": 0.6, "lw": 1.2, "marker": "o", "ms": 2.5}
            label = name if run is runs[0] else None
            by_epoch.plot(range(1, len(y) + 1), y, label=label, **style)
            by_second.plot([ms / 1000 * step for step in run["epoch_steps"]], y, label=label, **style)
    by_epoch.set(xlabel="epoch", ylabel="validation accuracy (%)", title="one curve a seed")
    by_second.set(xlabel="seconds of training steps (quiet machine)", ylabel="validation accuracy (%)")
    for axes in (by_epoch, by_second):
        axes.legend(frameon=False)
    first = groups[0]
    blocks = list(next(iter(first[0]["epoch_angles"].values())))
    for number, block in enumerate(blocks):
        epochs = list(first[0]["epoch_angles"])
        shade = 0.15 + 0.7 * number / max(1, len(blocks) - 1)
        values = [mean(run["epoch_angles"][epoch][block] for run in first) for epoch in epochs]
        angles.plot(epochs, values, color=(0.1, shade, 0.7), marker="o", ms=3, label=block.split("/")[-1])
    angles.set(xlabel="epoch", ylabel="update to backprop (degrees)", title=f"{names[0]}: mean over seeds")
    angles.set_ylim(0)
    angles.legend(frameon=False, fontsize="small", ncols=2)
    for axes in (by_epoch, by_second, angles):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)


def accuracy_table(
    what: str, names: Sequence[str], groups: Sequence[list[dict[str, Any]]], key: str
) -> tuple[Table, float, float]:
    """Accuracies of both groups by seed; with their mean difference, and half its interval."""
    table = Table("seed", *names, "difference", title=f"{what}, %")
    differences = [100 * (a[key] - b[key]) for a, b in zip(*groups, strict=True)]
    for a, b, difference in zip(*groups, differences, strict=True):
        table.add_row(str(a["seed"]), f"{100 * a[key]:.2f}", f"{100 * b[key]:.2f}", f"{difference:+.2f}")
    middle, half = interval(differences)
    means = [f"{100 * mean(run[key] for run in group):.2f}" for group in groups]
    table.add_row("mean", *means, f"{middle:+.2f} +- {half:.2f}")
    return table, middle, half


def print_tables(names: Sequence[str], groups: Sequence[list[dict[str, Any]]]) -> tuple[float, float]:
    """Accuracies; the first group's angles. Returns the mean difference of test accuracy and half its interval."""
    table, middle, half = accuracy_table("Test accuracy", names, groups, "test")
    Console().print(table)
    if all(run["training"] is not None for group in groups for run in group):
        Console().print(accuracy_table("Training accuracy in the last epoch", names, groups, "training")[0])
    angles = [run["epoch_angles"] for run in groups[0]]
    blocks = list(angles[0][1])
    shown = Table("epoch", *(name.split("/")[-1] for name in blocks), title=f"{names[0]}: mean angle, degrees")
    for epoch in angles[0]:
        shown.add_row(str(epoch), *(f"{mean(each[epoch][name] for each in angles):.1f}" for name in blocks))
    Console().print(shown)
    return middle, half


def main(arguments: Sequence[str] | None = None) -> None:
    """Read, print, draw."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--first", type=Path, nargs="+", required=True)
    made.add_argument("--second", type=Path, nargs="+", required=True)
    made.add_argument("--names", nargs=2, default=["first", "second"])
    made.add_argument("--step-ms", type=float, nargs=2, required=True, help="time of a training step")
    made.add_argument("--json", type=Path)
    made.add_argument("--picture", type=Path)
    options = made.parse_args(arguments)
    groups = [sorted(map(read_run, runs), key=lambda run: run["seed"]) for runs in (options.first, options.second)]
    seeds = [run["seed"] for run in groups[0]]
    if seeds != [run["seed"] for run in groups[1]] or len(seeds) < 2:
        raise SystemExit(
            f"Expected two runs or more of the same seeds, got {[[r['seed'] for r in g] for g in groups]}."
        )
    middle, half = print_tables(options.names, groups)
    if options.json:
        record = dict(zip(options.names, groups, strict=True))
        options.json.write_text(json.dumps({**record, "difference": middle, "half_interval": half}, indent=1) + "\n")
    if options.picture:
        draw(options.picture, options.names, groups, options.step_ms)


if __name__ == "__main__":
    main()
