"""Images read as sequences: pixel by pixel, or row by row (Le et al. 2015, https://arxiv.org/abs/1504.00941)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from targetprop.data import digits, fashion_mnist, mnist
from targetprop.data.examples import Examples, ExampleSplits
from targetprop.data.images import Images, Splits
from targetprop.data.keyed import Stream, keyed_generator
from targetprop.utils.errors import require, require_whole, unknown

IMAGES: Mapping[str, Callable[[Path | str, bool], Splits]] = {
    "digits": digits.load,
    "mnist": mnist.load,
    "fashion_mnist": fashion_mnist.load,
}
"""Data sets of grey images, by name."""
READINGS = ("pixels", "rows")


def load(
    data_dir: Path | str,
    download: bool = True,
    *,
    images: str = "mnist",
    by: str = "pixels",
    permuted: bool = False,
    seed: int = 0,
) -> ExampleSplits:
    """Grey images as sequences, float32 (N, time, features), with the labels of the images.

    Brightness is standardised with mean and standard deviation over all pixels of the training images.

    Args:
        data_dir: the directory that holds the data sets.
        download: whether missing files are downloaded.
        images: which ones.
        by: "pixels", one after the other, one feature each; or "rows", whose pixels are the features.
        permuted: whether pixels are first put in another order, by `seed`, the same for all images.
        seed: of that order.

    Raises:
        UserError: a value does not fit, or files are missing.
    """
    if images not in IMAGES:
        raise unknown("images", images, IMAGES)
    if by not in READINGS:
        raise unknown("by", by, READINGS)
    require(isinstance(permuted, bool), "permuted", "true or false", permuted)
    require_whole("seed", seed, least=0)
    splits = IMAGES[images](data_dir, download)
    rows, columns = splits.train.image_shape[1:]
    order = torch.randperm(rows * columns, generator=keyed_generator(seed, Stream.SEQUENCES, 2)) if permuted else None
    std, mean = torch.std_mean(splits.train.pixels.double(), correction=0)
    shape = (rows * columns, 1) if by == "pixels" else (rows, columns)

    def read(part: Images) -> Examples:
        pixels = ((part.pixels.flatten(1) - mean) / std).float()
        return Examples(_ordered(pixels, order).view(-1, *shape), part.labels, part.classes)

    return ExampleSplits(read(splits.train), read(splits.test), splits.note)


def _ordered(pixels: Tensor, order: Tensor | None) -> Tensor:
    return pixels if order is None else pixels[:, order]
