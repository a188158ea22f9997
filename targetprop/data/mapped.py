"""Images of a large data set as one file that is mapped into memory, made once from the published files.

A mapped file takes no memory of its own: its pages are read when they are first used, all processes share them, and
the system drops them when it needs the room. `NAME.images` holds the pixels and then the labels, `NAME.json` how many
there are and which files they are from, by size and time. Both are renamed into place when they are whole, the
description last and only after the old one is gone: a description is always that of the images beside it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray
from rich.progress import track
from torch import Tensor

from targetprop.utils.errors import UserError
from targetprop.utils.files import whole_file, write_text

Read = Callable[[Path], tuple[NDArray[np.uint8], NDArray[np.int64]]]


def mapped_images(
    folder: Path, name: str, shape: tuple[int, ...], sources: Sequence[Path], read: Read
) -> tuple[Tensor, Tensor]:
    """Pixels uint8 (N, *shape), mapped from a file in `folder`, and labels int64 (N,) of all `sources`, in order.

    The file is made if it is not there, or if the sources have changed. Processes that come meanwhile wait.

    Args:
        folder: where the file is kept.
        name: of the file.
        shape: of one image.
        sources: the published files.
        read: gives the pixels (M, *shape) and labels (M,) of one source. Sources are read one after the other, so
            that only one of them is in memory.

    Raises:
        UserError: the file cannot be written.
    """
    described = [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in sources]
    images, description = folder / f"{name}.images", folder / f"{name}.json"
    size = math.prod(shape) + np.dtype(np.int64).itemsize
    if _count(images, description, described, size) is None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(folder / f"{name}.lock"):
                if _count(images, description, described, size) is None:
                    _convert(images, description, described, sources, read)
        except OSError as error:
            raise UserError(f"{images}: the images cannot be kept in this file: {error}") from error
    count = _count(images, description, described, size)
    assert count is not None
    # Mode "c" writes nothing to the file, and yet is writable, as torch wants it.
    pixels = np.memmap(images, np.uint8, mode="c", shape=(count, *shape))
    labels = np.fromfile(images, np.int64, offset=pixels.nbytes)
    return torch.from_numpy(pixels), torch.from_numpy(labels)


def _count(images: Path, description: Path, sources: list[Any], size: int) -> int | None:
    """How many images of `size` bytes there are; None unless they are all there and those of `sources`."""
    try:
        found = json.loads(description.read_text())
        whole = found["sources"] == sources and images.stat().st_size == found["count"] * size
        return int(found["count"]) if whole else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _convert(images: Path, description: Path, described: list[Any], sources: Sequence[Path], read: Read) -> None:
    description.unlink(missing_ok=True)
    with whole_file(images) as partial, partial.open("wb") as file:
        labels = [_append(file, *read(path)) for path in track(sources, f"Converting into {images.name}")]
        np.concatenate(labels).tofile(file)
    write_text(description, json.dumps({"count": sum(map(len, labels)), "sources": described}, indent=2))


def _append(file: IO[bytes], pixels: NDArray[np.uint8], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Write the pixels, and return the labels; a function, so that no source is in memory beside the next one."""
    np.ascontiguousarray(pixels).tofile(file)
    return labels
