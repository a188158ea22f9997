"""Noise that a test gives a loss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from targetprop.noise import Kind


@dataclass(frozen=True)
class Drawn:
    """A function of kind and tensor as the noise of one update: a `Draw`."""

    of: Callable[[Kind, Tensor], Tensor]
    sigma: float = 1.0

    def __call__(self, kind: Kind, like: Tensor) -> Tensor:
        return self.of(kind, like)
