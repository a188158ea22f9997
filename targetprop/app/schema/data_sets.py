"""Sizes of the published data sets, by which a run is measured before one of them is read."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch

from targetprop.data import adding, copying, sequential, teacher, tiny_shakespeare


class Size(NamedTuple):
    """What examples there are.

    Attributes:
        shape: of an input; of an image (channels, height, width).
        classes: how many, or how many numbers are to be met.
        images: of the training set.
        tests: of the test set.
        fixed: whether files with images of another size are none of this data set.
        vocabulary: how many different tokens inputs are made of; None of others.
        places: how many labels an example has, if it has one for every place of its sequence.
    """

    shape: tuple[int, ...]
    classes: int
    images: int
    tests: int
    fixed: bool = True
    vocabulary: int | None = None
    places: int | None = None

    @property
    def dtype(self) -> torch.dtype:
        """Of inputs."""
        return torch.float32 if self.vocabulary is None else torch.int64

    @property
    def facts(self) -> dict[str, int | None]:
        """What a network may ask for by name."""
        return {"vocabulary": self.vocabulary, "places": self.places}


SIZES: Mapping[str, Size] = {
    "targetprop.data.digits.load": Size((1, 8, 8), 10, 1438, 359),
    "targetprop.data.mnist.load": Size((1, 28, 28), 10, 60_000, 10_000, fixed=False),
    "targetprop.data.fashion_mnist.load": Size((1, 28, 28), 10, 60_000, 10_000, fixed=False),
    "targetprop.data.cifar10.load": Size((3, 32, 32), 10, 50_000, 10_000),
    "targetprop.data.cifar100.load": Size((3, 32, 32), 100, 50_000, 10_000),
    "targetprop.data.svhn.load": Size((3, 32, 32), 10, 73_257, 26_032),
    "targetprop.data.tiny_imagenet.load": Size((3, 64, 64), 200, 100_000, 10_000, fixed=False),
    "targetprop.data.imagenet32.load": Size((3, 32, 32), 1000, 1_281_167, 50_000, fixed=False),
}
"""By the import path of what reads them."""


def size_of(datamodule: Mapping[str, Any]) -> Size | None:
    """The size of the data set that a section of the configuration names; None if nothing is known of it yet."""
    load = datamodule.get("load") or {}
    target = str(load.get("_target_"))
    if target in MADE:
        make, size = MADE[target]
        return size({name: each.default for name, each in inspect.signature(make).parameters.items()} | dict(load))
    return SIZES.get(target)


def _of_teacher(given: Mapping[str, Any]) -> Size:
    return Size((given["inputs"],), given["outputs"], given["train"], given["test"])


def _of_adding(given: Mapping[str, Any]) -> Size:
    return Size((given["length"], 2), 1, given["train"], given["test"])


def _of_copying(given: Mapping[str, Any]) -> Size:
    time, tokens = given["wait"] + 2 * given["copied"], given["symbols"] + 2
    return Size((time,), tokens, given["train"], given["test"], True, tokens, time)


def _of_text(given: Mapping[str, Any]) -> Size:
    length = given["length"]
    return Size((length,), 65, 1_003_854 // length, 111_538 // length, False, 65, length)


def _of_sequences(given: Mapping[str, Any]) -> Size | None:
    images = SIZES.get(f"targetprop.data.{given['images']}.load")
    if images is None:
        return None
    _, rows, columns = images.shape
    return images._replace(shape=(rows, columns) if given["by"] == "rows" else (rows * columns, 1))


MADE: Mapping[str, tuple[Callable[..., Any], Callable[[Mapping[str, Any]], Size | None]]] = {
    f"{make.__module__}.load": (make, size)
    for make, size in (
        (teacher.load, _of_teacher),
        (adding.load, _of_adding),
        (copying.load, _of_copying),
        (tiny_shakespeare.load, _of_text),
        (sequential.load, _of_sequences),
    )
}
"""What makes data sets whose size is a matter of settings, by import path; and their size by its arguments."""
