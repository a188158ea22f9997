"""Whether what trains is target propagation, in one number for each block, logged through the run."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from targetprop.app.callbacks.measuring import Measuring

if TYPE_CHECKING:
    from targetprop.app.module import TaskModule

log = logging.getLogger(__name__)

NOTHING = 1e-6
"""Below it targets are a linear function of the output's error."""


class Genuineness(Measuring):
    """Logs on the first batch of each epoch, for block n = 1, 2, ..., `nonlinearity/block{n}` (see `nonlinearity`).

    It is zero of mirrors and of feedback alignment, which form no target, and of blocks below no activation.
    """

    key = "callbacks.genuineness"

    def __init__(self) -> None:
        super().__init__(["nonlinearity"])

    def say_left_out(self, name: str, reason: str) -> None:
        """Nothing: it is in every run, backprop's among them."""

    def say_first(self, module: TaskModule, values: Mapping[str, float]) -> None:
        """Say what the numbers say."""
        log.info(verdict(list(values.values())))

    @property
    def facts(self) -> dict[str, Any]:
        """The numbers of all blocks, as last measured; none before that."""
        last = self.rows[-1] if self.rows else {}
        return {"nonlinearity": [value for key, value in last.items() if key.startswith("nonlinearity/")]}


def verdict(numbers: list[float]) -> str:
    """In words, what the numbers of all blocks say."""
    if max(numbers) < NOTHING:
        return (
            "Targets are linear in the output's error, as in backprop with other weights: no activation is evaluated "
            "at a target, and beta is a second name for the learning rate."
        )
    shown = ", ".join(f"{each:.3f}" for each in numbers)
    return f"How far targets are from linear in the output's error, block by block: {shown}."
