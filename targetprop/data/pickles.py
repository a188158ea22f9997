"""Reading the pickled batch files of CIFAR and ImageNet32 without trusting them.

A pickle is a program. NumPy's own array reconstruction is no safe part of it either: a forged dtype state can
make NumPy take raw bytes for object pointers. So nothing of NumPy is handed to the pickle: its names are resolved to
inert records, which become arrays only after the file has been read, and only if they hold plain numbers.

Nor can a small file take much memory: before anything is built, its instructions are gone through (`_check`), what is
repeated is made once, and lists that hold one another many times over are not written out.
"""

from __future__ import annotations

import math
import pickle
import pickletools
import re
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from targetprop.data.files import refuse_large
from targetprop.utils.errors import UserError
from targetprop.utils.text import printable, shown

MOST = 2**30
"""Bytes that a file may have where nothing else is said: more than twice those of the largest published one."""
CONTAINERS = {
    "EMPTY_DICT", "DICT", "EMPTY_LIST", "LIST", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "REDUCE",
    "GLOBAL", "STACK_GLOBAL",
}  # fmt: skip
"""Instructions that make objects of many times their own size."""
OTHERS = {
    "NONE", "NEWTRUE", "NEWFALSE", "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
    "STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8",
    "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
    "PROTO", "FRAME", "STOP", "MARK", "POP", "POP_MARK", "APPEND", "APPENDS", "SETITEM", "SETITEMS", "BUILD",
    "GET", "BINGET", "LONG_BINGET", "MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT",
}  # fmt: skip
"""All others that published files, and such as NumPy's users write, are made of."""
MOST_CONTAINERS = 10_000
"""Of them a file may have so many; published ones have some twenty."""


