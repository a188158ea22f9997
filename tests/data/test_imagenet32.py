"""ImageNet32 from small files of its format."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from data_helpers import python2_batch

from targetprop.app.datamodule import ImageDataModule
from targetprop.data import imagenet32
from targetprop.data.pickles import load_batch
from targetprop.utils.errors import UserError

FILES = (*imagenet32.TRAIN_FILES, imagenet32.TEST_FILE)
Folder = Callable[[str], str]
LAYOUTS: dict[str, Folder] = {
    "unpacked apart": lambda name: "Imagenet32_val" if name == imagenet32.TEST_FILE else "Imagenet32_train",
    "one folder": lambda name: "imagenet32",
    "data_dir itself": lambda name: "",
}


def batch(number: int, **changes: object) -> bytes:
    """Three images: their first pixel holds the number of the file, and their labels begin with it."""
    pixels = np.random.default_rng(number).integers(0, 256, (3, 3072), dtype=np.uint8)
    pixels[:, 0] = number
    content = {"data": pixels, "labels": [number, 500, 1000], "mean": pixels.mean(axis=0), **changes}
    return pickle.dumps(content, protocol=3)


def write(data_dir: Path, folder: Folder = LAYOUTS["unpacked apart"], **files: bytes) -> Path:
    """All files, of which `files` have other contents, numbered from 1."""
    for number, name in enumerate(FILES, start=1):
        path = data_dir / folder(name) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(files.get(name, batch(number)))
    return data_dir


def mapped(data_dir: Path) -> dict[str, int]:
    """The converted files, with the number of each one's inode: another one means that it was made anew."""
    return {path.name: path.stat().st_ino for path in (data_dir / imagenet32.CACHE_FOLDER).glob("*.images")}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_images_come_in_the_order_of_the_files(tmp_path: Path, layout: str) -> None:
    splits = imagenet32.load(write(tmp_path, LAYOUTS[layout]))
    assert (len(splits.train), len(splits.test)) == (30, 3)
    assert splits.train.image_shape == splits.test.image_shape == (3, 32, 32)
    assert torch.equal(splits.train.pixels[:, 0, 0, 0].long(), torch.arange(1, 11).repeat_interleave(3))
    assert splits.train.labels.tolist() == [label for number in range(10) for label in (number, 499, 999)]
    assert splits.test.labels.tolist() == [10, 499, 999]
    assert splits.train.classes == splits.test.classes == tuple(map(str, range(1, 1001)))


def test_rows_are_channels_then_rows_then_columns(tmp_path: Path) -> None:
    row = np.zeros((1, 3072), np.uint8)
    row[0, 2 * 1024 + 5 * 32 + 7] = 200
    pixels = imagenet32.load(write(tmp_path, val_data=batch(1, data=row, labels=[1]))).test.pixels
    assert pixels[0, 2, 5, 7] == pixels.sum() == 200


def test_a_python2_file_is_read_as_well(tmp_path: Path) -> None:
    rows = np.full((2, 3072), 9, np.uint8)
    splits = imagenet32.load(write(tmp_path, train_data_batch_10=python2_batch(rows, [3, 4])))
    assert (splits.train.labels[-2:].tolist(), int(splits.train.pixels[-1].sum())) == ([2, 3], 9 * 3072)


def test_images_are_converted_once_and_then_mapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = imagenet32.load(write(tmp_path))
    assert set(made := mapped(tmp_path)) == {"train.images", "test.images"}
    monkeypatch.setattr(imagenet32, "load_batch", lambda *_: pytest.fail("converted again"))
    again = imagenet32.load(tmp_path)
    assert mapped(tmp_path) == made
    assert torch.equal(again.train.pixels, first.train.pixels)
    assert torch.equal(again.train.labels, first.train.labels)
    maps = Path("/proc/self/maps")
    if maps.is_file():
        address = again.train.pixels.data_ptr()
        (line,) = (line for line in maps.read_text().splitlines() if _spans(line, address))
        assert line.endswith(str(tmp_path / imagenet32.CACHE_FOLDER / "train.images"))


def _spans(line: str, address: int) -> bool:
    low, high = (int(bound, 16) for bound in line.split()[0].split("-"))
    return low <= address < high


def test_files_that_change_are_converted_again(tmp_path: Path) -> None:
    imagenet32.load(write(tmp_path))
    made = mapped(tmp_path)
    path = tmp_path / "Imagenet32_train" / "train_data_batch_7"
    path.write_bytes(batch(70))  # of the same size
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
    splits = imagenet32.load(tmp_path)
    assert splits.train.pixels[18, 0, 0, 0] == 70
    now = mapped(tmp_path)
    assert now["train.images"] != made["train.images"]
    assert now["test.images"] == made["test.images"]


