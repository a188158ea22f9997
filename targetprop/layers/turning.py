"""Matched feedback of activations that turn: they fall to one minimum and rise from there, as GELU, SiLU and Mish.

An output does not tell the slope of such an activation, since on either side of the minimum there is an input that
gives it. But which side a unit was on in the clean pass is as discrete as the index of a maximum. Given that, the
output does tell the slope, and there is a function of y whose derivative at y = act(u) is act'(u):

    a(y) = integral of act'(u)^2 du, from the minimum to the u on this side with act(u) = y.

It has no closed form, so it is a table over the root of y - min act, in which it is smooth. Below the minimum of the
activation it is constant, and so it is on the falling side where the activation ends.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

REACH = 40.0
"""Inputs from -REACH to REACH are in the table: from there on the activations here are linear to rounding."""
STEPS = 400_001
"""Of the integration."""
ENTRIES = 16384
"""Of each side of the table."""
HIGHEST = 16.0
"""Outputs up to here are in the table; above, the function goes on in a straight line."""


@dataclass(frozen=True)
class Turning:
    """The function a of one activation, for both sides of its minimum.

    Attributes:
        turn: the input at which the activation is least.
        least: its value there.
        width: of an entry, in roots of y - least.
        table: a at the entries, float64: of the rising side, and behind it of the falling one.
    """

    turn: float
    least: float
    width: float
    table: Tensor
    _copies: dict[tuple[torch.device, torch.dtype], Tensor] = field(default_factory=dict, compare=False)

    def between(self, y: Tensor, difference: Tensor, falling: Tensor) -> Tensor:
        """a(y + difference) - a(y).

        Args:
            falling: whether a unit was on the falling side in the clean pass.
        """
        table = self._table_for(y)
        start = falling.long() * (ENTRIES + 1)
        return self._at(table, y + difference, start, falling) - self._at(table, y, start, falling)

    def _table_for(self, y: Tensor) -> Tensor:
        """The table in the type and on the device of y, kept: a CUDA graph may copy nothing from the host."""
        key = (y.device, y.dtype)
        if key not in self._copies:
            self._copies[key] = self.table.to(y)
        return self._copies[key]

    def _at(self, table: Tensor, y: Tensor, start: Tensor, falling: Tensor) -> Tensor:
        above = (y - self.least).clamp_min(0)
        place = (above.sqrt() / self.width).clamp_max(ENTRIES * (1 - torch.finfo(y.dtype).eps))
        entry = place.long()
        share, entry = place - entry, entry + start
        beyond = (y - HIGHEST).clamp_min(0).masked_fill(falling, 0)
        return torch.lerp(table[entry], table[entry + 1], share) + beyond


def turning(activation: Callable[[Tensor], Tensor], slope: Callable[[Tensor], Tensor]) -> Turning:
    """The table of an activation, by integration in float64."""
    u = torch.linspace(-REACH, REACH, STEPS, dtype=torch.float64)
    y, power = activation(u).numpy(), slope(u).square().numpy()
    place = int(y.argmin())
    whole = np.concatenate(([0.0], np.cumsum((power[1:] + power[:-1]) / 2))) * (2 * REACH / (STEPS - 1))
    whole -= whole[place]
    least = float(y[place])
    width = float(np.sqrt(HIGHEST - least)) / ENTRIES
    outputs = least + (width * np.arange(ENTRIES + 1)) ** 2
    rising = np.interp(outputs, y[place:], whole[place:])
    falling = np.interp(outputs, y[place::-1], whole[place::-1])
    return Turning(float(u[place]), least, width, torch.from_numpy(np.concatenate((rising, falling, falling[-1:]))))
