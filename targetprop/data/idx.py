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

from targetprop.data.archive import GZIP, MOST
from targetprop.data.files import CHUNK, Stream
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
        UserError: the file holds something else or more than `MOST` bytes, is truncated, or is longer than it says;
            names the file.
    """
    try:
        with path.open("rb") as file:
            packed = file.read(len(GZIP)) == GZIP
        with gzip.open(path) if packed else path.open("rb") as stream:
            return _read(stream, dimensions)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise UserError(
            f"{path}: not a readable IDX file ({error}). Replace it by a complete copy of the published file."
        ) from error


def _read(stream: Stream, dimensions: int) -> NDArray[np.uint8]:
    """The array in an unpacked file; takes no more memory than the file says it has, nor than it really has."""
    header = stream.read(4 + 4 * dimensions)
    if header[:4] != bytes([0, 0, 8, dimensions]) or len(header) < 4 + 4 * dimensions:
        raise ValueError(f"it does not begin as a uint8 array with {dimensions} dimensions")
    shape = struct.unpack(f">{dimensions}I", header[4:])
    if math.prod(max(1, size) for size in shape) > MOST:
        raise ValueError(f"it announces {shape}, and at most {MOST:,} bytes are read")
    size, content = math.prod(shape), bytearray()
    while len(content) <= size and (chunk := stream.read(min(CHUNK, size + 1 - len(content)))):
        content += chunk
    if len(content) != size:
        raise ValueError(
            f"it announces {shape} and goes on with {len(content)} bytes{' or more' * (len(content) > size)}"
        )
    return np.frombuffer(content, np.uint8).reshape(shape)  # of a bytearray, since torch wants to write


def load_splits(files: Mapping[str, Path], classes: tuple[str, ...]) -> Splits:
    """Training and test images, uint8 (N, 1, H, W), from the four `FILES`.

    Args:
        files: where each file is, by its published name.
        classes: the names of the classes.

    Raises:
        UserError: images and labels do not fit each other, or the classes, or the test images those for training.
    """
    images, labels, test_images, test_labels = (files[name] for name in FILES)
    train, test = _load_images(images, labels, classes), _load_images(test_images, test_labels, classes)
    try:
        return Splits(train, test)
    except UserError as error:
        raise UserError(f"{images} and {test_images.name} do not fit: {error}") from None


def _load_images(images: Path, labels: Path, classes: tuple[str, ...]) -> Images:
    pixels, classed = (torch.from_numpy(load_idx(path, size)) for path, size in ((images, 3), (labels, 1)))
    try:
        return Images(pixels.unsqueeze(1), classed.long(), classes)
    except UserError as error:
        raise UserError(f"{images} and {labels.name} do not fit: {error}") from None
