"""How an epoch is called: the same wherever it is told."""

from __future__ import annotations

import lightning as L


def epoch_of(trainer: L.Trainer) -> str:
    """The running epoch, counted from 1, and how many there are, if the run has a number of them."""
    last = trainer.max_epochs
    return f"Epoch {trainer.current_epoch + 1}" + ("" if last is None or last < 0 else f"/{last}")
