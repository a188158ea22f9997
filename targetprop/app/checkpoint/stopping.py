"""A run that early stopping has ended goes on only where it would not have been ended with the settings of now."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason

from targetprop.app.checkpoint.settings import Change


def keep_own_patience(trainer: L.Trainer, states: Mapping[str, Any]) -> None:
    """Have callbacks that are about to take over these states keep the patience that they are configured with."""
    for each in _early_stopping(trainer):
        if isinstance(state := states.get(each.state_key), dict):
            state["patience"] = each.patience


def ended(trainer: L.Trainer, changed: Iterable[Change]) -> str | None:
    """Why the run that has been taken over is at its end; None if it is not, with these changed settings.

    Early stopping that does not end it any more forgets that it once did.
    """
    others = any(change.key.startswith("callbacks.") for change in changed)  # than patience: thresholds and the like
    for each in _early_stopping(trainer):
        by_patience = each.stopping_reason == EarlyStoppingReason.PATIENCE_EXHAUSTED
        if by_patience and each.wait_count >= each.patience:
            return each.stopping_reason_message
        if not by_patience and each.stopping_reason != EarlyStoppingReason.NOT_STOPPED and not others:
            return each.stopping_reason_message
        each.stopping_reason, each.stopping_reason_message = EarlyStoppingReason.NOT_STOPPED, None
        each.stopped_epoch = 0
    return None


def _early_stopping(trainer: L.Trainer) -> list[EarlyStopping]:
    return [each for each in trainer.callbacks if isinstance(each, EarlyStopping)]  # type: ignore[attr-defined]