@pytest.mark.parametrize("damage", ["cut", "gone", "no description", "junk", "other description"])
def test_a_converted_file_that_is_not_whole_is_not_used(tmp_path: Path, damage: str) -> None:
    whole = imagenet32.load(write(tmp_path)).train
    folder = tmp_path / imagenet32.CACHE_FOLDER
    images, description = folder / "train.images", folder / "train.json"
    if damage == "cut":
        content = images.read_bytes()
        images.unlink()  # rather than to shorten what is mapped, which would end this process
        images.write_bytes(content[:-3080])  # one image less
    elif damage == "gone":
        images.unlink()
    elif damage == "no description":
        description.unlink()
    else:
        description.write_text("[1]" if damage == "other description" else '{"count": 3')
    again = imagenet32.load(tmp_path).train
    assert torch.equal(again.pixels, whole.pixels)
    assert torch.equal(again.labels, whole.labels)


def test_an_interrupted_conversion_leaves_nothing_that_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, calls = load_batch, []

    def stop(*arguments: object) -> object:
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return read(*arguments)  # type: ignore[arg-type]

    write(tmp_path)
    monkeypatch.setattr(imagenet32, "load_batch", stop)
    with pytest.raises(KeyboardInterrupt):
        imagenet32.load(tmp_path)
    assert mapped(tmp_path) == {}
    (tmp_path / imagenet32.CACHE_FOLDER / ".train.images.partial").write_bytes(b"left by a kill")
    assert len(imagenet32.load(tmp_path).train) == 30
    assert not list((tmp_path / imagenet32.CACHE_FOLDER).glob("*.partial"))


def test_mapped_images_can_be_written_to_without_harm(tmp_path: Path) -> None:
    pixels = imagenet32.load(write(tmp_path)).train.pixels
    before = pixels.clone()
    pixels.zero_()
    assert torch.equal(imagenet32.load(tmp_path).train.pixels, before)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": [0, 1, 2]}, r"'labels': expected whole numbers in 1\.\.1000, got 0"),
        ({"labels": [1, 1001, 2]}, "got 1001"),
        ({"labels": [1, 2]}, "list of 3 labels .* got 2 labels"),
        ({"data": np.zeros((3, 3072))}, r"'data': expected a uint8 array .* got float64 \(3, 3072\)"),
        ({"data": np.zeros((3, 12288), np.uint8)}, r"got uint8 \(3, 12288\)"),
    ],
)
def test_misshapen_files_are_refused(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=f"train_data_batch_3: .*{message}"):
        imagenet32.load(write(tmp_path, train_data_batch_3=batch(3, **changes)))
    assert mapped(tmp_path) == {}


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="val_data: not a readable batch file"):
        imagenet32.load(write(tmp_path, val_data=batch(1)[:-500]))


def test_what_is_missing_is_named_with_the_address_and_the_place(tmp_path: Path) -> None:
    write(tmp_path)
    for name in ("Imagenet32_train/train_data_batch_2", "Imagenet32_val/val_data"):
        (tmp_path / name).unlink()
    with pytest.raises(UserError) as caught:
        imagenet32.load(tmp_path)
    folders = (tmp_path / "Imagenet32_train", tmp_path / "Imagenet32_val")
    missing = f"{folders[0]} lacks train_data_batch_2, and {folders[1]} lacks val_data."
    for words in (missing, imagenet32.ADDRESS, "account", "Downsampled ImageNet", "data_dir=", "DATA_DIR"):
        assert words in str(caught.value)
    assert "train_data_batch_1, " not in str(caught.value)


def test_where_the_converted_images_cannot_be_kept_is_said(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / imagenet32.CACHE_FOLDER).touch()  # a file where the folder should be
    with pytest.raises(UserError, match=r"imagenet32_mapped.train\.images: the images cannot be kept in this file"):
        imagenet32.load(tmp_path)


def test_generated_files_have_as_many_images_and_classes_as_asked(
    make_imagenet32: Callable[..., Path], tmp_path: Path
) -> None:
    splits = imagenet32.load(make_imagenet32(images=234, classes=5))
    assert (len(splits.train), len(splits.test)) == (234, 23)
    assert splits.train.labels.unique().tolist() == [0, 249, 499, 749, 999]
    means = torch.stack([splits.train.pixels[splits.train.labels == k].double().mean(0) for k in (0, 249)])
    assert (means[0] - means[1]).abs().mean() > 30
    spread = (splits.test.pixels[splits.test.labels == 249].double() - means[1]).abs().max()
    assert 10 < spread < 80


def test_validation_of_mapped_images_copies_none(make_imagenet32: Callable[..., Path]) -> None:
    data = ImageDataModule(
        imagenet32.load, data_dir=make_imagenet32(images=200), batch_size=20, mean=[0.5] * 3, std=[0.2] * 3,
        val_fraction=0.2,
    )  # fmt: skip
    train, val = data.train_dataloader(), data.val_dataloader()
    assert not isinstance(val, list)
    assert (len(train.images), len(val.images)) == (160, 40)
    assert train.images.whole.pixels.data_ptr() == val.images.whole.pixels.data_ptr()  # type: ignore[union-attr]
    assert len(list(train)) == 8
