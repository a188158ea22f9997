"""Files of data sets that are damaged, or made to do harm: refused by their name, or read within bounds."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import random
import shutil
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from . import oracle
from .case import SMALL, Bench, NotApplicableError, Outcome

Expectation = Literal["invalid", "open", "valid"]
Damage = Callable[[Path, random.Random], Expectation]
"""Damages a file, and says what is then to be expected."""

MARKER = "executed"
"""What code in a file would leave in the current directory."""
ROOM = 6 << 30
"""Bytes of address space for a run, whatever a file says of its size."""
IMAGES = 40
"""In each file."""
SETS: Mapping[str, tuple[str, ...]] = {
    "cifar10": ("cifar-10-batches-py/data_batch_1", "cifar-10-batches-py/data_batch_4",
                "cifar-10-batches-py/test_batch", "cifar-10-batches-py/batches.meta"),
    "mnist": tuple(f"MNIST/raw/{part}-{kind}-ubyte.gz" for part in ("train", "t10k")
                   for kind in ("images-idx3", "labels-idx1")),
    "imagenet32": ("Imagenet32_train/train_data_batch_1", "Imagenet32_train/train_data_batch_10",
                   "Imagenet32_val/val_data"),
}  # fmt: skip
"""The files of each data set that are damaged."""
CACHE = "imagenet32_mapped"


class DataFiles:
    """Damaged and hostile files of CIFAR-10, MNIST and ImageNet32, and of the converted form of the latter."""

    name = "data_files"
    full = 1000
    short = 16

    def run(self, bench: Bench, number: int, chance: random.Random) -> Outcome:
        """A run on a data set of which one file is damaged."""
        data = bench.folder / "data"
        shutil.copytree(pristine(bench), data)
        name = list(SETS)[number % len(SETS)]
        if number % 15 == 14:
            file, expected, what = self._cached(bench, data, chance)
        else:
            file = data / chance.choice(SETS[name])
            way = chance.choice(ways_for(name, file))
            expected, what = way(file, chance), way.__name__.replace("_", " ")
        end = bench.run(overrides_of(bench, name, data), memory=ROOM, ordinary=True)
        shutil.rmtree(data)
        did = f"{name}, {file.name}: {what} ({expected})"
        said = [f"{MARKER}: code in the file was run"] if any(bench.folder.rglob(MARKER)) else []
        if expected == "invalid" or (expected == "open" and end.code != 0):
            return Outcome(did, [*said, *oracle.refused(end, [file.name, str(file.parent)])])
        return Outcome(did, [*said, *oracle.finite(end, bench.rundir)])

    @staticmethod
    def _cached(bench: Bench, data: Path, chance: random.Random) -> tuple[Path, Expectation, str]:
        """What a first run has converted is damaged before the second."""
        first = bench.run(overrides_of(bench, "imagenet32", data))
        if first.code != 0:
            raise NotApplicableError(f"no run on ImageNet32 to begin with: {first.stderr[-200:]}")
        shutil.rmtree(bench.rundir)
        file = chance.choice([each for each in sorted((data / CACHE).rglob("*")) if each.is_file()])
        way = chance.choice((one_bit, cut, empty, garbage, a_text))
        way(file, chance)
        return file, "open", f"converted, {way.__name__.replace('_', ' ')}"


def overrides_of(bench: Bench, name: str, data: Path) -> list[str]:
    """A run of a second on a data set."""
    more = [f"datamodule={name}", f"data_dir={data}", "datamodule.batch_size=16", "logger=none"]
    small = [each for each in SMALL if not each.startswith("trainer.max_epochs")]
    return [*small, "trainer.max_epochs=1", *more, "+datamodule.download=false", bench.place()]


def pristine(bench: Bench) -> Path:
    """Undamaged files; made once for each bench."""
    folder = bench.folder.parent / f"{bench.folder.name}-data"
    if not folder.is_dir():
        generator = np.random.default_rng(0)
        for number in range(1, 6):
            write_batch(folder / f"cifar-10-batches-py/data_batch_{number}", generator, 10)
        write_batch(folder / "cifar-10-batches-py/test_batch", generator, 10)
        write_pickle(folder / "cifar-10-batches-py/batches.meta", {"label_names": [f"class {n}" for n in range(10)]})
        for number in range(1, 11):
            write_batch(folder / f"Imagenet32_train/train_data_batch_{number}", generator, 1000, least=1)
        write_batch(folder / "Imagenet32_val/val_data", generator, 1000, least=1)
        for part in ("train", "t10k"):
            pixels = generator.integers(0, 256, (4 * IMAGES, 28, 28), dtype=np.uint8)
            write_idx(folder / f"MNIST/raw/{part}-images-idx3-ubyte.gz", pixels)
            write_idx(folder / f"MNIST/raw/{part}-labels-idx1-ubyte.gz", np.arange(4 * IMAGES, dtype=np.uint8) % 10)
    return folder


def write_batch(path: Path, generator: np.random.Generator, classes: int, least: int = 0) -> None:
    """Images of 3x32x32 pixels as CIFAR-10 and ImageNet32 keep them."""
    pixels = generator.integers(0, 256, (IMAGES, 3072), dtype=np.uint8)
    labels = [least + n * classes // IMAGES for n in range(IMAGES)]
    write_pickle(path, {"data": pixels, "labels": labels})


def write_pickle(path: Path, content: object) -> None:
    """A pickle as they are published."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content, protocol=2))


