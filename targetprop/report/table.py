"""Results as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from rich.table import Table


@dataclass(frozen=True)
class Result:
    """Accuracies on one part of the data, as fractions."""

    accuracy: float
    top5: float
    per_class: list[float]


def results_table(results: dict[str, Result], classes: Sequence[str]) -> Table:
    """A column for each part of the data ("validation", "test"), rows for top-1, top-5 and each class."""
    table = Table(title="Accuracy (%)", title_justify="left")
    table.add_column("")
    for part in results:
        table.add_column(part, justify="right")
    if results:
        table.add_row("top-1", *(_percent(result.accuracy) for result in results.values()), style="bold")
        table.add_row("top-5", *(_percent(result.top5) for result in results.values()), end_section=True)
        for number, name in enumerate(classes):
            table.add_row(name, *(_percent(result.per_class[number]) for result in results.values()))
    return table


def times_line(epoch_seconds: Sequence[float]) -> str:
    """How long the epochs took, in one line."""
    each, total, count = median(epoch_seconds), sum(epoch_seconds), len(epoch_seconds)
    return f"{count} epoch{'s' * (count > 1)}, {each:.2f} s of training each (median), {total:.1f} s in all"


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.2f}"
