"""Curves of every method with the spread of its seeds, and the paired differences with interval and margin."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from protocol.report import Report
from protocol.trials import Record
from runs import tidy


def draw(report: Report, path: Path) -> None:
    """Write the picture; without a primary comparison, of the curves only."""
    width = 11 if report.equivalence else 6.5
    figure = Figure(figsize=(width, 4.2), layout="constrained")
    panels = figure.subplots(1, 2 if report.equivalence else 1, squeeze=False)[0]
    draw_curves(panels[0], report)
    if report.equivalence:
        draw_differences(panels[1], report)
    tidy(panels)
    figure.savefig(path, dpi=130)


def draw_curves(axes: Axes, report: Report) -> None:
    """Validation accuracy by epoch: the mean over seeds, and a band from the lowest to the highest."""
    for number, (name, runs) in enumerate(report.runs.items()):
        curves = validation_curves(runs)
        if not curves:
            continue
        columns = list(zip(*curves, strict=True))
        epochs, means = range(1, len(columns) + 1), [sum(column) / len(column) for column in columns]
        axes.plot(epochs, means, color=f"C{number}", lw=1.6, label=f"{name} ({len(curves)} seeds)")
        axes.fill_between(epochs, [*map(min, columns)], [*map(max, columns)], color=f"C{number}", alpha=0.15, lw=0)
    axes.set(xlabel="epoch", ylabel="validation accuracy (%)", title="mean and range over seeds")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False, fontsize="small")


def validation_curves(runs: Sequence[Record]) -> list[list[float]]:
    """In %, of the runs that did not diverge."""
    return [[100 * value for value in run["epochs"]["val/accuracy"]] for run in runs if not run["diverged"]]


def draw_differences(axes: Axes, report: Report) -> None:
    """A dot for each seed, the mean with its 90 % interval, and the margin as a band."""
    test, primary = report.equivalence, report.plan.primary
    assert test is not None
    assert primary is not None
    axes.axhspan(-test.margin, test.margin, color="C2", alpha=0.12, lw=0, label=f"margin, {test.margin:g} points")
    axes.axhline(0, color="0.6", lw=0.8)
    values = list(report.differences.values())
    axes.plot(range(len(values)), values, "o", color="C0", ms=5, alpha=0.7, label="one seed")
    half, label = test.interval.half, "mean, 90 % interval"
    axes.errorbar(len(values), test.mean, yerr=half, fmt="D", color="black", capsize=4, lw=1.6, label=label)
    axes.set_xticks(range(len(values) + 1), [*map(str, report.differences), "mean"], rotation=60)
    axes.set(xlabel="seed", ylabel="difference in test accuracy (points)")
    axes.set_title(f"{primary.method} minus {primary.reference}: {test.verdict}")
    axes.legend(frameon=False, fontsize="small")
