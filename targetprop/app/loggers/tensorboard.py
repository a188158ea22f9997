"""Event files for TensorBoard."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch import loggers
from lightning.pytorch.utilities import rank_zero_only
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from targetprop.app.flat import flat
from targetprop.app.loggers.journal import Journal, keep_aside
from targetprop.app.unwritten import or_told
from targetprop.utils.files import to_disk, whole_file

EVENTS = "events.out.tfevents."
COMPARED = ("val/accuracy", "val/loss", "test/accuracy", "test/loss", "train/loss")
"""What TensorBoard compares runs by, as far as they have it."""


class TensorBoardLogger(loggers.TensorBoardLogger, Journal):
    """Lightning's, with files that go on with the run: `save_dir`/`name`/`version`/events.out.tfevents.*."""

    _goes_on = False

    @property
    def folder(self) -> Path:
        return Path(self.log_dir)

    @property
    @rank_zero_experiment
    def experiment(self) -> SummaryWriter:
        """What writes the files, begun once: where the disk is full it stays one that raises why."""
        if self._experiment is None:
            try:
                return super().experiment
            except OSError as error:
                self._experiment = cast(SummaryWriter, _Unbegun(error))
        return self._experiment

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Add a scalar for each metric."""
        with or_told(self.folder):
            try:
                super().log_metrics(dict(metrics), step)
            except ValueError as error:  # in which Lightning wraps whatever the writer raises
                if isinstance(error.__cause__, OSError):
                    raise error.__cause__ from None
                raise

    @rank_zero_only
    def log_hyperparams(self, params: Mapping[str, Any], *args: Any, **kwargs: Any) -> None:  # type: ignore[override]
        """Add them for the tab HPARAMS, with the metrics to compare runs by, unless the files that go on have them."""
        if self._goes_on:
            return
        values = {name: _shown(value) for name, value in flat(params).items() if value is not None}
        with or_told(self.folder):
            writer = self.experiment._get_file_writer()
            for summary in hparams(values, dict.fromkeys(COMPARED, 0.0)):  # of metrics only their names
                writer.add_summary(summary)

    @rank_zero_only
    def save(self) -> None:
        """Write what waits."""
        with or_told(self.folder):
            self.experiment.flush()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        with or_told(self.folder):
            super().finalize(status)

    def length(self) -> dict[str, Any]:
        self.save()
        files = sorted(self.folder.glob(f"{EVENTS}*"))
        for each in files:
            to_disk(each)
        return {each.name: each.stat().st_size for each in files}

    def go_on(self, length: dict[str, Any], source: Path) -> bool:
        whole = True
        with or_told(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            for path in sorted(source.glob(f"{EVENTS}*")):
                if path.name in length:
                    whole &= self._take(path, length[path.name])
                elif source == self.folder:
                    _keep_aside(path)
                    path.unlink()
        self._goes_on = whole and all((self.folder / Path(name).name).is_file() for name in length)
        return self._goes_on

    def _take(self, path: Path, size: int) -> bool:
        """Have the first so many bytes of an event file here."""
        found = path.stat().st_size
        if path.parent == self.folder:
            if found > size:
                _keep_aside(path)
                os.truncate(path, size)
        else:
            with whole_file(self.folder / path.name) as partial, path.open("rb") as file:
                partial.write_bytes(file.read(size))
        return found >= size


class _Unbegun:
    """Stands for a file that could not be begun."""

    def __init__(self, error: OSError) -> None:
        self._error = error

    def __getattr__(self, name: str) -> Any:
        raise self._error


def _without_trace(shown: Callable[[threading.ExceptHookArgs], object]) -> Callable[[threading.ExceptHookArgs], None]:
    """What shows how a thread ended, but for a writer of events on a full disk: that is raised where it is used."""

    def show(ended: threading.ExceptHookArgs) -> None:
        of_events = type(ended.thread).__module__.startswith("tensorboard.")
        if not (of_events and isinstance(ended.exc_value, OSError)):
            shown(ended)

    return show


threading.excepthook = _without_trace(threading.excepthook)


def _shown(value: Any) -> float | str | bool:
    """What the tab can sort by, or show."""
    return value if isinstance(value, bool | int | float | str) else str(value)


def _keep_aside(path: Path) -> None:
    """Under a name that TensorBoard does not read."""
    keep_aside(path, path.name.replace(EVENTS, "events."))
