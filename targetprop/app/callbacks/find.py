"""Another callback of the same trainer."""

from __future__ import annotations

from typing import TypeVar

import lightning as L

_T = TypeVar("_T", bound=L.Callback)


def find_callback(trainer: L.Trainer, kind: type[_T]) -> _T | None:
    """The trainer's first callback of this kind, if it has one."""
    callbacks: list[L.Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return next((each for each in callbacks if isinstance(each, kind)), None)
