"""A picture of a run that is drawn anew while it lasts."""

from __future__ import annotations

import time
from abc import abstractmethod
from pathlib import Path

import lightning as L

from targetprop.app.unwritten import or_told


class Picture(L.Callback):
    """Draws `path` at the end of training, also of one that fails, and in between at most once in `redraw_seconds`."""

    path: Path
    redraw_seconds: float = 60.0
    _drawn: float

    def start_clock(self) -> None:
        """From now on the time is counted after which the picture is drawn anew."""
        self._drawn = time.monotonic()

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draw the final picture."""
        self.draw(trainer)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Draw what there is."""
        self.draw(trainer)

    def redraw(self, trainer: L.Trainer) -> None:
        """Draw, if it is time."""
        if time.monotonic() - self._drawn > self.redraw_seconds:
            self.draw(trainer)

    def draw(self, trainer: L.Trainer) -> None:
        """Draw what there is so far; where that cannot be written the run goes on."""
        self.start_clock()
        if trainer.is_global_zero:
            with or_told(self.path):
                self.paint(trainer)

    @abstractmethod
    def paint(self, trainer: L.Trainer) -> None:
        """Write the picture, if there is anything to show."""
