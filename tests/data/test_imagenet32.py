"""ImageNet32 from small files of its format."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from data_helpers import python2_batch

from targetprop.app.datamodule import ImageDataModule
from targetprop.data import imagenet32
from targetprop.data import mapped as mapped_module
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


DESCRIPTIONS = {
    "junk": '{"count": 3',
    "other": "[1]",
    "deep": "[" * 10**5,
    "long": "[" + "1," * 10**6,
    "no text": "\xff",
}


@pytest.mark.parametrize("damage", ["cut", "gone", "no description", *DESCRIPTIONS])
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
        description.write_text(DESCRIPTIONS[damage], encoding="latin1")
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


@pytest.mark.parametrize("place", [0, 5 * 3072 + 7, 30 * 3072, -1], ids=["first", "pixel", "first label", "last"])
def test_a_damaged_byte_of_the_converted_file_is_mended(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, place: int
) -> None:
    whole = imagenet32.load(write(tmp_path)).train
    images = tmp_path / imagenet32.CACHE_FOLDER / "train.images"
    content = bytearray(images.read_bytes())
    content[place] ^= 4
    images.unlink()
    images.write_bytes(content)
    again = imagenet32.load(tmp_path).train
    assert torch.equal(again.pixels, whole.pixels)
    assert torch.equal(again.labels, whole.labels)
    assert [record.message for record in caplog.records if "damaged" in record.message] == [
        f"{images} is damaged, by its checksums. It is made anew."
    ]


@pytest.mark.parametrize("count", [0, -1, True, 30.0, "30", None, 10**400])
def test_a_description_that_counts_otherwise_is_not_used(tmp_path: Path, count: object) -> None:
    imagenet32.load(write(tmp_path))
    description = tmp_path / imagenet32.CACHE_FOLDER / "train.json"
    description.write_text(json.dumps({**json.loads(description.read_text()), "count": count}))
    assert len(imagenet32.load(tmp_path).train) == 30


def test_each_part_of_a_large_file_has_its_checksum(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapped_module, "CHUNK", 1000)
    monkeypatch.setattr(mapped_module, "PIECE", 100)
    file = tmp_path / "file"
    content = np.random.default_rng(0).bytes(3500)
    file.write_bytes(content)
    expected = [zlib.crc32(content[start : start + 1000]) for start in range(0, 3500, 1000)]
    assert mapped_module._checksums(file) == expected


def test_labels_that_are_none_are_said_to_be_of_the_converted_file(tmp_path: Path) -> None:
    imagenet32.load(write(tmp_path))
    folder = tmp_path / imagenet32.CACHE_FOLDER
    images, description = folder / "train.images", folder / "train.json"
    content = bytearray(images.read_bytes())
    content[-8:] = (16828).to_bytes(8, "little")
    images.unlink()
    images.write_bytes(content)
    sums = [zlib.crc32(content)]  # as if it had been made so
    description.write_text(json.dumps({**json.loads(description.read_text()), "crc32": sums}))
    with pytest.raises(UserError, match=rf"{images}: it does not hold ImageNet32 .*0\.\.16828.*Delete it"):
        imagenet32.load(tmp_path)


def test_a_shared_data_set_stays_as_it_is_with_another_place_for_the_converted_files(tmp_path: Path) -> None:
    shared, own = write(tmp_path / "shared"), tmp_path / "own" / "cache"
    before = sorted(shared.rglob("*"))
    first = imagenet32.load(shared, cache_dir=own)
    assert sorted(shared.rglob("*")) == before
    assert {path.name for path in own.glob("*.images")} == {"train.images", "test.images"}
    assert torch.equal(imagenet32.load(shared, cache_dir=str(own)).train.pixels, first.train.pixels)


def test_a_place_that_cannot_be_written_is_answered_with_the_key_for_another(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / imagenet32.CACHE_FOLDER).touch()
    with pytest.raises(UserError, match=r"load\.cache_dir= names another place"):
        imagenet32.load(tmp_path)


def test_files_are_compared_with_a_list_of_checksums(tmp_path: Path) -> None:
    write(tmp_path)
    content = (tmp_path / "Imagenet32_val" / "val_data").read_bytes()
    sums = tmp_path / imagenet32.SUMS_FILE
    sums.write_text(f"{hashlib.md5(content).hexdigest()}  Imagenet32_val/val_data\n")
    imagenet32.load(tmp_path)
    (tmp_path / "Imagenet32_val" / "val_data").write_bytes(batch(4))
    with pytest.raises(UserError, match=r"val_data: expected the md5 \w{32} of md5sums\.txt, got "):
        imagenet32.load(tmp_path)
    sums.write_text("<html>")
    with pytest.raises(UserError, match=r"md5sums\.txt: expected lines of an md5 and the name of a file, got '<html>'"):
        imagenet32.load(tmp_path)
