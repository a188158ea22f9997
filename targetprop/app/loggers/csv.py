"""Metrics as a table: one row for each time that something was logged."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

from targetprop.app.loggers.journal import Journal, keep_aside
from targetprop.app.unwritten import or_told
from targetprop.utils.files import to_disk, whole_file, write_text

HPARAMS = "hparams.yaml"
Row = dict[str, Any]


class CSVLogger(Logger, Journal):
    """`save_dir`/`name`/`version`/metrics.csv: a column for each metric and "step", a row for each call.

    Rows are written every `flush_logs_every_n_steps` rows, at the end of every epoch and before every checkpoint.
    """

    def __init__(
        self, save_dir: str | Path, name: str = "", version: str = "csv", flush_logs_every_n_steps: int = 100
    ) -> None:
        super().__init__()
        self.path = Path(save_dir, name, version, "metrics.csv")
        self.every = flush_logs_every_n_steps
        self._columns: list[str] = []
        self._rows = 0  # in the file
        self._waiting: list[Row] = []

    @property
    def name(self) -> str:
        return "csv"

    @property
    def version(self) -> str:
        return self.path.parent.name

    @property
    def log_dir(self) -> str:
        return str(self.folder)

    @property
    def folder(self) -> Path:
        return self.path.parent

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Write hparams.yaml beside the metrics; another one that is there is kept."""
        path = self.folder / HPARAMS
        text = yaml.safe_dump(params, sort_keys=False, allow_unicode=True)
        with or_told(path):
            self.folder.mkdir(parents=True, exist_ok=True)
            if path.is_file() and path.read_text() != text:
                keep_aside(path, HPARAMS)
            write_text(path, text)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Add a row."""
        values = {key: float(value) for key, value in metrics.items()}
        self._waiting.append({"step": step, **values})
        if len(self._waiting) >= self.every:
            self.save()

    @rank_zero_only
    def save(self) -> None:
        """Write the rows that wait."""
        if self._waiting:
            with or_told(self.path):
                self._write()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        self.save()

    def length(self) -> dict[str, Any]:
        self.save()
        if self.path.is_file():
            to_disk(self.path)
        return {"rows": self._rows, "columns": list(self._columns)}

    def go_on(self, length: dict[str, Any], source: Path) -> bool:
        path = source / self.path.name
        rows = list(_read(path)) if path.is_file() else []
        kept = rows[: length["rows"]]
        if path == self.path and len(rows) > len(kept):
            keep_aside(path, path.name)
        self._columns = list(length["columns"])
        with or_told(self.path):
            if kept:
                self._replace(kept)
        return len(kept) == length["rows"]

    def _write(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        columns = sorted({*self._columns, *(key for row in self._waiting for key in row)})
        if columns != self._columns or not self.path.is_file():
            rows = list(_read(self.path))[: self._rows] if self._rows else []
            self._columns = columns
            self._replace([*rows, *self._waiting])
        else:
            with self.path.open("a", newline="") as file:
                self._table(file).writerows(self._waiting)
            self._rows += len(self._waiting)
        self._waiting = []

    def _replace(self, rows: list[Row]) -> None:
        """Write the table anew."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with whole_file(self.path) as partial, partial.open("w", newline="") as file:
            table = self._table(file)
            table.writeheader()
            table.writerows(rows)
        self._rows = len(rows)

    def _table(self, file: Any) -> csv.DictWriter[str]:
        return csv.DictWriter(file, self._columns, extrasaction="ignore")


def _read(path: Path) -> Iterator[Row]:
    with path.open(newline="") as file:
        yield from csv.DictReader(file)
