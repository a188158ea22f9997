import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from data_helpers import everything_below, jpeg, tiny_imagenet_files, write_files, zipped

from targetprop.data import tiny_imagenet
from targetprop.data.tiny_imagenet import ARCHIVE, CACHE_FOLDER, FOLDER, load
from targetprop.utils.errors import UserError

pytestmark = pytest.mark.filterwarnings("ignore:Tiny ImageNet. in .* checksums")
Files = dict[str, bytes]
Write = Callable[[Path, Files], None]


def as_folders(data_dir: Path, files: Files) -> None:
    write_files(data_dir / FOLDER, files)


def as_zip(data_dir: Path, files: Files) -> None:
    write_files(data_dir, {ARCHIVE: zipped(files, FOLDER)})


def as_zip_in_its_folder(data_dir: Path, files: Files) -> None:
    write_files(data_dir / FOLDER, {ARCHIVE: zipped(files, FOLDER)})


def in_the_directory_itself(data_dir: Path, files: Files) -> None:
    write_files(data_dir, files)


def doubly_nested(data_dir: Path, files: Files) -> None:
    write_files(data_dir / FOLDER / FOLDER, files)


WAYS = (as_folders, as_zip, as_zip_in_its_folder, in_the_directory_itself, doubly_nested)


@pytest.mark.parametrize("write", WAYS)
def test_published_layout(tmp_path: Path, write: Write) -> None:
    write(tmp_path, tiny_imagenet_files())
    splits = load(tmp_path, download=False)
    assert splits.train.classes == ("goldfish", "ox", "n03")  # in the order of their numbers, n01, n02, n03
    assert splits.train.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert splits.test.labels.tolist() == [1, 0, 2]  # as the list of the annotations has them
    assert splits.train.image_shape == (3, 64, 64)
    assert np.array_equal(splits.train.pixels[0].numpy(), np.full((3, 64, 64), 128))  # a grey one
    red, blue = splits.train.pixels[4].float().mean((1, 2)), splits.test.pixels[0].float().mean((1, 2))
    assert red[0] > 250 > 5 > red[1:].max()
    assert blue[2] > 250 > 5 > blue[:2].max()
    assert "not the published files" in splits.note


@pytest.mark.parametrize("write", [as_folders, as_zip])
def test_images_are_converted_once_and_anew_if_they_change(
    tmp_path: Path, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = tiny_imagenet_files()
    write(tmp_path, files)
    first = load(tmp_path, download=False)
    with monkeypatch.context() as patched:
        patched.setattr(tiny_imagenet, "_decoded", None)
        again = load(tmp_path, download=False)
    assert again.train.pixels.equal(first.train.pixels)
    write(tmp_path, {**files, "train/n01/images/n01_2.JPEG": jpeg(0)})
    later = (tmp_path / CACHE_FOLDER / "train.json").stat().st_mtime + 10
    for path in (tmp_path / ARCHIVE, tmp_path / FOLDER / "train/n01/images"):
        if path.exists():
            os.utime(path, (later, later))
    assert load(tmp_path, download=False).train.labels.tolist() == [0, 0, 0, 1, 1, 2, 2]


def test_converted_images_may_be_kept_elsewhere(tmp_path: Path) -> None:
    as_folders(tmp_path / "data", tiny_imagenet_files())
    load(tmp_path / "data", download=False, cache_dir=tmp_path / "cache")
    assert "train.images" in everything_below(tmp_path / "cache")
    assert "train.images" not in everything_below(tmp_path / "data")


BROKEN: dict[str, tuple[Files, str]] = {
    "a truncated image": ({"train/n02/images/n02_1.JPEG": jpeg(7)[:300]}, "n02_1.JPEG: not a readable image"),
    "no image": ({"val/images/val_0.JPEG": b"<html>"}, "val_0.JPEG: not a readable image"),
    "an image of another size": ({"train/n02/images/n02_1.JPEG": jpeg(7, (32, 64))}, "n02_1.JPEG.*32x64 pixels"),
    "a large image": ({"train/n01/images/n01_0.JPEG": bytes(2**21)}, "n01_0.JPEG.*at most 1,048,576 bytes"),
    "an unknown class": (
        {"val/val_annotations.txt": b"val_0.JPEG\tn09"},
        "val_annotations.*classes in train.*n09",
    ),
    "another list": ({"val/val_annotations.txt": b"\xff\xfe\n"}, "val_annotations.txt: expected lines"),
    "a way out": ({"val/val_annotations.txt": b"../../x\tn01\n"}, "val_annotations.txt: expected lines"),
    "an empty list": ({"val/val_annotations.txt": b""}, "val_annotations.txt: expected a line for each image"),
    "an unlisted image": ({"val/val_annotations.txt": b"val_7.JPEG\tn01\n"}, "val_7.JPEG is missing"),
}


@pytest.mark.parametrize("write", [as_folders, as_zip])
@pytest.mark.parametrize("how", BROKEN)
def test_what_is_not_as_published_is_named(tmp_path: Path, write: Write, how: str) -> None:
    changes, message = BROKEN[how]
    write(tmp_path, {**tiny_imagenet_files(), **changes})
    with pytest.raises(UserError, match=message):
        load(tmp_path, download=False)


@pytest.mark.parametrize("write", [as_folders, as_zip])
def test_a_missing_list_is_named(tmp_path: Path, write: Write) -> None:
    files = tiny_imagenet_files()
    del files["val/val_annotations.txt"]
    write(tmp_path, files)
    with pytest.raises(UserError, match=r"val_annotations\.txt.* is missing"):
        load(tmp_path, download=False)


@pytest.mark.parametrize("content", [b"", b"PK", zipped(tiny_imagenet_files(), FOLDER)[:2000]])
def test_a_broken_zip_file_is_named(tmp_path: Path, content: bytes) -> None:
    write_files(tmp_path, {ARCHIVE: content})
    with pytest.raises(UserError, match=rf"{ARCHIVE}: not a readable zip file .*Get it again from http"):
        load(tmp_path, download=False)


def test_a_zip_file_of_something_else_is_named(tmp_path: Path) -> None:
    write_files(tmp_path, {ARCHIVE: zipped({"readme": b""}, "other")})
    with pytest.raises(UserError, match=rf"{ARCHIVE}: train: expected folders CLASS/images"):
        load(tmp_path, download=False)


def test_where_to_get_it_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has neither tiny-imagenet-200/train .* nor tiny-imagenet-200\.zip.*Put http"):
        load(tmp_path, download=False)
