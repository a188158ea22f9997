"""Event files of TensorBoard on a disk that is full: told once, and no run ends of it."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.summary.writer.event_file_writer import EventFileWriter
from tensorboard.summary.writer.record_writer import RecordWriter

from targetprop.app import unwritten
from targetprop.app.loggers.tensorboard import TensorBoardLogger, _without_trace
from targetprop.utils.errors import UserError

FULL = OSError(28, os.strerror(28))


def full(*_: object) -> None:
    raise FULL


@pytest.mark.parametrize(("place", "what"), [(EventFileWriter, "__init__"), (RecordWriter, "write")])
def test_a_full_disk_is_told_without_a_traceback(
    place: type, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    unwritten.reset()
    monkeypatch.setattr(place, what, full)
    logger = TensorBoardLogger(tmp_path, name="", version="")
    logger.log_hyperparams({"beta": 0.7})
    for step in range(3):
        logger.log_metrics({"loss": 1.0}, step)
        logger.save()
    logger.finalize("success")
    assert "Traceback" not in capsys.readouterr().err
    assert caplog.text.count("cannot be written: No space left on device.") == 1
    with pytest.raises(UserError, match=r"could not be written: No space left on device"):
        unwritten.refuse()
    unwritten.reset()


def test_metrics_have_the_prefix_that_was_asked_for(tmp_path: Path) -> None:
    logger = TensorBoardLogger(tmp_path, name="", version="", prefix="mine")
    logger.log_metrics({"loss": 1.0}, 0)
    logger.finalize("success")
    events = EventAccumulator(str(tmp_path)).Reload()
    assert events.Tags()["scalars"] == ["mine-loss"]


def test_how_other_threads_end_is_shown() -> None:
    shown: list[object] = []
    ended = threading.ExceptHookArgs((OSError, FULL, None, threading.Thread()))
    _without_trace(shown.append)(ended)
    assert shown == [ended]
