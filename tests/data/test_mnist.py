"""MNIST and Fashion-MNIST, from small files of their format."""

import dataclasses
import gzip
import hashlib
import os
import struct
from pathlib import Path
from types import ModuleType

import numpy as np
import pooch
import pytest
import torch
from data_helpers import at_most, everything_below
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as numpy_st

from targetprop.data import fashion_mnist, mnist
from targetprop.data.idx import FILES, load_idx
from targetprop.utils.errors import UserError

Files = dict[str, bytes]

pytestmark = pytest.mark.filterwarnings("ignore:.*MNIST. in .* checksums")


def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


@pytest.fixture(params=[mnist, fashion_mnist], ids=["mnist", "fashion_mnist"])
def module(request: pytest.FixtureRequest) -> ModuleType:
    return request.param


@pytest.fixture
def files() -> Files:
    """30 training and 20 test images, of which image k has label k % 10 and k at its second row, third column."""
    made = {}
    for part, count in (("train", 30), ("t10k", 20)):
        pixels = np.zeros((count, 28, 28), np.uint8)
        pixels[:, 1, 2] = np.arange(count)
        made[f"{part}-images-idx3-ubyte.gz"] = gzip.compress(idx(pixels))
        made[f"{part}-labels-idx1-ubyte.gz"] = gzip.compress(idx(np.arange(count, dtype=np.uint8) % 10))
    return made


def write(module: ModuleType, data_dir: Path, files: Files) -> Path:
    folder = data_dir / module.PUBLISHED.folder
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return data_dir


def published(monkeypatch: pytest.MonkeyPatch, module: ModuleType, files: Files, url: str) -> None:
    """Let the module believe that `files` are the published ones, and can be had below `url`."""
    sums = {name: hashlib.md5(content).hexdigest() for name, content in files.items()}
    unpacked = {name: hashlib.md5(gzip.decompress(content)).hexdigest() for name, content in files.items()}
    changed = dataclasses.replace(module.PUBLISHED, files=sums, unpacked=unpacked, url=url)
    monkeypatch.setattr(module, "PUBLISHED", changed)


@pytest.mark.parametrize("unpacked", [(), FILES[:1], FILES])
def test_images_come_in_order_from_files_packed_or_not(
    module: ModuleType, files: Files, tmp_path: Path, unpacked: tuple[str, ...]
) -> None:
    for name in unpacked:
        files[name.removesuffix(".gz")] = gzip.decompress(files.pop(name))
    splits = module.load(write(module, tmp_path, files), download=False)
    assert (len(splits.train), len(splits.test)) == (30, 20)
    assert splits.train.image_shape == (1, 28, 28)
    assert len(set(splits.train.classes)) == 10
    for images in (splits.train, splits.test):
        assert torch.equal(images.pixels[:, 0, 1, 2].long(), torch.arange(len(images)))
        assert images.pixels.sum() == images.pixels[:, 0, 1, 2].sum()
        assert torch.equal(images.labels, torch.arange(len(images)) % 10)


def test_download_puts_the_missing_files_in_place(
    module: ModuleType, files: Files, tmp_path: Path, server: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, address = server
    published(monkeypatch, module, files, f"{address}/")
    own = FILES[3].removesuffix(".gz")
    for name in FILES[:3]:
        (root / name).write_bytes(files[name])
    data_dir = write(module, tmp_path / "new", {own: idx(np.full(20, 9, np.uint8))})
    splits = module.load(data_dir)
    assert splits.test.labels.tolist() == [9] * 20  # the user's own file is left as it is
    assert everything_below(tmp_path) == sorted([*FILES[:3], own])
    modes = {path.stat().st_mode for path in (data_dir / module.PUBLISHED.folder).iterdir()}
    assert len(modes) == 1  # whoever may read the user's files may read these


@pytest.mark.parametrize("damage", ["cut", "absent"])
def test_failed_download_leaves_no_file(
    files: Files, tmp_path: Path, server: tuple[Path, str], monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    root, address = server
    published(monkeypatch, mnist, files, f"{address}/")
    for name in files:
        (root / name).write_bytes(files[name])
    if damage == "cut":
        (root / FILES[2]).write_bytes(files[FILES[2]][:-10])
    else:
        (root / FILES[2]).unlink()
    with pytest.raises(UserError, match="the download failed"):
        mnist.load(tmp_path / "data")
    assert everything_below(tmp_path) == []


def test_what_is_missing_is_named(
    module: ModuleType, files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pooch, "retrieve", lambda *_, **__: pytest.fail("no download was asked for"))
    del files[FILES[0]], files[FILES[3]]
    with pytest.raises(UserError) as caught:
        module.load(write(module, tmp_path, files), download=False)
    for words in (f"{FILES[0]}, {FILES[3]}", module.PUBLISHED.url, module.PUBLISHED.folder, "data_dir=", "DATA_DIR"):
        assert words in str(caught.value)


@pytest.mark.parametrize(
    "how", ["as published", "packed by another program", "unpacked", "unpacked, of the packed name"]
)
def test_published_images_are_known_however_they_are_packed(
    module: ModuleType,
    files: Files,
    tmp_path: Path,
    recwarn: pytest.WarningsRecorder,
    monkeypatch: pytest.MonkeyPatch,
    how: str,
) -> None:
    bare = {name: gzip.decompress(content) for name, content in files.items()}
    published(monkeypatch, module, files, "")
    placed = {
        "as published": files,
        "packed by another program": {name: gzip.compress(content, 1, mtime=1) for name, content in bare.items()},
        "unpacked": {name.removesuffix(".gz"): content for name, content in bare.items()},
        "unpacked, of the packed name": bare,
    }[how]
    assert how == "as published" or all(files.get(name) != content for name, content in placed.items())
    assert not module.load(write(module, tmp_path, placed), download=False).note
    assert not recwarn.list


@pytest.mark.parametrize("packed", [True, False])
def test_a_changed_pixel_is_said_once_and_beside_the_results(
    module: ModuleType, files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packed: bool
) -> None:
    published(monkeypatch, module, files, "")
    changed = bytearray(gzip.decompress(files[FILES[2]]))
    changed[-1] ^= 1
    name = FILES[2] if packed else FILES[2].removesuffix(".gz")
    content = gzip.compress(changed) if packed else bytes(changed)
    others = {other: files[other] for other in FILES if other != FILES[2]}
    with pytest.warns(UserWarning, match=f"checksums of {name} are not the published ones") as record:
        splits = module.load(write(module, tmp_path, {**others, name: content}), download=False)
    assert len(record) == 1
    assert splits.note == f"{module.PUBLISHED.title}: {name} are not the published files"


@given(numpy_st.arrays(np.uint8, numpy_st.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=5)), st.booleans())
def test_any_array_is_read_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, array: np.ndarray, packed: bool
) -> None:
    path = tmp_path_factory.mktemp("idx") / "file"
    path.write_bytes(gzip.compress(idx(array)) if packed else idx(array))
    np.testing.assert_array_equal(load_idx(path, array.ndim), array, strict=True)


