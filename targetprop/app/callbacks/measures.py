"""Measures of theory, taken during training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import lightning as L

from targetprop.app.callbacks.measuring import Measuring
from targetprop.app.callbacks.picture import Picture
from targetprop.app.report.measures import draw_measures
from targetprop.measure.registry import MEASURES, Numbers


class Measures(Picture, Measuring):
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
        self.start_clock()

    @property
    def state_key(self) -> str:
        """Several of them, each with measures of its own, may be in one run."""
        return self._generate_state_key(which=sorted(self.names))

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draw, if it is time."""
        self.redraw(trainer)

    def paint(self, trainer: L.Trainer) -> None:
        """Draw what was measured."""
        if self.rows:
            labels = {quantity: label for name in self.names for quantity, label in MEASURES[name].quantities.items()}
            draw_measures(self.path, self.rows, labels)
