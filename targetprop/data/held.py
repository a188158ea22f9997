"""What a set of examples must be so that batches of it can be made, and a part of one, without a copy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch
from torch import Tensor

Self = TypeVar("Self")


class Held(Protocol):
    """N >= 1 examples held whole on one device, each an input and a target."""

    @property
    def noun(self) -> str:
        """What its examples are called in messages."""

    @property
    def inputs(self) -> Tensor:
        """As they are held, (N, ...)."""

    @property
    def targets(self) -> Tensor:
        """Labels, int64 (N,) or (N, time), or numbers to be met, float32 (N, outputs)."""

    @property
    def classes(self) -> tuple[str, ...] | None:
        """The names of the classes in the order of the labels; None if targets are numbers to be met."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of every input."""

    @property
    def device(self) -> torch.device:
        """Where the examples are."""

    def __len__(self) -> int: ...

    def take(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs and targets at `indices` (int64 (M,), on the same device), copied, in that order."""

    def to(self: Self, device: torch.device | str) -> Self:
        """The same examples on `device`; nothing is copied if they are there already."""


@dataclass(frozen=True, eq=False)
class Selection:
    """Some examples of a set, which stay where they are: a copy would be of gigabytes that are mapped from a file.

    Args:
        whole: the set.
        indices: which of its examples, int64 (M,), M >= 1, on the set's device.
    """

    whole: Held
    indices: Tensor

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def noun(self) -> str:
        """What its examples are called in messages."""
        return self.whole.noun

    @property
    def inputs(self) -> Tensor:
        """(M, ...), copied by every call."""
        return self.whole.inputs[self.indices]

    @property
    def targets(self) -> Tensor:
        """(M,), (M, time) or (M, outputs), copied by every call."""
        return self.whole.targets[self.indices]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of every input."""
        return self.whole.shape

    @property
    def device(self) -> torch.device:
        """Where the examples are."""
        return self.whole.device

    def take(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs and targets at `indices` of the selection, as `Held.take`."""
        return self.whole.take(self.indices[indices])