IMAGES = idx(np.zeros((30, 28, 28), np.uint8))


def header(*shape: int) -> bytes:
    return bytes([0, 0, 8, len(shape)]) + struct.pack(f">{len(shape)}I", *shape)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (FILES[0], IMAGES[:-1], r"announces \(30, 28, 28\) and goes on with 23519 bytes"),
        (FILES[0], IMAGES + b"x", "goes on with 23521 bytes"),
        (FILES[0], IMAGES[:7], "does not begin as a uint8 array with 3 dimensions"),
        (FILES[0], b"", "does not begin"),
        (FILES[0], b"\0\0\x0d" + IMAGES[3:], "does not begin"),
        (FILES[0], idx(np.zeros((30, 784), np.uint8)), "with 3 dimensions"),
        (FILES[0], gzip.compress(IMAGES, mtime=0)[:-9], "not a readable IDX file.*complete copy"),
        (FILES[0], gzip.compress(IMAGES, mtime=0)[:20] + b"\xff" * 20, "not a readable IDX file"),
        (FILES[1], idx(np.zeros(29, np.uint8)), r"train-images.* and train-labels.* do not fit: .*\(30,\)"),
        (FILES[0], header(0, 2**32 - 1, 2**32 - 1), "at most 1,073,741,824 bytes"),
        (FILES[0], header(2**32 - 1, 2**32 - 1, 2**32 - 1), "at most 1,073,741,824 bytes"),
        (FILES[0], header(60000, 28, 28), "goes on with 0 bytes"),
        (FILES[0], header(0, 28, 28), r"train-images.* do not fit: .*each 1 or more"),
        (FILES[0], header(30, 0, 28), r"train-images.* do not fit: .*each 1 or more"),
        (FILES[1], header(0), r"train-labels.* do not fit: .*\(30,\)"),
        (
            FILES[2],
            idx(np.zeros((20, 32, 32), np.uint8)),
            r"train-images.* and t10k-images.* do not fit: .*\(1, 32, 32\)",
        ),
        (
            FILES[2],
            idx(np.zeros((20, 14, 28), np.uint8)),
            r"train-images.* and t10k-images.* do not fit: .*\(1, 28, 28\)",
        ),
        (FILES[3], idx(np.full(20, 10, np.uint8)), r"t10k-labels.* do not fit: .* labels in 0\.\.9"),
    ],
)
def test_broken_files_are_named(tmp_path: Path, files: Files, name: str, content: bytes, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        mnist.load(write(mnist, tmp_path, {**files, name: content}), download=False)
    assert name in str(caught.value)


@pytest.mark.parametrize("begins", [b"", header(30, 28, 28), header(2**32 - 1, 2**20, 2**20)])
def test_a_small_file_does_not_take_much_memory(tmp_path: Path, begins: bytes) -> None:
    path = tmp_path / FILES[0]
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(begins)
        for _ in range(256):
            file.write(bytes(2**20))
    with pytest.raises(UserError, match=FILES[0]), at_most(2**24):
        load_idx(path, 3)


def test_a_large_file_is_not_read(tmp_path: Path, files: Files) -> None:
    write(mnist, tmp_path, files)
    os.truncate(tmp_path / mnist.PUBLISHED.folder / FILES[0], 20 * 2**30)  # sparse
    with pytest.raises(UserError, match=rf"{FILES[0]}: expected at most 1,073,741,824 bytes, got 21,474,836,480"):
        mnist.load(tmp_path, download=False)


def test_what_cannot_be_looked_at_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"x{300}.*: it cannot be read: File name too long"):
        mnist.load(tmp_path / ("x" * 300), download=False)


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs a file that can be opened and not read")
def test_what_cannot_be_read_is_named(tmp_path: Path, files: Files) -> None:
    path = write(mnist, tmp_path, files) / mnist.PUBLISHED.folder / FILES[1]
    path.unlink()
    path.symlink_to("/proc/self/mem")
    with pytest.raises(UserError, match=f"{FILES[1]}: it cannot be read: "):
        mnist.load(tmp_path, download=False)
