"""Reading the IDX files of MNIST and of data sets that took over its format.

Such a file is two zero bytes, a byte for the type (8: uint8), a byte for the number of dimensions, their sizes as
big-endian 4-byte integers, and the numbers, the last dimension fastest; as it is, or compressed by gzip.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from targetprop.data.images import Images, Splits
from targetprop.utils.errors import UserError

FILES = tuple(f"{part}-{kind}-ubyte.gz" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1"))
"""The published names: images and labels for training, images and labels of the test set."""


def load_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """The uint8 array in the IDX file `path`, compressed or not.

    Args:
        path: the file.
        dimensions: how many dimensions the array must have.

    Raises:
        UserError: the file holds something else, is truncated, or is longer than it says; names the file.
    """
    try:
        content = path.read_bytes()
        if content.startswith(b"\x1f\x8b"):
            content = gzip.decompress(content)
        start = 4 + 4 * dimensions
        if content[:4] != bytes([0, 0, 8, dimensions]) or len(content) < start:
            raise ValueError(f"it does not begin as a uint8 array with {dimensions} dimensions")
        shape = struct.unpack(f">{dimensions}I", content[4:start])
        if len(content) - start != math.prod(shape):
            raise ValueError(f"it announces {shape} and goes on with {len(content) - start} bytes")
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise UserError(
            f"{path}: not a readable IDX file ({error}). Replace it by a complete copy of the published file."
        ) from error
    return np.frombuffer(bytearray(content), np.uint8, offset=start).reshape(shape)  # of a copy: torch wants to write


def load_splits(files: Mapping[str, Path], classes: tuple[str, ...]) -> Splits:
    """Training and test images, uint8 (N, 1, H, W), from the four `FILES`.

    Args:
        files: where each file is, by its published name.
        classes: the names of the classes.

    Raises:
        UserError: images and labels do not fit each other, or the classes.
    """
    images, labels, test_images, test_labels = (files[name] for name in FILES)
    return Splits(train=_load_images(images, labels, classes), test=_load_images(test_images, test_labels, classes))


def _load_images(images: Path, labels: Path, classes: tuple[str, ...]) -> Images:
    pixels, classed = (torch.from_numpy(load_idx(path, size)) for path, size in ((images, 3), (labels, 1)))
    try:
        return Images(pixels.unsqueeze(1), classed.long(), classes)
    except UserError as error:
        raise UserError(f"{images} and {labels.name} do not fit: {error}") from None
