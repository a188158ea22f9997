"""Measures of theory, taken during training."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import lightning as L

from targetprop.app.callbacks.measuring import Measuring
from targetprop.app.report.measures import draw_measures
from targetprop.app.unwritten import or_told
from targetprop.measure.registry import MEASURES, Numbers

REDRAW_SECONDS = 60.0
"""From one drawing to the next, at least."""


class Measures(Measuring):
    """Takes measures every `every_n_steps` steps, logs them, and draws `path` (docs/measures.md).

    The picture is drawn at the ends of epochs, at most once a minute, and at the end, also of a run that fails.

    Args:
        which: names of measures.
        path: of the picture.
        every_n_steps: steps from one measurement to the next.
        numbers: of these measures, by name, where they are not to be the default ones.
    """

    def __init__(
        self, which: Sequence[str], path: str | Path, every_n_steps: int = 500, numbers: Numbers | None = None
    ) -> None:
        super().__init__(which, every_n_steps, numbers)
        self.path = Path(path)
        self._drawn = time.monotonic()

    @property
    def state_key(self) -> str:
        """Several of them, each with measures of its own, may be in one run."""
        return self._generate_state_key(which=sorted(self.names))

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draw, if it is time."""
        if time.monotonic() - self._drawn > REDRAW_SECONDS:
            self.draw(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draw the final picture."""
        self.draw(trainer)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Draw what there is."""
        self.draw(trainer)

    def draw(self, trainer: L.Trainer) -> None:
        """Draw what was measured; where that cannot be written the run goes on."""
        self._drawn = time.monotonic()
        if self.rows and trainer.is_global_zero:
            labels = {quantity: label for name in self.names for quantity, label in MEASURES[name].quantities.items()}
            with or_told(self.path):
                draw_measures(self.path, self.rows, labels)
