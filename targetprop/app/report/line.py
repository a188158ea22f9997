"""How far something is, as one line that fits a terminal of any width."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

LEAST, MOST = 8, 40
"""Columns of the bar."""
MARKS, ASCII = ("\u2501", "\u2500"), ("=", "-")
"""What is done of a bar, and what is left of it; the latter where a terminal has no other characters."""


@dataclass(frozen=True)
class ProgressLine:
    """One line: what runs, a bar, how many of how many, the time left, and numbers.

    What does not fit is left out whole, the numbers first, from the last to the first one, then the time and the bar.

    Args:
        name: of what runs, such as "Epoch 3/20".
        done: how many steps of it are done.
        total: how many it has; None where nobody knows.
        left: seconds until its end, where they are known.
        numbers: each with its name, such as "loss 0.271".
    """

    name: str
    done: int
    total: int | None = None
    left: float | None = None
    numbers: Sequence[str] = ()

    def fitted(self, width: int, marks: tuple[str, str] = MARKS) -> Text:
        """The line for so many columns."""
        count = str(self.done) if self.total is None else f"{self.done}/{self.total}"
        kept, room = [count], width - len(self.name) - 1 - len(count)
        left = [] if self.left is None else [f"{clock(self.left)} left"]
        bar = LEAST + 1 if self.total else 0
        for part in [*left, *self.numbers]:
            if len(part) + 2 + bar > room:
                break
            kept.append(part)
            room -= len(part) + 2
        columns = min(MOST, room - 1)
        parts = [Text(self.name, style="bold")]
        if self.total and columns >= LEAST:
            parts.append(_bar(self.done / self.total, columns, marks))
        line = Text(" ").join([*parts, Text(", ".join(kept))])
        line.truncate(width, overflow="ellipsis" if marks == MARKS else "crop")
        return line

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """For rich: one line, and never the last column, behind which some terminals begin another one."""
        line = self.fitted(options.max_width - 1, ASCII if options.ascii_only else MARKS)
        line.no_wrap, line.end = True, ""
        yield line


def _bar(share: float, columns: int, marks: tuple[str, str]) -> Text:
    filled = round(min(1.0, share) * columns)
    return Text.assemble((marks[0] * filled, "green"), (marks[1] * (columns - filled), "dim"))


def clock(seconds: float) -> str:
    """A duration as minutes and seconds, or hours, minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
