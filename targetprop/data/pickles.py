"""Reading the pickled batch files of CIFAR and ImageNet32 without trusting them.

A pickle is a program. NumPy's own array reconstruction is no safe part of it either: a forged dtype state can
make NumPy take raw bytes for object pointers. So nothing of NumPy is handed to the pickle: its names are resolved to
inert records, which become arrays only after the file has been read, and only if they hold plain numbers.
"""

from __future__ import annotations

import math
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from targetprop.utils.errors import UserError


class _DType:
    """A pickled dtype, such as "u1", and its byte order."""

    def __init__(self, code: str, *_: object) -> None:
        self.code = code
        self.order = "|"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = state[1]

    def build(self) -> np.dtype[Any]:
        name = f"{self.order}{self.code}"
        if not re.fullmatch(r"[|=<>][biuf]\d+", name):
            raise ValueError(f"an array of dtype {name!r}, which is not one of plain numbers")
        return np.dtype(name)


class _Array:
    """A pickled array: its state as NumPy writes it, (version, shape, dtype, Fortran order?, content)."""

    def __init__(self, *_: object) -> None:
        self.state: tuple[Any, ...] = ()

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.state = state

    def build(self) -> NDArray[Any]:
        _, shape, dtype, fortran, content = self.state
        if isinstance(content, str):  # the bytes of a Python 2 pickle
            content = content.encode("latin1")
        return np.frombuffer(content, dtype.build()).reshape(shape, order="F" if fortran else "C")


# Besides the records above only what a pickle can neither alter nor misuse: a text, and a method written in C.
_RESOLVED: dict[str, Any] = {
    "numpy.core.multiarray._reconstruct": _Array,
    "numpy._core.multiarray._reconstruct": _Array,
    "numpy.ndarray": "numpy.ndarray",
    "numpy.dtype": _DType,
    "_codecs.encode": str.encode,  # how Python 3 writes bytes into a protocol 2 pickle
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        wanted = f"{module}.{name}"
        if wanted not in _RESOLVED:
            raise pickle.UnpicklingError(f"it asks for {wanted}, and only NumPy arrays are read")
        return _RESOLVED[wanted]


def _plain(value: object) -> object:
    """`value` with its arrays built and its byte strings as text; anything that is not plain data is refused."""
    if isinstance(value, _Array):
        return value.build()
    if isinstance(value, bytes):
        return value.decode("latin1")
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, str | int | float):
        return value
    raise ValueError(f"it holds a {type(value).__name__}")


def load_arrays(path: Path) -> dict[str, object]:
    """The dictionary pickled in `path`: keys are str, values arrays (read-only), text, numbers or lists of these.

    Text written by Python 2, or as bytes by Python 3, comes out as str (latin1). Code that the pickle asks for never
    runs.

    Raises:
        UserError: the file is truncated, holds something else, or asks for anything but arrays; names the file.
    """
    try:
        with path.open("rb") as file:
            content = _Unpickler(file, encoding="latin1").load()
        if not isinstance(content, dict):
            raise ValueError(f"it holds a {type(content).__name__}, not a dictionary")
        return {str(_plain(key)): _plain(value) for key, value in content.items()}
    except Exception as error:  # a broken pickle may raise anything
        raise UserError(
            f"{path}: not a readable batch file ({type(error).__name__}: {error}). "
            "Replace it by a complete copy of the published file."
        ) from error


def load_batch(path: Path, shape: tuple[int, ...], labels: range) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The images pickled in `path`, uint8 (N, *shape), and their labels as they are written, int64 (N,), N >= 1.

    Args:
        path: a file that holds rows 'data', each by channel, row and column, and a list 'labels'.
        shape: of one image.
        labels: the range that labels lie in.

    Raises:
        UserError: the file does not hold that, or a label is out of its range.
    """
    content = load_arrays(path)
    rows, given = content.get("data"), content.get("labels")
    columns = math.prod(shape)
    if not (isinstance(rows, np.ndarray) and rows.dtype == np.uint8 and rows.shape[1:] == (columns,)):
        found = f"{rows.dtype} {rows.shape}" if isinstance(rows, np.ndarray) else type(rows).__name__
        raise UserError(f"{path}: 'data': expected a uint8 array of shape (rows, {columns}), got {found}")
    if not (isinstance(given, list) and len(given) == len(rows) > 0):
        found = f"{len(given)} labels" if isinstance(given, list) else type(given).__name__
        raise UserError(f"{path}: 'labels': expected a list of {len(rows)} labels (1 or more), got {found}")
    misfits = [label for label in given if not (isinstance(label, int) and label in labels)]
    if misfits:
        raise UserError(f"{path}: 'labels': expected whole numbers in {labels[0]}..{labels[-1]}, got {misfits[0]!r}")
    return rows.reshape(-1, *shape), np.array(given, dtype=np.int64)