def write_idx(path: Path, array: np.ndarray) -> None:
    """A compressed IDX file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    head = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    path.write_bytes(gzip.compress(head + array.tobytes(), mtime=0))


def one_bit(file: Path, chance: random.Random) -> Expectation:
    content = bytearray(file.read_bytes())
    bit = chance.randrange(8 * max(1, len(content)))
    content = content or bytearray(1)
    content[bit // 8] ^= 1 << bit % 8
    file.write_bytes(content)
    return "open"


def some_bytes(file: Path, chance: random.Random) -> Expectation:
    content = bytearray(file.read_bytes())
    start = chance.randrange(min(len(content) + 1, 400))
    content[start : start + 4] = chance.randbytes(4)
    file.write_bytes(content)
    return "open"


def cut(file: Path, chance: random.Random) -> Expectation:
    content = file.read_bytes()
    file.write_bytes(content[: chance.randrange(len(content) // 2, len(content))] if content else b"")
    return "invalid"


def empty(file: Path, chance: random.Random) -> Expectation:
    file.write_bytes(b"")
    return "invalid"


def garbage(file: Path, chance: random.Random) -> Expectation:
    file.write_bytes(chance.randbytes(chance.choice((1, 100, 10_000))))
    return "invalid"


def a_text(file: Path, chance: random.Random) -> Expectation:
    file.write_text(chance.choice(("<html><body>404</body></html>", "version https://git-lfs.github.com/spec/v1\n")))
    return "invalid"


def a_folder(file: Path, chance: random.Random) -> Expectation:
    file.unlink()
    file.mkdir()
    return "invalid"


def a_pipe(file: Path, chance: random.Random) -> Expectation:
    file.unlink()
    os.mkfifo(file)
    return "invalid"


def a_link_to_itself(file: Path, chance: random.Random) -> Expectation:
    file.unlink()
    file.symlink_to(file.name)
    return "invalid"


def an_endless_device(file: Path, chance: random.Random) -> Expectation:
    file.unlink()
    file.symlink_to("/dev/zero")
    return "invalid"


def missing(file: Path, chance: random.Random) -> Expectation:
    file.unlink()
    return "invalid"


def endless_zeros(file: Path, chance: random.Random) -> Expectation:
    """20 GB that take no room on the disk."""
    with file.open("wb") as content:
        content.truncate(20 << 30)
    return "invalid"


def unreadable(file: Path, chance: random.Random) -> Expectation:
    file.chmod(0)
    return "invalid"


ANY: tuple[Damage, ...] = (
    one_bit, one_bit, some_bytes, cut, cut, empty, garbage, a_text, a_folder, a_pipe, a_link_to_itself,
    an_endless_device, missing, endless_zeros, unreadable,
)  # fmt: skip


class Shell:
    """Runs a command when it is unpickled."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.made = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.made


def code(file: Path, chance: random.Random) -> Expectation:
    """Code in a pickle, alone or within what is expected."""
    evil = chance.choice(
        (Shell(os.system, f"touch {MARKER}"), Shell(eval, f"open({MARKER!r}, 'w')"), Shell(os.mkdir, MARKER))
    )
    write_pickle(file, chance.choice((evil, {"data": evil, "labels": [0]}, {"label_names": [evil] * 10})))
    return "invalid"


def shared_lists(file: Path, chance: random.Random) -> Expectation:
    """A few bytes that stand for 2 to the power of 40 elements."""
    node: list[Any] = [0]
    for _ in range(40):
        node = [node, node]
    write_pickle(file, chance.choice((node, {"data": node, "labels": node}, {"label_names": node})))
    return "invalid"


def shared_bytes(file: Path, chance: random.Random) -> Expectation:
    """Thousands of references to one long text."""
    write_pickle(file, {"data": [b"x" * (4 << 20)] * 4000, "labels": [0] * IMAGES, "label_names": ["y" * 999] * 10**6})
    return "invalid"


def deep_lists(file: Path, chance: random.Random) -> Expectation:
    """A list in a list, a hundred thousand times."""
    file.write_bytes(b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".")
    return "invalid"


def a_large_announcement(file: Path, chance: random.Random) -> Expectation:
    """A text in a pickle that says that it is 2 or 4 GB long."""
    file.write_bytes(
        b"\x80\x02" + chance.choice((b"T\xff\xff\xff\x7f", b"X\xff\xff\xff\xff", b"\x8e" + b"\xff" * 7 + b"\x0f"))
    )
    return "invalid"


