"""Reading arrays of numbers from MATLAB files of version 5, within bounds, and nothing else.

Such a file is a head of 128 bytes, of which the last four are the version and the order of bytes, and elements: a type
and a length in four bytes each, and the content, filled up to a multiple of eight bytes (up to four bytes of content
stand beside a length of two bytes instead). A variable is an element of type 14 whose own elements are flags, sizes, a
name and the numbers, first dimension fastest; it may be packed by zlib in an element of type 15.
("MAT-File Format", MathWorks.)
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from targetprop.data.files import CHUNK, refuse_large
from targetprop.utils.errors import UserError
from targetprop.utils.text import printable

HEAD = 128
MATRIX, PACKED = 14, 15
"""Types of elements."""
TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
"""Types of elements that hold numbers."""
ORDERS = {b"IM": "<", b"MI": ">"}
"""Orders of bytes, by how the head ends."""
PLAIN = range(6, 16)
"""Classes of variables that are arrays of numbers, from double to uint64."""
SMALL = 2**16
"""Bytes that flags, sizes and a name may have."""
DIMENSIONS = range(2, 9)


@dataclass(frozen=True)
class _Source:
    """Bytes that are read one after the other, of a file or of what is packed in it."""

    read: Callable[[int], bytes]
    order: str

    def exactly(self, count: int) -> bytearray:
        content = bytearray()
        while len(content) < count and (chunk := self.read(min(CHUNK, count - len(content)))):
            content += chunk
        if len(content) != count:
            raise ValueError("it ends too early")
        return content

    def numbers(self, form: str, content: bytearray) -> tuple[int, ...]:
        return struct.unpack(self.order + form, content)

    def element(self, most: int) -> tuple[int, bytearray]:
        """Type and content of an element of at most so many bytes."""
        head = self.exactly(8)
        kind, size = self.numbers("II", head)
        if kind >> 16:  # a small one, whose content stands in its head
            size, kind = kind >> 16, kind & 0xFFFF
            if size > 4:
                raise ValueError(f"it has a small element of {size} bytes")
            return kind, head[4 : 4 + size]
        if size > most:
            raise ValueError(f"it has an element of {size:,} bytes where at most {most:,} belong")
        content = self.exactly(size)
        self.exactly(-size % 8)
        return kind, content


def load_mat(path: Path, names: tuple[str, ...], most: int) -> Mapping[str, NDArray[Any]]:
    """The variables `names` of a file: arrays of numbers (read-only), in Fortran's order. Others are passed over.

    Args:
        path: the file.
        names: of the variables.
        most: bytes that the file, and each variable unpacked, may have.

    Raises:
        UserError: the file holds something else, is truncated or too large, or lacks a variable; names the file.
    """
    refuse_large(path, most)
    try:
        with path.open("rb") as file:
            found = dict(_variables(file, names, most))
        missing = [name for name in names if name not in found]
        if missing:
            raise ValueError(f"it lacks the variable {', '.join(missing)}")
    except (OSError, ValueError, struct.error, zlib.error) as error:
        raise UserError(
            f"{path}: not a readable MATLAB file of version 5 ({printable(error)}). "
            "Replace it by a complete copy of the published file."
        ) from error
    return found


def _variables(file: IO[bytes], names: tuple[str, ...], most: int) -> Iterator[tuple[str, NDArray[Any]]]:
    head = file.read(HEAD)
    if len(head) < HEAD or head[126:] not in ORDERS:
        raise ValueError("it does not begin as one")
    source = _Source(file.read, ORDERS[head[126:]])
    while start := file.read(8):
        kind, size = source.numbers("II", bytearray(start))
        place = file.tell()
        if kind == PACKED:
            packed = _Source(_unpacking(file, size), source.order)
            inner, _ = packed.numbers("II", packed.exactly(8))
            variable = _variable(packed, inner, names, most)
        else:
            variable = _variable(source, kind, names, most)
        if variable is not None:
            yield variable
        file.seek(place + size)


def _variable(source: _Source, kind: int, names: tuple[str, ...], most: int) -> tuple[str, NDArray[Any]] | None:
    """Name and numbers of a variable, whose type and length have been read; None if it is not wanted."""
    if kind != MATRIX:
        raise ValueError(f"it has an element of type {kind} in place of a variable")
    (_, flags), (_, sizes), (_, name) = (source.element(SMALL) for _ in range(3))
    title = name.decode("latin1")
    if title not in names:
        return None
    if len(flags) != 8 or flags[0 if source.order == "<" else 3] not in PLAIN:
        raise ValueError(f"{title} is no array of numbers")
    shape = source.numbers(f"{len(sizes) // 4}i", sizes[: len(sizes) // 4 * 4])
    if len(shape) not in DIMENSIONS or min(shape) < 0:
        raise ValueError(f"{title} has the shape {shape[:9]}")
    kind, content = source.element(most)
    if kind not in TYPES:
        raise ValueError(f"{title} holds elements of type {kind}")
    dtype = np.dtype(source.order + TYPES[kind])
    if len(content) != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{title} announces {shape} and has {len(content):,} bytes")
    return title, np.frombuffer(content, dtype).reshape(shape, order="F")


def _unpacking(file: IO[bytes], size: int) -> Callable[[int], bytes]:
    """Gives what is packed by zlib in the next `size` bytes, piece by piece: no more than is asked for is in memory."""
    unpacker = zlib.decompressobj()
    waiting, left = b"", size

    def read(count: int) -> bytes:
        nonlocal waiting, left
        piece = b""
        while not piece and not unpacker.eof:
            if not waiting:
                waiting = file.read(min(CHUNK, left))
                left -= len(waiting)
            if not waiting:
                break
            piece = unpacker.decompress(waiting, count)
            waiting = unpacker.unconsumed_tail
        return piece

    return read
