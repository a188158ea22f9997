"""What is left of a comparison: a bar on a terminal, a line for each run elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

Tell = Callable[[str, float], None]
"""Told of a run that has ended: in words, and seconds that are left."""


@contextmanager
def telling(console: Console, what: str, total: int) -> Iterator[Tell]:
    """Within it, show how many runs of so many have ended, and how long the others take.

    Args:
        what: they are, e.g. "search".
    """
    if not console.is_terminal:
        done = 0

        def line(said: str, left: float) -> None:
            nonlocal done
            done += 1
            console.print(f"{what} {done}/{total}: {escape(said)}; {duration(left)} left", soft_wrap=True)

        yield line
        return
    left = TextColumn("{task.description}")
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), left)
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=total)

        def bar(said: str, left: float) -> None:
            progress.console.print(escape(said))
            progress.update(task, advance=1, description=f"about {duration(left)} left")

        yield bar


def duration(seconds: float) -> str:
    """In hours and minutes; below two minutes in seconds."""
    if seconds < 120:
        return f"{max(0.0, seconds):.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min"