class _Clamped:
    """An open file that is never asked for more than it has, since whoever is asked makes room first."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self.file = file
        self.size = size
        self.tell = file.tell
        self.readline = file.readline

    def read(self, count: int) -> bytes:
        return self.file.read(min(count, self.size))


def _check(file: _Clamped) -> None:
    """Go through a pickle's instructions and refuse what published files do without, or have far less of.

    Raises:
        ValueError: says what.
    """
    containers = numbered = 0
    for instruction, argument, _ in pickletools.genops(file):  # type: ignore[arg-type]
        name = instruction.name
        if name in CONTAINERS:
            containers += 1
            if containers > MOST_CONTAINERS:
                raise ValueError(f"it makes more than {MOST_CONTAINERS:,} objects that are no plain values")
        elif name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            numbered += 1
            if int(argument or 0) > 2 * numbered + 1000:  # a table is made up to that number
                raise ValueError(f"it numbers a value by {argument}")
        elif name not in OTHERS:
            raise ValueError(f"it asks for {name}, and only arrays, lists and plain values are read")


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
        if isinstance(content, _Encoded):
            content = content.build()
        if isinstance(content, str):  # the bytes of a Python 2 pickle
            content = content.encode("latin1")
        return np.frombuffer(content, dtype.build()).reshape(shape, order="F" if fortran else "C")


class _Encoded:
    """Bytes as Python 3 writes them into a pickle of protocol 2: a text, and how it becomes bytes."""

    def __init__(self, text: str = "", encoding: str = "latin1") -> None:
        self.text = text
        self.encoding = encoding

    def __setstate__(self, state: object) -> None:
        raise ValueError("it gives a state to bytes")

    def build(self) -> bytes:
        return self.text.encode(self.encoding)


# The records above, which a pickle can neither alter nor misuse, and a text.
_RESOLVED: dict[str, Any] = {
    "numpy.core.multiarray._reconstruct": _Array,
    "numpy._core.multiarray._reconstruct": _Array,
    "numpy.ndarray": "numpy.ndarray",
    "numpy.dtype": _DType,
    "_codecs.encode": _Encoded,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        wanted = f"{module}.{name}"
        if wanted not in _RESOLVED:
            raise pickle.UnpicklingError(f"it asks for {wanted}, and only NumPy arrays are read")
        return _RESOLVED[wanted]


class _Plain:
    """Makes plain values of what was pickled.

    What is repeated is made once, so that it takes the memory of one. Lists are written out each time, and refused once
    they have more members than the file has bytes.

    Args:
        size: of the file, in bytes.
    """

    def __init__(self, size: int) -> None:
        self._left = size
        self._made: dict[int, object] = {}  # by the identity of values that the pickle's content keeps alive

    def of(self, value: object) -> object:
        """`value` with its arrays built and its byte strings as text; anything that is not plain data is refused."""
        if isinstance(value, list):
            self._left -= len(value)
            if self._left < 0:
                raise ValueError("its lists hold one another more often than the file has bytes")
            return [self.of(item) for item in value]
        if value is None or isinstance(value, str | int | float):
            return value
        if id(value) not in self._made:
            self._made[id(value)] = self._leaf(value)
        return self._made[id(value)]

    def _leaf(self, value: object) -> object:
        if isinstance(value, _Array):
            return value.build()
        if isinstance(value, _Encoded):
            value = value.build()
        if isinstance(value, bytes):
            return value.decode("latin1")
        raise ValueError(f"it holds a {type(value).__name__}")


def load_arrays(path: Path, most: int = MOST) -> dict[str, object]:
    """The dictionary pickled in `path`: keys are str, values arrays (read-only), text, numbers or lists of these.

    Text written by Python 2, or as bytes by Python 3, comes out as str (latin1). Code that the pickle asks for never
    runs.

    Args:
        path: the file.
        most: bytes that it may have.

    Raises:
        UserError: the file is too large, truncated, holds something else, or asks for anything but arrays; names the
            file.
    """
    refuse_large(path, most)
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            _check(_Clamped(file, size))
            file.seek(0)
            content = _Unpickler(_Clamped(file, size), encoding="latin1").load()
        if not isinstance(content, dict):
            raise ValueError(f"it holds a {type(content).__name__}, not a dictionary")
        plain = _Plain(size)
        return {str(plain.of(key)): plain.of(value) for key, value in content.items()}
    except Exception as error:  # a broken pickle may raise anything
        raise UserError(
            f"{path}: not a readable batch file ({type(error).__name__}: {printable(error)}). "
            "Replace it by a complete copy of the published file."
        ) from error


def load_batch(
    path: Path, shape: tuple[int, ...], labels: range, most: int = MOST, key: str = "labels"
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The images pickled in `path`, uint8 (N, *shape), and their labels as they are written, int64 (N,), N >= 1.

    Args:
        path: a file that holds rows 'data', each by channel, row and column, and a list of labels.
        shape: of one image.
        labels: the range that labels lie in.
        most: bytes that the file may have.
        key: the name of the list of labels.

    Raises:
        UserError: the file does not hold that, or a label is out of its range.
    """
    content = load_arrays(path, most)
    rows, given = content.get("data"), content.get(key)
    columns = math.prod(shape)
    if not (isinstance(rows, np.ndarray) and rows.dtype == np.uint8 and rows.shape[1:] == (columns,)):
        found = f"{rows.dtype} {rows.shape}" if isinstance(rows, np.ndarray) else type(rows).__name__
        raise UserError(f"{path}: 'data': expected a uint8 array of shape (rows, {columns}), got {found}")
    if not (isinstance(given, list) and len(given) == len(rows) > 0):
        found = f"{len(given)} labels" if isinstance(given, list) else type(given).__name__
        raise UserError(f"{path}: {key!r}: expected a list of {len(rows)} labels (1 or more), got {found}")
    for label in given:
        if not (type(label) is int and label in labels):  # True is an int
            found = shown(label)
            raise UserError(f"{path}: {key!r}: expected whole numbers in {labels[0]}..{labels[-1]}, got {found}")
    return rows.reshape(-1, *shape), np.array(given, dtype=np.int64)


def load_names(path: Path, key: str, count: int, most: int = MOST) -> tuple[str, ...]:
    """The names of classes in the list `key` of a pickled file.

    Raises:
        UserError: the file does not hold so many.
    """
    names = load_arrays(path, most).get(key)
    if not (isinstance(names, list) and len(names) == count and all(isinstance(name, str) for name in names)):
        found = f"{len(names)} values" if isinstance(names, list) else type(names).__name__
        raise UserError(f"{path}: {key!r}: expected a list of {count} names, got {found}")
    return tuple(names)
