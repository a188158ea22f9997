"""Files that are whole or not there, also if the process is killed while it writes."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A place to write a file, which becomes `path` in one move at the end, and goes away if anything fails.

    A killed process leaves a hidden file beside `path`, which the next one overwrites.

    >>> with whole_file(path) as partial:
    ...     partial.write_text("all of it")
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    with whole_file(path) as partial:
        partial.write_text(text)
