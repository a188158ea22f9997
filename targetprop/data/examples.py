"""Examples that are no images as bytes: vectors of any shape, or tokens, with labels, or with numbers to be met."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from targetprop.utils.errors import require


# eq=False: comparing tensors element by element has no single truth value.
@dataclass(frozen=True, eq=False)
class Examples:
    """N >= 1 examples with inputs of one shape.

    Args:
        inputs: float32 (N, ...); or tokens, int64 (N, time), none below 0.
        targets: labels, int64, each in 0..len(classes)-1: one of every example (N,), or one of every place of its
            sequence (N, time); or numbers to be met, float32 (N, outputs).
        classes: the names of the classes; None for numbers to be met.

    Raises:
        UserError: the tensors do not fit this description.
    """

    inputs: Tensor
    targets: Tensor
    classes: tuple[str, ...] | None = None
    noun: ClassVar[str] = "examples"

    def __post_init__(self) -> None:
        inputs, targets, count = self.inputs, self.targets, len(self.inputs)
        known = inputs.dtype in (torch.float32, torch.int64)
        require(known, "inputs", "dtype torch.float32, or torch.int64 for tokens", inputs.dtype)
        filled = inputs.ndim >= 2 and inputs.numel() > 0
        require(filled, "inputs", "shape (N, ...), each 1 or more", tuple(inputs.shape))
        if inputs.dtype == torch.int64:
            require(inputs.ndim == 2, "inputs", "tokens of shape (N, time)", tuple(inputs.shape))
            require(int(inputs.min()) >= 0, "inputs", "tokens, 0 or more", int(inputs.min()))
        if self.classes is None:
            require(targets.dtype == torch.float32, "targets", "dtype torch.float32", targets.dtype)
            paired = targets.ndim == 2 and len(targets) == count and targets.shape[1] > 0
            require(paired, "targets", f"shape ({count}, outputs)", tuple(targets.shape))
            return
        require(targets.dtype == torch.int64, "targets", "dtype torch.int64", targets.dtype)
        one_each = targets.shape == (count,) or targets.shape == inputs.shape[:2]
        expected = f"shape ({count},), or {tuple(inputs.shape[:2])} for a label of every place"
        require(one_each, "targets", expected, tuple(targets.shape))
        low, high = (int(bound) for bound in torch.aminmax(targets))
        last = len(self.classes) - 1
        require(low >= 0 and high <= last, "targets", f"labels in 0..{last}", f"{low}..{high}")

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of every input."""
        return tuple(self.inputs.shape[1:])

    @property
    def device(self) -> torch.device:
        """Where the examples are."""
        return self.inputs.device

    def take(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs and targets at `indices` (int64 (M,), on the same device), copied, in that order."""
        return self.inputs.index_select(0, indices), self.targets[indices]

    def to(self, device: torch.device | str) -> Examples:
        """The same examples on `device`; nothing is copied if they are there already."""
        return Examples(self.inputs.to(device), self.targets.to(device), self.classes)


@dataclass(frozen=True)
class ExampleSplits:
    """What may be learned from, and, if there is one, a set that is held back for the final test.

    Attributes:
        note: what is to be said beside every result on it, such as files that are not the published ones.

    Raises:
        UserError: the test examples are of another shape, or with other targets.
    """

    train: Examples
    test: Examples | None = None
    note: str = ""

    def __post_init__(self) -> None:
        if self.test is None:
            return
        expected = f"inputs of {self.train.shape}, as those for training"
        require(self.test.shape == self.train.shape, "test", expected, self.test.shape)
        same = self.test.classes == self.train.classes and self.test.targets.shape[1:] == self.train.targets.shape[1:]
        require(same, "test", f"targets as those for training {_described(self.train)}", _described(self.test))
        dtype = self.train.inputs.dtype
        require(self.test.inputs.dtype == dtype, "test", f"{dtype}, as for training", self.test.inputs.dtype)


def _described(examples: Examples) -> str:
    if examples.classes is not None:
        places = f", {examples.targets.shape[1]} labels each" if examples.targets.ndim > 1 else ""
        return f"({len(examples.classes)} classes{places})"
    return f"({examples.targets.shape[1]} numbers each)"