def other_content(file: Path, chance: random.Random) -> Expectation:
    """A key, a type, a shape or a label that is not as published."""
    content: dict[str, Any] = pickle.loads(file.read_bytes())
    if "label_names" in content:
        content["label_names"] = chance.choice(
            ([], ["a"] * 9, ["a"] * 11, [1] * 10, "abcdefghij", None, {}, [["a"]] * 10)
        )
        write_pickle(file, content)
        return "invalid"
    key = chance.choice(("data", "labels"))
    values: dict[str, tuple[object, ...]] = {
        "data": (
            None, [], "abc", np.zeros((IMAGES, 3071), np.uint8), np.zeros((IMAGES - 1, 3072), np.uint8),
            np.zeros((IMAGES, 3072), np.float32), np.zeros(IMAGES * 3072, np.uint8), np.zeros((0, 3072), np.uint8),
            np.zeros((IMAGES, 3072), np.int64), np.zeros((IMAGES, 3, 32, 32, 1), np.uint8), np.zeros((), np.uint8),
        ),
        "labels": (
            None, [], "abc", [0] * (IMAGES - 1), [-1] * IMAGES, [10**30] * IMAGES, [1001] * IMAGES, [0.5] * IMAGES,
            ["1"] * IMAGES, [None] * IMAGES, [True] * IMAGES, [[1]] * IMAGES, [float("nan")] * IMAGES, {0: 1},
        ),
    }  # fmt: skip
    content[key] = chance.choice(values[key])
    if chance.random() < 0.15:
        del content[key]
    write_pickle(file, content)
    return "invalid"


def odd_names(file: Path, chance: random.Random) -> Expectation:
    """Names of classes that mean something to a terminal, and would still be names."""
    if file.name == "batches.meta":
        odd = chance.choice(("[/]", "[bold red]", "\x1b[2J\x1b]0;x\x07", "a\nb", "", "é" * 200, "\x00", "]" * 50))
        write_pickle(file, {"label_names": [f"{odd}{n}" for n in range(10)]})
        return "open"
    return other_content(file, chance)


PICKLES: tuple[Damage, ...] = (
    *ANY, code, code, shared_lists, shared_bytes, deep_lists, a_large_announcement, other_content, other_content,
    other_content, other_content, odd_names,
)  # fmt: skip


def bomb(file: Path, chance: random.Random) -> Expectation:
    """A few megabytes that unpack to six gigabytes."""
    packed = io.BytesIO()
    block = gzip.compress(bytes(256 << 20), compresslevel=9, mtime=0)
    for _ in range(24):
        packed.write(block)
    file.write_bytes(packed.getvalue())
    return "invalid"


def sizes(file: Path, chance: random.Random) -> Expectation:
    """A head that announces another number of images, or another type."""
    content = bytearray(gzip.decompress(file.read_bytes()))
    dimensions = content[3]
    if chance.random() < 0.3:
        content[chance.randrange(4)] ^= chance.randrange(1, 256)
    else:
        wrong = (0, 1, 2**31, 2**32 - 1, 4 * IMAGES + 1)
        content[4:8] = struct.pack(">I", chance.choice(wrong))
        if dimensions == 3 and chance.random() < 0.5:
            content[8:16] = struct.pack(">II", *chance.choice(((0, 0), (2**32 - 1, 2**32 - 1), (2**16, 2**16), (1, 1))))
    packed = chance.random() < 0.7
    file.write_bytes(gzip.compress(bytes(content)) if packed else bytes(content))
    return "invalid"


def other_images(file: Path, chance: random.Random) -> Expectation:
    """Well-formed, but of another size, number or class than what belongs to it."""
    is_labels = "labels" in file.name
    if is_labels:
        labels = chance.choice(
            (np.full(4 * IMAGES, 10), np.zeros(4 * IMAGES - 1), np.full(4 * IMAGES, 255), np.zeros(0))
        )
        write_idx(file, labels.astype(np.uint8))
    else:
        shape = chance.choice(((4 * IMAGES, 32, 32), (4 * IMAGES, 14, 14), (4 * IMAGES - 1, 28, 28), (0, 28, 28)))
        write_idx(file, np.zeros(shape, np.uint8))
    return "invalid"


def a_longer_file(file: Path, chance: random.Random) -> Expectation:
    """Something behind the end."""
    with file.open("ab") as content:
        content.write(chance.choice((b"\0", chance.randbytes(100), gzip.compress(b"more"))))
    return "open"


IDX: tuple[Damage, ...] = (*ANY, bomb, sizes, sizes, sizes, sizes, other_images, other_images, a_longer_file)


def ways_for(name: str, file: Path) -> tuple[Damage, ...]:
    """How a file of a data set can be damaged."""
    return IDX if name == "mnist" else PICKLES
