"""The one number by which runs of a task are compared, and how it is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Score:
    """A metric of evaluations.

    Attributes:
        name: of the metric, behind "val/" and "test/".
        kept: its name in the parts of results.json.
        title: in words.
        unit: of it as shown, "%"; empty if it has none.
        steps: in which differences of it are told, "points".
        mode: whether more ("max") or less ("min") of it is better.
        scale: by which it is multiplied to be shown.
        digits: behind the point, as shown.
    """

    name: str
    kept: str
    title: str
    unit: str
    steps: str
    mode: Literal["min", "max"] = "max"
    scale: float = 1.0
    digits: int = 2

    @property
    def sign(self) -> int:
        """1 where more is better, -1 where less is."""
        return 1 if self.mode == "max" else -1

    @property
    def heading(self) -> str:
        """The unit, or what it is, behind a comma."""
        return self.unit or self.title

    def reaches(self, value: float, level: float) -> bool:
        """Whether a value is as good as a level."""
        return self.sign * value >= self.sign * level

    def number(self, value: float) -> str:
        """As shown, without the unit."""
        return f"{self.scale * value:.{self.digits}f}"

    def shown(self, value: float) -> str:
        """As shown, with the unit."""
        return f"{self.number(value)} {self.unit}" if self.unit else self.number(value)

    def difference(self, value: float, half: float | None = None) -> str:
        """A difference of it, with half the width of its interval."""
        tail = "" if half is None else f" ± {self.scale * half:.{self.digits}f}"
        return f"{self.scale * value:+.{self.digits}f}{tail}"


ACCURACY = Score("accuracy", "accuracy", "accuracy", "%", "points", scale=100.0)
MEAN_SQUARED_ERROR = Score("loss", "mse", "mean squared error", "", "", "min", digits=4)


def bits_per(unit: str) -> Score:
    """Bits per character, or whatever the tokens are."""
    return Score("bits", "bits", f"bits per {unit}", "bits", "bits", "min", digits=4)
