"""Sizes of the published data sets, by which a run is measured before one of them is read."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, NamedTuple

from targetprop.data import teacher


class Size(NamedTuple):
    """What examples there are.

    Attributes:
        shape: of an input; of an image (channels, height, width).
        classes: how many, or how many numbers are to be met.
        images: of the training set.
        tests: of the test set.
        fixed: whether files with images of another size are none of this data set.
    """

    shape: tuple[int, ...]
    classes: int
    images: int
    tests: int
    fixed: bool = True


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
    if target == f"{teacher.load.__module__}.load":
        given = {name: each.default for name, each in inspect.signature(teacher.load).parameters.items()} | dict(load)
        return Size((given["inputs"],), given["outputs"], given["train"], given["test"])
    return SIZES.get(target)
