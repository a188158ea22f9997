"""Data sets of the user's own: any map-style Dataset of pairs, read once and held whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset, default_collate

from targetprop.data.examples import Examples, ExampleSplits
from targetprop.utils.errors import UserError
from targetprop.utils.text import shown

PAIR = "pairs of an input and a target"
WHOLE = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def read(given: Any, classes: int | Sequence[str] | None = None) -> ExampleSplits:
    """A Dataset for training, or it and one for testing, as tensors.

    Every example is read once, in order: transformations of the data set that draw random numbers would be drawn once
    for all epochs, and are refused where two readings of an example differ.

    Args:
        given: a map-style Dataset, or a DataLoader of one; or a pair of them, the second of which (or None) is for
            testing. Examples are pairs: an input, a float tensor of any one shape, or a vector of tokens, whole
            numbers from 0 on; and a label, a whole number from 0 on, or one for every place of a sequence, or a float,
            or a vector of floats, to be met.
        classes: how many there are, or their names; None counts them by the largest label of the training set.

    Raises:
        UserError: the examples are none of these, or do not fit each other; says which one.
    """
    train, test = given if isinstance(given, tuple | list) and len(given) == 2 else (given, None)
    first = _Reader(train, "the training set").tensors()
    second = None if test is None else _Reader(test, "the test set").tensors()
    names = _names(first[1], classes)
    if names is not None:
        _check_range(first[1], "the training set", names)
        if second is not None:
            _check_range(second[1], "the test set", names)
    return ExampleSplits(Examples(*first, names), None if second is None else Examples(*second, names))


class _Reader:
    """Reads one data set.

    Args:
        given: what the user gave.
        where: what to call it in messages.
    """

    def __init__(self, given: Any, where: str) -> None:
        self.where = where
        if isinstance(given, DataLoader):
            if given.collate_fn is not default_collate:
                raise self._refused("its data set itself: the DataLoader's own collate_fn would not be used", "one")
            given = given.dataset
        if isinstance(given, IterableDataset) or not (hasattr(given, "__getitem__") and hasattr(given, "__len__")):
            expected = "a Dataset with a length, whose examples have numbers (map-style), or a DataLoader of one"
            raise self._refused(expected, type(given).__name__)
        self.dataset: Dataset[Any] = given
        self.count = len(given)
        if not self.count:
            raise self._refused("one example or more", "none")

    def tensors(self) -> tuple[Tensor, Tensor]:
        """Inputs, float32 (N, ...) or int64 (N, time); targets, int64 (N,) or (N, time), or float32 (N, outputs)."""
        if isinstance(self.dataset, TensorDataset) and len(self.dataset.tensors) == 2:
            inputs, targets = self.dataset.tensors
            self._pair(0)
        else:
            pairs = [self._like(self._pair(number), number) for number in range(self.count)]
            inputs, targets = (torch.stack(each) for each in zip(*pairs, strict=True))
            self._refuse_random(inputs, targets)
        inputs, targets = inputs.detach().cpu(), targets.detach().cpu()
        inputs = inputs.float() if inputs.is_floating_point() else inputs.long()
        targets = targets.long() if not targets.is_floating_point() else targets.float().reshape(self.count, -1)
        for what, values in (("input", inputs), ("target", targets)):
            bad = (~values.isfinite()).reshape(self.count, -1).any(1).nonzero()
            if len(bad):
                raise self._refused("finite numbers", f"others in the {what} of example {int(bad[0])}")
        return inputs, targets

    def _pair(self, number: int) -> tuple[Tensor, Tensor]:
        """Input and target of one example, as they are."""
        try:
            example = self.dataset[number]
        except Exception as error:  # whatever the user's code raises
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise UserError(f"{self.where}: example {number} cannot be read ({reason})") from error
        if not (isinstance(example, tuple | list) and len(example) == 2):
            raise self._refused(PAIR, f"{type(example).__name__} as example {number}")
        x, y = (self._tensor(each, number) for each in example)
        if x.ndim == 0 or not (x.is_floating_point() or (x.dtype in WHOLE and x.ndim == 1)):
            expected = "inputs that are vectors of tokens, or float tensors of one dimension or more"
            raise self._refused(expected, f"{_said(x)} as that of example {number}")
        labelled = y.dtype in WHOLE and y.shape in ((), x.shape[:1])
        if not (labelled or (y.is_floating_point() and y.ndim <= 1 and y.numel())):
            expected = (
                "targets that are a whole number, one for every place of a sequence, a float, or a vector of floats"
            )
            raise self._refused(expected, f"{_said(y)} as that of example {number}")
        return x, y

    def _tensor(self, value: Any, number: int) -> Tensor:
        if isinstance(value, Tensor):
            return value
        if isinstance(value, bool | str | bytes) or not isinstance(value, int | float | np.ndarray | np.generic | list):
            raise self._refused(f"{PAIR} as tensors, arrays or numbers", f"{shown(value)} in example {number}")
        try:
            made = torch.as_tensor(value)
        except (TypeError, ValueError, RuntimeError) as error:
            raise self._refused(f"{PAIR} as tensors, arrays or numbers", f"{shown(value)} in {number}") from error
        return made

    def _like(self, pair: tuple[Tensor, Tensor], number: int) -> tuple[Tensor, Tensor]:
        """The pair, if it is as the first one is."""
        if number == 0:
            self._first = pair
        for what, each, first in zip(("inputs", "targets"), pair, self._first, strict=True):
            if each.shape != first.shape or each.is_floating_point() != first.is_floating_point():
                expected = f"{what} as that of example 0, {_said(first)}"
                raise self._refused(expected, f"{_said(each)} as that of example {number}")
        return pair

    def _refuse_random(self, inputs: Tensor, targets: Tensor) -> None:
        for number in {0, self.count - 1}:
            again = self._pair(number)
            if not (torch.equal(again[0], inputs[number]) and torch.equal(again[1], targets[number])):
                raise self._refused(
                    "examples that are the same whenever they are read, since they are read once for all epochs",
                    f"another example {number} at the second reading (a random transformation?)",
                )

    def _refused(self, expected: str, found: str) -> UserError:
        return UserError(f"{self.where}: expected {expected}, got {found}")


def _said(value: Tensor) -> str:
    """A tensor by its type and shape, a scalar by itself."""
    kind = str(value.dtype).removeprefix("torch.")
    return f"{kind} {value.item()}" if value.ndim == 0 else f"{kind} of shape {tuple(value.shape)}"


def _names(labels: Tensor, classes: int | Sequence[str] | None) -> tuple[str, ...] | None:
    """The names of the classes; None if targets are numbers to be met."""
    if labels.is_floating_point():
        if classes is not None:
            raise UserError("the targets are floats, which are no labels; set it to null.", key="classes")
        return None
    if isinstance(classes, Sequence):
        return tuple(map(str, classes))
    count = int(labels.max()) + 1 if classes is None else classes
    if classes is None and count > labels.numel():
        raise UserError(
            f"the training set: expected labels numbered from 0 on, got {count - 1} among {len(labels)} examples; "
            "renumber them, or say how many classes there are (classes).",
        )
    return tuple(str(number) for number in range(count))


def _check_range(labels: Tensor, where: str, names: tuple[str, ...]) -> None:
    whole = not labels.is_floating_point()
    outside = ((labels < 0) | (labels >= len(names))).nonzero() if whole else torch.zeros(1, 1, dtype=torch.long)
    if len(outside):
        number = int(outside[0])
        found = f"{labels[number].tolist()} in example {number}"
        raise UserError(f"{where}: expected labels in 0..{len(names) - 1}, got {found}")
