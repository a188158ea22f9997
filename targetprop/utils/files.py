"""Files that are whole or not there, also if the process is killed or the power fails while one is written."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A place to write a file, which becomes `path` in one move at the end, and goes away if anything fails.

    What was written is on the disk before it takes the place of an older file. A killed process leaves a hidden file
    beside `path`, which the next one overwrites.

    >>> with whole_file(path) as partial:
    ...     partial.write_text("all of it")
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        yield partial
        to_disk(partial)
        os.replace(partial, path)
        to_disk(path.parent)
    finally:
        with contextlib.suppress(OSError):  # the reason why it failed is the one to be told
            partial.unlink(missing_ok=True)


def to_disk(path: Path) -> None:
    """Have the operating system write a file, or the names in a folder, to the disk now."""
    if path.is_dir() and os.name == "nt":
        return  # where folders cannot be opened
    number = os.open(path, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # of file systems that know no such thing for a folder
            os.fsync(number)
    finally:
        os.close(number)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    with whole_file(path) as partial:
        partial.write_text(text)
