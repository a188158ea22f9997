"""Small data sets, and files in the published formats, byte by byte."""

import io
import struct
import tarfile
import tracemalloc
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image

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


def tarred(files: dict[str, bytes], folder: str) -> bytes:
    """A tar archive packed by gzip, in which the files stand in a folder."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def cifar100_files() -> dict[str, bytes]:
    """CIFAR-100 of 200 and 100 images: image k is of the fine class k % 100 and the coarse class k % 20."""
    files = {
        "meta": python2_dict(
            fine_label_names=python2_list([text(f"fine {k}") for k in range(100)]),
            coarse_label_names=python2_list([text(f"coarse {k}") for k in range(20)]),
        )
    }
    for number, (name, count) in enumerate((("train", 200), ("test", 100))):
        pixels = np.random.default_rng(number).integers(0, 256, (count, 3072), dtype=np.uint8)
        files[name] = python2_dict(
            fine_labels=python2_list([small_integer(k % 100) for k in range(count)]),
            coarse_labels=python2_list([small_integer(k % 20) for k in range(count)]),
            data=python2_array(pixels),
        )
    return files


def mat_element(kind: int, content: bytes, order: str = "<") -> bytes:
    """An element of a MATLAB file, small where it can be."""
    if 0 < len(content) <= 4:
        return struct.pack(f"{order}I", len(content) << 16 | kind) + content.ljust(4, b"\0")
    return struct.pack(f"{order}II", kind, len(content)) + content + bytes(-len(content) % 8)


def mat_variable(name: str, array: np.ndarray, order: str = "<", packed: bool = True, **changes: bytes) -> bytes:
    """A variable of a MATLAB file of version 5; `changes` are other contents of its parts."""
    kinds = {"u1": (9, 2), "f8": (6, 9)}
    kind, numbers = kinds[array.dtype.str[1:]]
    parts = {
        "flags": struct.pack(f"{order}II", kind, 0),
        "sizes": struct.pack(f"{order}{array.ndim}i", *array.shape),
        "name": name.encode(),
        "numbers": array.astype(order + array.dtype.str[1:]).tobytes(order="F"),
        **changes,
    }
    types = {"flags": 6, "sizes": 5, "name": 1, "numbers": numbers}
    whole = mat_element(
        14, b"".join(mat_element(types[part], content, order) for part, content in parts.items()), order
    )
    if not packed:
        return whole
    squeezed = zlib.compress(whole)
    return struct.pack(f"{order}II", 15, len(squeezed)) + squeezed


def mat_head(order: str = "<") -> bytes:
    return b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack(f"{order}H", 0x0100) + {"<": b"IM", ">": b"MI"}[order]


def svhn_pixels(count: int = 20, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (32, 32, 3, count), dtype=np.uint8)


def svhn_file(pixels: np.ndarray, order: str = "<", packed: bool = True) -> bytes:
    """Digits as SVHN has them: image k is of the label k % 10 + 1, where 10 means 0."""
    labels = (np.arange(pixels.shape[-1]) % 10 + 1.0)[:, None]
    variables = (mat_variable(name, each, order, packed) for name, each in (("X", pixels), ("y", labels)))
    return mat_head(order) + b"".join(variables)


def jpeg(colour: tuple[int, ...] | int, size: tuple[int, int] = (64, 64)) -> bytes:
    """An image of one colour; a grey one for a single number."""
    made = io.BytesIO()
    Image.new("L" if isinstance(colour, int) else "RGB", size, colour).save(made, "JPEG", quality=95)
    return made.getvalue()


def tiny_imagenet_files() -> dict[str, bytes]:
    """Tiny ImageNet of three classes: two training images of each, of its colour, and a test image, last first."""
    colours: dict[str, tuple[int, ...] | int] = {"n03": (255, 0, 0), "n01": 128, "n02": (0, 0, 255)}
    words = "n01\tgoldfish, Carassius auratus\nn02\tox\n"
    files = {"wnids.txt": "\n".join(colours).encode(), "words.txt": words.encode()}
    lines = []
    for number, (name, colour) in enumerate(colours.items()):
        for image in range(2):
            files[f"train/{name}/images/{name}_{image}.JPEG"] = jpeg(colour)
        files[f"train/{name}/{name}_boxes.txt"] = b"0 0 1 1"
        files[f"val/images/val_{number}.JPEG"] = jpeg(colour)
        lines.append(f"val_{number}.JPEG\t{name}\t0\t0\t62\t62\n")
    files["val/val_annotations.txt"] = "".join(reversed(lines)).encode()
    return files


def zipped(files: dict[str, bytes], folder: str) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, content in files.items():
            archive.writestr(f"{folder}/{name}", content)
    return packed.getvalue()


def write_files(folder: Path, files: dict[str, bytes]) -> Path:
    """Write files below a folder, and return it."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder
