"""Examples that are no images as bytes: inputs of any shape, with labels, or with numbers to be met."""

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
        inputs: float32 (N, ...).
        targets: labels, int64 (N,), each in 0..len(classes)-1; or numbers to be met, float32 (N, outputs).
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
        require(inputs.dtype == torch.float32, "inputs", "dtype torch.float32", inputs.dtype)
        filled = inputs.ndim >= 2 and inputs.numel() > 0
        require(filled, "inputs", "shape (N, ...), each 1 or more", tuple(inputs.shape))
        if self.classes is None:
            require(targets.dtype == torch.float32, "targets", "dtype torch.float32", targets.dtype)
            paired = targets.ndim == 2 and len(targets) == count and targets.shape[1] > 0
            require(paired, "targets", f"shape ({count}, outputs)", tuple(targets.shape))
            return
        require(targets.dtype == torch.int64, "targets", "dtype torch.int64", targets.dtype)
        require(targets.shape == (count,), "targets", f"shape ({count},)", tuple(targets.shape))
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

    Raises:
        UserError: the test examples are of another shape, or with other targets.
    """

    train: Examples
    test: Examples | None = None

    def __post_init__(self) -> None:
        if self.test is None:
            return
        expected = f"inputs of {self.train.shape}, as those for training"
        require(self.test.shape == self.train.shape, "test", expected, self.test.shape)
        same = self.test.classes == self.train.classes and self.test.targets.shape[1:] == self.train.targets.shape[1:]
        require(same, "test", f"targets as those for training {_described(self.train)}", _described(self.test))


def _described(examples: Examples) -> str:
    if examples.classes is not None:
        return f"({len(examples.classes)} classes)"
    return f"({examples.targets.shape[1]} numbers each)"
