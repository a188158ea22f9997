"""Images of a large data set as one file that is mapped into memory, made once from the published files.

A mapped file takes no memory of its own: its pages are read when they are first used, all processes share them, and
the system drops them when it needs the room. `NAME.images` holds the pixels and then the labels, `NAME.json` how many
there are, which files they are from, by size and time, and the checksum of each `CHUNK` bytes. Both are renamed into
place when they are whole, the description last and only after the old one is gone: a description is always that of the
images beside it.

Whoever maps the images reads all of them once, to compare the checksums: of ImageNet32's 4.1 GB some five seconds once
they are in memory, on two busy cores. Training reads the very same pages afterwards.
"""

from __future__ import annotations

import json
import logging
import math
import os
import zlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray
from rich.progress import track
from torch import Tensor

from targetprop.data.files import readable
from targetprop.utils.errors import UserError
from targetprop.utils.files import whole_file, write_text

log = logging.getLogger(__name__)
Piece = tuple[NDArray[np.uint8], NDArray[np.int64]]
"""Some images, by their pixels (M, *shape) and labels (M,)."""
Read = Callable[[Path], Iterable[Piece]]
CHUNK = 2**26
"""Bytes that have a checksum of their own."""
PIECE = 2**20
"""Bytes of it that are in memory at once."""
LONGEST = 2**20
"""Bytes that a description may have: a hundred times those of ImageNet32's."""


def mapped_images(
    folder: Path, name: str, shape: tuple[int, ...], sources: Sequence[Path], read: Read, mend: str
) -> tuple[Tensor, Tensor]:
    """Pixels uint8 (N, *shape), mapped from a file in `folder`, and labels int64 (N,) of all `sources`, in order.

    The file is made if it is not there or damaged, or if the sources have changed. Processes that come meanwhile wait.
    Where it is whole nothing is written.

    Args:
        folder: where the file is kept.
        name: of the file.
        shape: of one image.
        sources: the published files, or folders of them.
        read: gives the pixels and labels of one source, piece by piece. Sources are read one after the other, so that
            only one piece is in memory.
        mend: what to do where the file cannot be written.

    Raises:
        UserError: the file cannot be written, or a file cannot be read.
    """
    with readable(folder):
        described = [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in sources]
    images, description = folder / f"{name}.images", folder / f"{name}.json"
    size = math.prod(shape) + np.dtype(np.int64).itemsize
    count = _count(images, description, described, size)
    if count is None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(folder / f"{name}.lock"):
                count = _count(images, description, described, size)
                if count is None:
                    if _description(images, description, described, size):
                        log.warning("%s is damaged, by its checksums. It is made anew.", images)
                    count = _convert(images, description, described, sources, read)
        except OSError as error:
            raise UserError(f"{images}: the images cannot be kept in this file: {error}. {mend}") from error
    with readable(images):
        # Mode "c" writes nothing to the file, and yet is writable, as torch wants it.
        pixels = np.memmap(images, np.uint8, mode="c", shape=(count, *shape))
        labels = np.fromfile(images, np.int64, offset=pixels.nbytes)
    return torch.from_numpy(pixels), torch.from_numpy(labels)


def _count(images: Path, description: Path, sources: list[Any], size: int) -> int | None:
    """How many images of `size` bytes there are; None unless they are all there, whole, and those of `sources`."""
    found = _description(images, description, sources, size)
    try:
        whole = found is not None and found["crc32"] == _checksums(images)
    except OSError:
        return None
    return int(found["count"]) if found is not None and whole else None


def _description(images: Path, description: Path, sources: list[Any], size: int) -> dict[str, Any] | None:
    """What is said of the images; None unless it is said of so large a file that is made of `sources`."""
    try:
        with description.open("rb") as file:
            found: dict[str, Any] = json.loads(file.read(LONGEST))
        counted = type(found["count"]) is int and found["count"] > 0 and isinstance(found["crc32"], list)
        fits = counted and images.stat().st_size == found["count"] * size and found["sources"] == sources
    except (OSError, ValueError, KeyError, TypeError, RecursionError):  # a description may hold anything
        return None
    return found if fits else None


def _checksums(path: Path) -> list[int]:
    """The CRC-32 of each `CHUNK` bytes of a file, computed on all cores."""

    def checksum(start: int) -> int:
        with path.open("rb") as file:
            file.seek(start)
            result = 0
            for _ in range(0, CHUNK, PIECE):
                result = zlib.crc32(file.read(PIECE), result)
        return result

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(checksum, range(0, path.stat().st_size, CHUNK)))


def _convert(images: Path, description: Path, described: list[Any], sources: Sequence[Path], read: Read) -> int:
    """Make both files, and return the number of images."""
    description.unlink(missing_ok=True)
    with whole_file(images) as partial, partial.open("wb") as file:
        labels = [
            _append(file, *piece) for path in track(sources, f"Converting into {images.name}") for piece in read(path)
        ]
        np.concatenate(labels).tofile(file)
    count = sum(map(len, labels))
    write_text(description, json.dumps({"count": count, "sources": described, "crc32": _checksums(images)}, indent=2))
    return count


def _append(file: IO[bytes], pixels: NDArray[np.uint8], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Write the pixels, and return the labels; a function, so that no source is in memory beside the next one."""
    np.ascontiguousarray(pixels).tofile(file)
    return labels
