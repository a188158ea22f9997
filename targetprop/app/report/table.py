"""Results as a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
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
class Accuracies:
    """Accuracies on one part of the data, as fractions; None of a class of which there is no example."""

    accuracy: float
    top5: float
    per_class: list[float | None]

    @property
    def numbers(self) -> dict[str, float]:
        """What a run returns of them."""
        return {"accuracy": self.accuracy}


@dataclass(frozen=True)
class Errors:
    """Mean squared error on one part of the data, and the share of the targets' variance that is explained.

    The latter is None where there is no variance.
    """

    mse: float
    r2: float | None

    @property
    def numbers(self) -> dict[str, float]:
        """What a run returns of them."""
        return {"mse": self.mse, **({} if self.r2 is None else {"r2": self.r2})}


@dataclass(frozen=True)
class Surprises:
    """Of sequences of tokens: bits per token, perplexity (2^bits), and cross-entropy in nats (bits x log 2)."""

    bits: float
    perplexity: float
    loss: float

    @property
    def numbers(self) -> dict[str, float]:
        """What a run returns of them."""
        return {"bits": self.bits, "perplexity": self.perplexity}


def accuracies_table(results: Mapping[str, Accuracies], classes: Sequence[str], note: str = "") -> Table:
    """A column for each part of the data ("validation", "test"), rows for top-1, top-5 and each class.

    Of more than `MOST_CLASSES` only those that are best and worst on the last part are shown; classes without examples
    there are neither. Names come from files: whatever rich or a terminal would obey in them is shown as text.

    Args:
        note: to stand below the table.
    """
    table = _empty("Accuracy (%)", results, note)
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


def errors_table(results: Mapping[str, Errors], note: str = "") -> Table:
    """A column for each part of the data, rows for the mean squared error and the share of variance explained."""
    table = _empty("Error", results, note)
    table.add_row("mean squared error", *(f"{result.mse:.4g}" for result in results.values()), style="bold")
    shares = ("" if result.r2 is None else f"{result.r2:.4f}" for result in results.values())
    table.add_row("variance explained (R\u00b2)", *shares)
    return table


def surprises_table(results: Mapping[str, Surprises], unit: str, note: str = "") -> Table:
    """A column for each part of the data, rows for bits per token, perplexity and cross-entropy.

    Args:
        unit: what the tokens are.
        note: to stand below the table.
    """
    table = _empty(f"Bits per {unit}", results, note)
    table.add_row(f"bits per {unit}", *(f"{result.bits:.4f}" for result in results.values()), style="bold")
    table.add_row("perplexity", *(f"{result.perplexity:.4f}" for result in results.values()))
    table.add_row("cross-entropy (nats)", *(f"{result.loss:.4f}" for result in results.values()))
    return table


def _empty(title: str, parts: Iterable[str], note: str) -> Table:
    caption = Text(printable(note), style="table.caption") if note else None
    table = Table(title=title, title_justify="left", caption=caption, caption_justify="left")
    table.add_column("")
    for part in parts:
        table.add_column(part, justify="right")
    return table


def _sections(results: Mapping[str, Accuracies], count: int) -> list[tuple[str, Sequence[int]]]:
    """Numbers of the classes to show, below their headings."""
    if count <= MOST_CLASSES:
        return [("", range(count))]
    part, result = list(results.items())[-1]
    known = {number: value for number, value in enumerate(result.per_class) if value is not None}
    ranked = sorted(known, key=lambda number: -known[number])
    best, worst = ranked[:EXTREMES], ranked[-EXTREMES:]
    of = f"of {len(known)} ({part})" if len(known) == count else f"of {len(known)} with images ({part})"
    return [(f"best {len(best)} {of}", best), (f"worst {len(worst)} {of}", worst)]


def times_line(epoch_seconds: Sequence[float]) -> str:
    """How long the epochs took, in one line."""
    each, total, count = median(epoch_seconds), sum(epoch_seconds), len(epoch_seconds)
    return f"{count} epoch{'s' * (count > 1)}, {each:.2f} s of training each (median), {total:.1f} s in all"


def _percent(fraction: float | None) -> str:
    return "" if fraction is None else f"{100 * fraction:.2f}"
