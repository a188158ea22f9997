"""One line of progress at any width, above which no line of the log is lost; one numbering of epochs."""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Callable
from typing import Any

import pytest
import rich
from omegaconf import DictConfig
from pseudo_terminal import Seen
from rich.console import Console
from rich.live import Live

from targetprop.app.callbacks.progress import Clock, ProgressBar
from targetprop.app.objects import plain
from targetprop.app.report.line import ProgressLine, clock
from targetprop.app.report.summary import MOST, show, summary
from targetprop.app.run import train
from targetprop.app.terminal import LogHandler

Compose = Callable[..., DictConfig]
WIDTHS = (20, 40, 80, 110, 200)
NUMBERS = ["loss 0.271", "accuracy 95.2%", "feedback loss -14.4", "validation 97.9%"]


class Terminal(io.StringIO):
    """What says that it is a terminal, and keeps what is written to it."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


@pytest.fixture(params=WIDTHS)
def terminal(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Console:
    """A terminal of some width, on which a log and a progress bar would be."""
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    made = Console(file=Terminal(), width=request.param, height=50, force_terminal=True)
    monkeypatch.setattr(rich, "_console", made)
    return made


def seen(console: Console) -> list[str]:
    """The lines of what a terminal of that width shows, from the first one on."""
    shown = Seen(console.width)
    assert isinstance(console.file, Terminal)
    shown.feed(console.file.getvalue().replace("\n", "\r\n").encode())
    return shown.text.splitlines()


@pytest.mark.parametrize("width", range(1, 130))
def test_a_line_fits_any_width(width: int) -> None:
    for numbers in ([], NUMBERS):
        for total in (None, 0, 120):
            line = ProgressLine("Epoch 3/20", 60, total, 12.3, numbers).fitted(width)
            assert line.cell_len <= width
            assert "\n" not in line.plain


def test_what_does_not_fit_is_left_out_whole() -> None:
    line = ProgressLine("Epoch 3/20", 60, 120, 12.3, NUMBERS)
    parts = ["Epoch 3/20", "60/120", "0:12 left", *NUMBERS]
    known = 0
    for width in range(20, 130):
        shown = line.fitted(width).plain
        found = [part for part in parts if part in shown]
        assert found == parts[: len(found)]
        assert len(found) >= known, "and what fits a narrow line fits a wide one"
        known = len(found)
        rest = shown
        for part in found:
            rest = rest.replace(part, "", 1)
        assert not set(rest) - set("━─, "), "nothing of another part is left"
    assert known == len(parts)


def test_a_duration_is_short() -> None:
    assert [clock(each) for each in (0.4, 59.6, 3599, 3600)] == ["0:00", "1:00", "59:59", "1:00:00"]


def test_the_first_step_says_nothing_of_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([100.0, 102.0])
    monkeypatch.setattr("targetprop.app.callbacks.progress.time.monotonic", lambda: next(times))
    slow = Clock()
    slow.tick(1)
    assert slow.left(1, 11) is None
    slow.tick(3)
    assert slow.left(3, 11) == pytest.approx(8.0)
    assert slow.left(3, float("inf")) is None


def test_lines_of_the_log_stay_above_the_bar(terminal: Console) -> None:
    """Where a bar grows over several lines and shrinks, it takes as many lines of the log with it."""
    log = logging.getLogger("test_progress")
    log.handlers, log.propagate = [LogHandler()], False
    log.setLevel(logging.INFO)
    with Live(ProgressLine("", 0), console=terminal, auto_refresh=False, transient=True) as live:
        for epoch in range(1, 61):
            for done in (10, 20):
                numbers = NUMBERS if (epoch + done) % 3 else NUMBERS[-1:]
                live.update(ProgressLine(f"Epoch {epoch}/60", done, 20, 3.0, numbers), refresh=True)
            assert len(seen(terminal)) == epoch, "the bar is one line"
            log.info("E%d", epoch)
    lines = seen(terminal)
    assert re.findall(r"E(\d+)$", "\n".join(lines), re.MULTILINE) == [str(n) for n in range(1, 61)]
    assert len(lines) == 60, "and nothing of the bar is left"


def test_a_run_in_a_terminal_counts_epochs_once_and_loses_none(
    compose: Compose, terminal: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[str] = []
    draw = ProgressBar._draw

    def seen_drawing(bar: ProgressBar, name: str, *others: Any) -> None:
        drawn.append(name)
        draw(bar, name, *others)

    monkeypatch.setattr(ProgressBar, "_draw", seen_drawing)
    handler, root = LogHandler(), logging.getLogger("targetprop")
    root.addHandler(handler)
    monkeypatch.setattr(root, "level", logging.INFO)
    try:
        shown = ("trainer.enable_progress_bar=true", "callbacks.progress.refresh_rate=1", "task_name=named")
        train(compose("model=backprop", "trainer.max_epochs=3", "trainer.limit_val_batches=1", *shown))
    finally:
        root.removeHandler(handler)
    assert {"Epoch 1/3", "Epoch 3/3", "Epoch 1/3, validation", "Validation", "Test"} <= set(drawn)
    assert not any(name.startswith(("Epoch 0", "Epoch 4")) for name in drawn)
    lines = seen(terminal)
    text = "".join(lines)
    assert re.findall(r"Epoch (\d)/3: loss", text) == ["1", "2", "3"]
    assert "━" not in text.partition("Accuracy (%)")[0].partition("Evaluating")[0], "no bar is left above the table"
    first = next(number for number, line in enumerate(lines) if "Epoch 1/3:" in line or "Training into" in line)
    assert first <= MOST


def test_a_summary_is_whole_where_nobody_looks_on(compose: Compose) -> None:
    file = io.StringIO()
    lines = summary(plain(compose("network=simple_vgg", "tags=[a,b]", "model.hparams.noise=[0.1]")))
    show(Console(file=file, width=40), lines)
    text = file.getvalue()
    assert len(text.splitlines()) == len(lines) <= MOST
    for words in ("seed 123, tags a, b", "noise [0.1]", "channels [4, 6]", "digits: batch_size 128", "T_max 1"):
        assert words in text
    assert "_target_" not in text


@pytest.mark.parametrize("chosen", ["model=amortised_dtp network=resnet18", "datamodule=cifar10 scheduler=none"])
def test_a_summary_has_few_lines_in_a_terminal(compose: Compose, terminal: Console, chosen: str) -> None:
    show(terminal, summary(plain(compose(*chosen.split()))))
    assert len(seen(terminal)) <= MOST


def test_the_whole_configuration_is_printed_where_it_is_asked_for(
    compose: Compose, capsys: pytest.CaptureFixture[str]
) -> None:
    train(compose("model=backprop", "print_config=true", "logger=none", "callbacks=none", "test=false"))
    assert "_target_: targetprop.app.trainer.build_trainer" in capsys.readouterr().out


def test_messages_are_one_line_where_nobody_looks_on(monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.StringIO()
    monkeypatch.setattr(rich, "_console", Console(file=file, width=30))
    handler = LogHandler()
    handler.emit(logging.makeLogRecord({"msg": "a long\nmessage [red]" + 100 * "x"}))
    assert re.fullmatch(r"\[\d\d:\d\d:\d\d\] a long message \[red\]x{100}\n", file.getvalue())
