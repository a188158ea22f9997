"""Reading files that may be anything: unreadable ones are named, large ones refused before they take memory."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from targetprop.utils.errors import UserError

CHUNK = 2**20
"""Bytes that are read at once."""


class Stream(Protocol):
    """An open file, packed or not."""

    def read(self, size: int, /) -> bytes:
        """At most so many bytes; none at the end."""


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Within it, whatever the system says against reading is a `UserError` that names the file.

    Args:
        path: is named where the system names none.
    """
    try:
        yield
    except OSError as error:
        raise UserError(f"{error.filename or path}: it cannot be read: {error.strerror or error}") from error


def refuse_large(path: Path, most: int) -> None:
    """Raise `UserError` if the file is larger than `most` bytes, or its size cannot be asked for."""
    with readable(path):
        size = path.stat().st_size
    if size > most:
        raise UserError(f"{path}: expected at most {most:,} bytes, got {size:,}")


def md5_of(path: Path) -> str:
    """The md5 of a file, in hexadecimal digits; takes the memory of one chunk.

    Raises:
        UserError: it cannot be read.
    """
    with readable(path), path.open("rb") as file:
        return md5_of_stream(file)


def md5_of_stream(file: Stream, most: int = sys.maxsize) -> str:
    """The md5 of what is left to read of an open file.

    Raises:
        ValueError: that is more than `most` bytes.
    """
    digest, size = hashlib.md5(usedforsecurity=False), 0
    while chunk := file.read(CHUNK):
        size += len(chunk)
        if size > most:
            raise ValueError(f"it holds more than {most:,} bytes")
        digest.update(chunk)
    return digest.hexdigest()
