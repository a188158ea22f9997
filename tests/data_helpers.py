"""Small data sets, and pickles in the published CIFAR-10 format, byte by byte."""

import struct
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from targetprop.data import Images

NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def text(value: str) -> bytes:
    """A Python 2 `str` in pickle protocol 2."""
    return b"U" + bytes([len(value)]) + value.encode()


def small_integer(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)


def python2_array(array: np.ndarray, dtype: str = "u1", flags: int = 0) -> bytes:
    """An array as Python 2 and its NumPy pickled it, whatever dtype it is said to have."""
    made = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + text("b") + b"\x87R"
    shape = b"(" + b"".join(map(small_integer, array.shape)) + b"t"
    dtype_made = b"cnumpy\ndtype\n" + text(dtype) + b"K\x00K\x01\x87R"
    dtype_state = b"(K\x03" + text("|") + b"NNN" + small_integer(-1) * 2 + small_integer(flags) + b"tb"
    content = b"T" + struct.pack("<I", array.nbytes) + array.tobytes()
    return made + b"(K\x01" + shape + dtype_made + dtype_state + b"\x89" + content + b"tb"


def python2_dict(**items: bytes) -> bytes:
    """A pickle of a dictionary whose values are pickled already."""
    return b"\x80\x02}(" + b"".join(text(key) + value for key, value in items.items()) + b"u."


def python2_list(items: list[bytes]) -> bytes:
    return b"](" + b"".join(items) + b"e"


def python2_batch(pixels: np.ndarray, labels: list[int]) -> bytes:
    return python2_dict(
        batch_label=text("training batch 1 of 5"),
        labels=python2_list(list(map(small_integer, labels))),
        data=python2_array(pixels),
    )


def random_images(count: int, classes: int = 4, seed: int = 0) -> Images:
    """Images of shape (2, 5, 6) whose classes are not equally frequent."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (count, 2, 5, 6), generator=generator, dtype=torch.uint8)
    labels = (torch.rand(count, generator=generator) ** 2 * classes).long()
    return Images(pixels, labels, tuple(f"class {k}" for k in range(classes)))


def everything_below(folder: Path) -> list[str]:
    """The names of all files in `folder` and its folders."""
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


@contextmanager
def at_most(memory: int) -> Iterator[None]:
    """Fails where Python's objects, NumPy's included, take more bytes within it."""
    tracemalloc.start()
    try:
        yield
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak <= memory, f"{peak:,} bytes"
