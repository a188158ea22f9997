"""What a published experiment is here: parts that are kept as soon as they are there, a table and a picture."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from statistics import fmean, stdev
from typing import Protocol

import torch
from matplotlib.figure import Figure
from rich.console import Console

from targetprop.compare.progress import telling
from targetprop.utils.errors import UserError
from targetprop.utils.files import write_text

Value = str | int | float | None
Row = dict[str, Value]
"""Of the table that an experiment writes; all rows have the same keys."""
Rows = list[Row]


@dataclass(frozen=True)
class Means:
    """What an experiment is made with.

    Attributes:
        folder: of its parts, its table and its picture.
        data: directory that holds the data sets.
        quick: make it as small as it gets, on data that need no files: to see that it works, not what it shows.
        seeds: instead of its own; None for those.
        jobs: runs at a time, of those that train in processes of their own.
        threads: of the CPU, of each run.
    """

    folder: Path
    data: Path
    quick: bool
    seeds: tuple[int, ...] | None
    jobs: int
    threads: int
    console: Console

    @property
    def device(self) -> torch.device:
        """That experiments in this process compute on."""
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")


class Experiment(Protocol):
    """One figure or table of a paper."""

    @property
    def title(self) -> str:
        """What it is, in a line."""

    @property
    def paper(self) -> str:
        """Whose, when, where."""

    def rows(self, means: Means) -> Rows:
        """Its numbers; what an earlier call has computed is taken from the folder.

        Raises:
            UserError: data are missing, or the folder holds parts with other settings.
        """

    def draw(self, rows: Rows) -> Figure:
        """Its picture."""


@dataclass(frozen=True)
class Part:
    """A piece of an experiment that is computed at once.

    Attributes:
        name: of its file.
        settings: all that decides its rows.
    """

    name: str
    settings: Mapping[str, object]
    make: Callable[[], Rows]


def rows_of(parts: Sequence[Part], means: Means) -> Rows:
    """The rows of all parts; those that are not there yet are computed, each kept when it is done."""
    rows, lacking = {}, []
    for part in parts:
        found = _read(means.folder / "parts" / f"{part.name}.json", part)
        if found is None:
            lacking.append(part)
        else:
            rows[part.name] = found
    with telling(means.console, "parts", len(lacking)) as tell:
        taken = list[float]()
        for part in lacking:
            start = time.perf_counter()
            rows[part.name] = part.make()
            _write(means.folder / "parts" / f"{part.name}.json", part, rows[part.name])
            taken.append(time.perf_counter() - start)
            tell(part.name, fmean(taken) * (len(lacking) - len(taken)))
    return [row for part in parts for row in rows[part.name]]


def _read(path: Path, part: Part) -> Rows | None:
    if not path.is_file():
        return None
    kept = json.loads(path.read_text())
    if kept["settings"] != _plain(part.settings):
        raise UserError("it was made with other settings; move it away, or choose another --folder", key=str(path))
    rows: Rows = kept["rows"]
    return rows


def _write(path: Path, part: Part, rows: Rows) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps({"settings": _plain(part.settings), "rows": rows}, indent=1) + "\n")


def _plain(settings: Mapping[str, object]) -> object:
    """As JSON gives them back."""
    return json.loads(json.dumps(settings))


def write_table(path: Path, rows: Rows) -> None:
    """Write rows as CSV; what is None is empty."""
    text = StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def mean_and_spread(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard deviation, which of a single value is 0."""
    return fmean(values), stdev(values) if len(values) > 1 else 0.0


def grouped(rows: Rows, value: str, *keys: str) -> dict[tuple[Value, ...], list[float]]:
    """The numbers in a column by what stands in others, in order of appearance; empty places are left out."""
    made: dict[tuple[Value, ...], list[float]] = {}
    for row in rows:
        number = row[value]
        if isinstance(number, int | float):
            made.setdefault(tuple(row[key] for key in keys), []).append(float(number))
    return made
