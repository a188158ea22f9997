"""Examples out of files, as the data set of a run has them: PNG and JPEG, and arrays of NumPy."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from targetprop.app.described import Described
from targetprop.utils.errors import UserError

SUFFIXES = (".png", ".jpg", ".jpeg", ".npy")
MODES = {1: "L", 3: "RGB"}
"""Of Pillow, by the number of channels."""
DEEP = ("I", "F")
"""How Pillow's names of modes with more than 8 bits for each channel begin."""


class Examples(NamedTuple):
    """Some examples.

    Attributes:
        names: of each, to be told apart by.
        values: (batch, ...).
    """

    names: list[str]
    values: Tensor


def read(paths: list[Path], data: Described, *, resize: bool = False) -> Examples:
    """The examples in files, and in the files of folders, in their order.

    Args:
        data: that the examples have to be like.
        resize: whether images of another size are scaled to the one of the run.

    Raises:
        UserError: a file cannot be read, or what it holds is no such example.
    """
    names: list[str] = []
    parts: list[Tensor] = []
    for path in _files(paths):
        found = _array(path, data) if path.suffix.lower() == ".npy" else _image(path, data, resize)
        parts.append(found)
        names += [str(path)] if len(found) == 1 else [f"{path}[{number}]" for number in range(len(found))]
    return Examples(names, torch.cat(parts))


def _files(paths: list[Path]) -> Iterator[Path]:
    for path in paths:
        if not path.is_dir():
            yield path
            continue
        inside = sorted(each for each in path.iterdir() if each.suffix.lower() in SUFFIXES)
        if not inside:
            raise UserError(f"expected files {', '.join(SUFFIXES)}, got a folder without one", key=str(path))
        yield from inside


def _image(path: Path, data: Described, resize: bool) -> Tensor:
    """One image, (1, channels, height, width), uint8."""
    key = str(path)
    if not data.is_images or data.shape[0] not in MODES:
        raise UserError(f"expected an array of NumPy (.npy), as inputs of this run are {data.shape}", key=key)
    channels, height, width = data.shape
    try:
        with Image.open(path) as file:
            if file.mode.startswith(DEEP):
                raise UserError(f"expected 8 bits for each channel, got Pillow's mode {file.mode}", key=key)
            image = ImageOps.exif_transpose(file).convert(MODES[channels])
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise UserError(f"expected an image or an array (.npy), which this is not: {reason}", key=key) from None
    if image.size != (width, height):
        if not resize:
            found = f"{image.width}x{image.height}; --resize scales it"
            raise UserError(f"expected an image of {width}x{height} pixels, got {found}", key=key)
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    pixels = torch.from_numpy(np.array(image))
    return pixels.view(1, height, width, channels).permute(0, 3, 1, 2).contiguous()


def _array(path: Path, data: Described) -> Tensor:
    """The examples in an array, (batch, ...): one of them, or several along a first dimension."""
    key = str(path)
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise UserError(f"expected an array of NumPy, which this is not: {reason}", key=key) from None
    if not _fits(array, data):
        numbers = array.dtype.kind in "iu" and data.vocabulary is not None and array.size
        found = f"{array.dtype} of {array.min()} to {array.max()}" if numbers else str(array.dtype)
        raise UserError(f"expected {data.kind}, got {found}", key=key)
    dtype = np.dtype(np.int64) if data.vocabulary is not None else array.dtype.newbyteorder("=")
    values = torch.from_numpy(array.astype(dtype, copy=True))
    for shape in _layouts(data):
        if tuple(values.shape) == shape:
            values = values.unsqueeze(0)
        if tuple(values.shape[1:]) == shape and values.ndim == len(shape) + 1 and len(values):
            return _channels_first(values, shape, data)
    raise UserError(f"expected one example of {data.shape}, or several, got an array of {array.shape}", key=key)


def _fits(array: np.ndarray, data: Described) -> bool:
    """Whether an array is of such numbers as examples are made of."""
    if data.is_images:
        return array.dtype == np.uint8
    if data.vocabulary is None:
        return np.issubdtype(array.dtype, np.floating)
    return array.dtype.kind in "iu" and bool(((array >= 0) & (array < data.vocabulary)).all())


def _layouts(data: Described) -> list[tuple[int, ...]]:
    """Shapes in which one example may come: of an image also with its channels last, or without its only one."""
    if not data.is_images:
        return [data.shape]
    channels, height, width = data.shape
    return [data.shape, (height, width, channels), *([(height, width)] if channels == 1 else [])]


def _channels_first(values: Tensor, shape: tuple[int, ...], data: Described) -> Tensor:
    if shape == data.shape:
        return values
    return values.permute(0, 3, 1, 2).contiguous() if len(shape) == 3 else values.unsqueeze(1)
