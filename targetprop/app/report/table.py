"""Results as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from rich.table import Table
from rich.text import Text

from targetprop.utils.text import printable

MOST_CLASSES = 100
"""Of so many classes every one has its row."""
EXTREMES = 5
"""How many of the best and of the worst classes have one where there are more."""


@dataclass(frozen=True)
class Result:
    """Accuracies on one part of the data, as fractions."""

    accuracy: float
    top5: float
    per_class: list[float]


def results_table(results: dict[str, Result], classes: Sequence[str], note: str = "") -> Table:
    """A column for each part of the data ("validation", "test"), rows for top-1, top-5 and each class.

    Of more than `MOST_CLASSES` only those that are best and worst on the last part are shown. Names come from files:
    whatever rich or a terminal would obey in them is shown as text.

    Args:
        note: to stand below the table.
    """
    caption = Text(printable(note), style="table.caption") if note else None
    table = Table(title="Accuracy (%)", title_justify="left", caption=caption, caption_justify="left")
    table.add_column("")
    for part in results:
        table.add_column(part, justify="right")
    if results:
        table.add_row("top-1", *(_percent(result.accuracy) for result in results.values()), style="bold")
        table.add_row("top-5", *(_percent(result.top5) for result in results.values()), end_section=True)
        for heading, numbers in _sections(results, len(classes)):
            if heading:
                table.add_row(heading, style="italic")
            for number in numbers:
                name = Text(printable(classes[number]))
                table.add_row(name, *(_percent(result.per_class[number]) for result in results.values()))
            table.add_section()
    return table


def _sections(results: dict[str, Result], count: int) -> list[tuple[str, Sequence[int]]]:
    """Numbers of the classes to show, below their headings."""
    if count <= MOST_CLASSES:
        return [("", range(count))]
    part, result = list(results.items())[-1]
    ranked = sorted(range(count), key=lambda number: -result.per_class[number])
    best, worst = ranked[:EXTREMES], ranked[-EXTREMES:]
    return [(f"best {EXTREMES} of {count} ({part})", best), (f"worst {EXTREMES} of {count} ({part})", worst)]


def times_line(epoch_seconds: Sequence[float]) -> str:
    """How long the epochs took, in one line."""
    each, total, count = median(epoch_seconds), sum(epoch_seconds), len(epoch_seconds)
    return f"{count} epoch{'s' * (count > 1)}, {each:.2f} s of training each (median), {total:.1f} s in all"


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.2f}"
