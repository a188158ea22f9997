"""What a callback has measured, kept through resumes."""

from __future__ import annotations

import math
from typing import Any

import lightning as L


class Measurements(L.Callback):
    """A callback that keeps `rows`, one a measurement, each with "step", "epoch" (fractional) and what it measured."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []

    @property
    def facts(self) -> dict[str, Any]:
        """What `results.json` is to say of them, in plain types."""
        return {}

    @property
    def last(self) -> dict[str, dict[str, float | None]]:
        """The last value of each quantity by block, {"angle": {"block1": 3.2}}; None where it is no finite number."""
        values: dict[str, dict[str, float | None]] = {}
        for name, value in self.rows[-1].items() if self.rows else ():
            quantity, separator, block = name.partition("/")
            if separator:
                values.setdefault(quantity, {})[block] = value if math.isfinite(value) else None
        return values

    def state_dict(self) -> dict[str, Any]:
        """The measurements so far."""
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on after the measurements of the resumed run."""
        self.rows = list(state_dict["rows"])
