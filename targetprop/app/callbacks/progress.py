"""How far the run is: one line at the foot of a terminal, now and then a line in the log where there is none."""

from __future__ import annotations

import logging
import math
import time
from typing import Any, cast

import lightning as L
from lightning.pytorch.callbacks import ProgressBar as LightningBar
from rich import get_console
from rich.live import Live

from targetprop.app.callbacks.epoch import epoch_of
from targetprop.app.callbacks.find import find_callback
from targetprop.app.callbacks.step_losses import StepLosses
from targetprop.app.module import TaskModule
from targetprop.app.report.line import ProgressLine
from targetprop.app.terminal import shows_lines_only
from targetprop.utils.errors import require_whole

log = logging.getLogger(__name__)


class ProgressBar(LightningBar):
    """Epoch, batches, time left, and the epoch so far: metrics of training, feedback loss, the last validation.

    It is one line, whatever the width of the terminal, and stands on the console of the log, whose messages scroll by
    above it. Numbers are read back from the device only when it is drawn, every `refresh_rate` batches; 0 is no bar.
    """

    def __init__(self, refresh_rate: int = 10) -> None:
        super().__init__()
        require_whole("refresh_rate", refresh_rate, least=0)
        self.refresh_rate = refresh_rate
        self._enabled = True
        self._live: Live | None = None
        self._clock = Clock()

    def enable(self) -> None:
        """Show the bar, where there is a terminal."""
        self._enabled = True

    def disable(self) -> None:
        """Show nothing, as Lightning has it in all processes but the first."""
        self._enabled = False

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Leave the terminal as it was."""
        self._end()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Leave the terminal as it was."""
        self._end()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin a line."""
        self._begin()

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take the line away."""
        self._end()

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin the line of an epoch."""
        self._clock = Clock()
        if self._live is not None:
            self._draw(epoch_of(trainer), trainer.fit_loop.epoch_loop.batch_idx + 1, trainer.num_training_batches, [])

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Draw the line anew if it is time."""
        self._clock.tick(batch_idx + 1)
        total = trainer.num_training_batches
        if self._is_due(batch_idx + 1, total):
            self._draw(epoch_of(trainer), batch_idx + 1, total, numbers_of(trainer, cast(TaskModule, pl_module)))

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin a line, where it is not one of training."""
        self._begin()
        self._clock = Clock()

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Draw the line anew if it is time."""
        totals = trainer.num_sanity_val_batches if trainer.sanity_checking else trainer.num_val_batches
        name = f"{epoch_of(trainer)}, validation" if trainer.state.fn == "fit" else "Validation"
        self._evaluated(name, batch_idx + 1, totals[dataloader_idx])

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take the line away, where it is not one of training."""
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            self._end()

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin a line."""
        self._begin()
        self._clock = Clock()

    def on_test_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Draw the line anew if it is time."""
        self._evaluated("Test", batch_idx + 1, trainer.num_test_batches[dataloader_idx])

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take the line away."""
        self._end()

    def _evaluated(self, name: str, done: int, total: float) -> None:
        self._clock.tick(done)
        if self._is_due(done, total):
            self._draw(name, done, total, [])

    def _begin(self) -> None:
        console = get_console()
        if self._live is None and self._enabled and self.refresh_rate and not shows_lines_only(console):
            self._live = Live(ProgressLine("", 0), console=console, auto_refresh=False, transient=True)
            self._live.start()

    def _end(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _is_due(self, done: int, total: float) -> bool:
        return self._live is not None and (done % self.refresh_rate == 0 or done == total)

    def _draw(self, name: str, done: int, total: float, numbers: list[str]) -> None:
        if self._live is not None:
            known = int(total) if math.isfinite(total) else None
            line = ProgressLine(name, done, known, self._clock.left(done, total), numbers)
            self._live.update(line, refresh=True)


class ProgressLines(L.Callback):
    """Where the output is no terminal, so that no bar is seen: a line in the log about every `seconds`."""

    def __init__(self, seconds: float = 60.0) -> None:
        self.seconds = seconds
        self._last = time.monotonic()
        self._clock = Clock()

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock."""
        self._last = time.monotonic()
        self._clock = Clock()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write a line if one is due."""
        done, now = batch_idx + 1, time.monotonic()
        self._clock.tick(done)
        if now - self._last < self.seconds or not shows_lines_only(get_console()) or not trainer.is_global_zero:
            return
        self._last = now
        total = trainer.num_training_batches
        seconds = self._clock.left(done, total)
        left = "" if seconds is None else f", {seconds:.0f} s left of it"
        numbers = ", ".join(numbers_of(trainer, cast(TaskModule, pl_module)))
        log.info("%s, batch %d/%s%s: %s", epoch_of(trainer), done, f"{total:.0f}", left, numbers)


class Clock:
    """How long the rest takes, by how long steps took; not by the first one, which may take many times as long."""

    def __init__(self) -> None:
        self._first: tuple[int, float] | None = None
        self._now = 0.0

    def tick(self, done: int) -> None:
        """So many steps are done."""
        self._now = time.monotonic()
        self._first = self._first or (done, self._now)

    def left(self, done: int, total: float) -> float | None:
        """Seconds until all are; None where that is not known."""
        if self._first is None or done <= self._first[0] or not math.isfinite(total):
            return None
        return (self._now - self._first[1]) * (total - done) / (done - self._first[0])


def numbers_of(trainer: L.Trainer, module: TaskModule) -> list[str]:
    """The metrics and the feedback loss of this epoch, and the last validation, as text."""
    return [f"{name} {value}" for name, value in epoch_so_far(trainer, module).items()]


def epoch_so_far(trainer: L.Trainer, module: TaskModule) -> dict[str, str]:
    """The same, by their names."""
    row = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val/")}
    losses = None
    if trainer.training and module.train_metrics["loss"].update_count:
        row |= {f"train/{name}": float(metric.compute()) for name, metric in module.train_metrics.items()}
        losses = find_callback(trainer, StepLosses)
    shown = module.task.shown(row)
    validation = {"validation": shown.pop("validation")} if "validation" in shown else {}
    if losses and (feedback := losses.feedback_loss()) is not None:
        shown["feedback loss"] = f"{feedback:.3g}"
    return shown | validation
