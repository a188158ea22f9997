"""ImageNet32 from a tree of folders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from targetprop.app import convert_imagenet
from targetprop.app.convert_imagenet import convert, main
from targetprop.data import imagenet32
from targetprop.utils.errors import UserError

CLASSES = ["n01", "n02", "n10"]
FILES = sorted([*imagenet32.TRAIN_FILES, imagenet32.TEST_FILE])


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """80 training and 9 validation images of three classes; each shows the number of its class and its own."""
    for part, count in (("train", 80), ("val", 9)):
        for number in range(count):
            folder = tmp_path / "source" / part / CLASSES[number % 3]
            folder.mkdir(parents=True, exist_ok=True)
            colour = (50 * (number % 3), number, 7)
            Image.new("RGB", (50, 40), colour).save(folder / f"{number}.JPEG", format="PNG")  # exact, as JPEG is not
    return tmp_path / "source"


def written(target: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in target.rglob("*") if path.is_file()}


def test_the_converted_files_hold_every_image_once_with_its_label(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    convert(source, target)
    assert (target / "classes.txt").read_text().split() == CLASSES
    splits = imagenet32.load(target)
    for images, count in ((splits.train, 80), (splits.test, 9)):
        red, green, blue = images.pixels.long().movedim(1, 0)[..., 5, 9]
        assert sorted(green.tolist()) == list(range(count))
        assert torch.equal(red, 50 * images.labels)
        assert torch.equal(images.labels, green % 3)
        assert set(blue.tolist()) == {7}
    assert splits.train.labels.tolist() != sorted(splits.train.labels.tolist())  # classes are mixed


def test_images_are_resized_by_means_over_boxes_whatever_their_proportions(source: Path, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    for path in (source / "val").rglob("*.JPEG"):
        path.unlink()
    Image.fromarray(pixels).save(source / "val" / "n02" / "image.png")
    convert(source, tmp_path / "target")
    test = imagenet32.load(tmp_path / "target").test
    means = pixels.reshape(32, 2, 32, 3, 3).mean(axis=(1, 3)).transpose(2, 0, 1)
    assert np.abs(test.pixels[0].numpy() - means).max() <= 1  # Pillow rounds after each of the two directions
    assert test.labels.tolist() == [1]


@pytest.mark.parametrize("mode", ["L", "CMYK", "P", "RGBA"])
def test_every_image_becomes_rgb(source: Path, tmp_path: Path, mode: str) -> None:
    for path in (source / "val").rglob("*.JPEG"):
        path.unlink()
    name, kind = ("image.jpg", "JPEG") if mode == "CMYK" else ("image.JPEG", "PNG")
    Image.new("RGB", (9, 8), (100, 100, 100)).convert(mode).save(source / "val" / "n01" / name, format=kind)
    convert(source, tmp_path / "target")
    pixels = imagenet32.load(tmp_path / "target").test.pixels.long()
    assert (pixels - 100).abs().max() <= 3


def test_a_stopped_conversion_goes_on_and_ends_as_an_uninterrupted_one(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    convert(source, tmp_path / "whole")
    target, read, seen = tmp_path / "target", convert_imagenet._read, []

    def stop(path: Path) -> object:
        seen.append(path)
        if len(seen) == 40:
            raise KeyboardInterrupt
        return read(path)

    monkeypatch.setattr(convert_imagenet, "_read", stop)
    with pytest.raises(KeyboardInterrupt):
        convert(source, target)
    first = written(target)
    assert 1 < len(first) < 1 + len(FILES)
    times = {path: path.stat().st_mtime_ns for path in target.rglob("*_batch_*")}
    convert(source, target)
    assert written(target) == written(tmp_path / "whole")
    assert all(path.stat().st_mtime_ns == time for path, time in times.items())
    seen.clear()
    convert(source, target)
    assert seen == []


def test_what_a_killed_conversion_left_is_no_file(source: Path, tmp_path: Path) -> None:
    convert(source, tmp_path / "target")
    file = tmp_path / "target" / "Imagenet32_train" / "train_data_batch_4"
    whole = file.read_bytes()
    file.unlink()
    file.with_name(".train_data_batch_4.partial").write_bytes(whole[:100])
    convert(source, tmp_path / "target")
    assert file.read_bytes() == whole
    assert sorted(written(tmp_path / "target")) == ["classes.txt", "md5sums.txt", *FILES]


def test_unreadable_images_are_named_and_the_files_without_them_are_written(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "target"
    (source / "train" / "n01" / "3.JPEG").write_bytes(b"no image")
    image = source / "val" / "n02" / "4.JPEG"
    image.write_bytes(image.read_bytes()[:60])
    with pytest.raises(SystemExit, match="Error: Unreadable images: 2, namely") as caught:
        main([str(source), str(target)])
    for words in ("n01/3.JPEG (UnidentifiedImageError", "n02/4.JPEG (", "Replace or remove"):
        assert words in str(caught.value)
    there = sorted(written(target))
    assert len(there) == len(FILES)  # two of them lacking, and the lists of classes and checksums
    assert imagenet32.TEST_FILE not in there
    (source / "train" / "n01" / "3.JPEG").unlink()
    image.unlink()
    main([str(source), str(target)])
    splits = imagenet32.load(target)
    assert (len(splits.train), len(splits.test)) == (79, 8)


def test_many_unreadable_images_are_counted(source: Path, tmp_path: Path) -> None:
    for number in range(25):
        (source / "val" / "n01" / f"broken{number}.jpg").touch()
    with pytest.raises(UserError, match=r"Unreadable images: 25, namely .*, and 15 more") as caught:
        convert(source, tmp_path / "target")
    assert str(caught.value).count(".jpg (") == 10


def test_files_of_other_classes_or_another_origin_are_not_added_to(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    convert(source, target)
    before = written(target)
    (source / "train" / "n005").mkdir()
    with pytest.raises(UserError, match=r"classes\.txt: it names other classes"):
        convert(source, target)
    assert written(target) == before
    (target / "classes.txt").unlink()
    with pytest.raises(UserError, match=r"train_data_batch_1 is of another origin"):
        convert(source, target)


def test_what_is_no_such_tree_is_refused(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    with pytest.raises(UserError, match=r"nowhere.train: expected a folder"):
        convert(tmp_path / "nowhere", target)
    (source / "val" / "n99").mkdir()
    with pytest.raises(UserError, match=r"val: expected only folders that are in train as well, got \['n99'\]"):
        convert(source, target)
    (source / "val" / "n99").rmdir()
    for path in source.rglob("*.JPEG"):
        path.rename(path.with_suffix(".txt"))
    with pytest.raises(UserError, match=r"train: expected an image .*got 'none for train_data_batch_1'"):
        convert(source, target)
    (source / "train" / "more").mkdir()
    for number in range(998):
        (source / "train" / f"more{number}").mkdir()
    with pytest.raises(UserError, match="train: expected 1 to 1000 folders, one for each class, got 1002"):
        convert(source, target)
    assert not target.exists()


def test_a_file_that_was_damaged_after_it_was_made_is_refused(source: Path, tmp_path: Path) -> None:
    convert(source, tmp_path / "target")
    file = tmp_path / "target" / "Imagenet32_train" / "train_data_batch_4"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"train_data_batch_4: expected the md5 .* of md5sums\.txt, got "):
        imagenet32.load(tmp_path / "target")
    file.unlink()
    convert(source, tmp_path / "target")
    imagenet32.load(tmp_path / "target")


def test_a_class_that_is_no_line_of_a_list_is_refused(source: Path, tmp_path: Path) -> None:
    (source / "train" / "n\n03").mkdir()
    with pytest.raises(UserError, match="folders whose names can be printed"):
        convert(source, tmp_path / "target")


def flat(source: Path, folder: str) -> list[tuple[str, str]]:
    """Move the images of val into one folder; their names and classes."""
    moved = [(path, source / folder / path.name) for path in sorted((source / "val").rglob("*.JPEG"))]
    (source / folder).mkdir(exist_ok=True)
    for old, new in moved:
        old.rename(new)
    for name in CLASSES:
        (source / "val" / name).rmdir()
    return [(new.name, old.parent.name) for old, new in moved]


@pytest.mark.parametrize("folder", ["val", "val/images"])
@pytest.mark.parametrize("form", ["{0} {1}", "{0},{1} 1 2 3 4 {1} 5 6 7 8", "{stem},{1}", "{0}\t{1}\t0\t0\t62\t62"])
def test_images_in_one_folder_are_classed_by_a_list(source: Path, tmp_path: Path, folder: str, form: str) -> None:
    convert(source, tmp_path / "expected")
    rows = flat(source, folder)
    lines = [form.format(*row, stem=Path(row[0]).stem) for row in rows]
    (tmp_path / "labels").write_text("\n".join(["ImageId,PredictionString", *lines]))
    convert(source, tmp_path / "target", tmp_path / "labels")
    assert written(tmp_path / "target") == written(tmp_path / "expected")


def test_the_layout_of_tiny_imagenet_needs_no_list(source: Path, tmp_path: Path) -> None:
    convert(source, tmp_path / "expected")
    rows = flat(source, "val/images")
    (source / "val/val_annotations.txt").write_text("".join(f"{name}\t{of}\t0\n" for name, of in rows))
    for name in CLASSES:
        (source / "train" / name).rename(source / "train" / "images")
        (source / "train" / name).mkdir()
        (source / "train" / "images").rename(source / "train" / name / "images")
    convert(source, tmp_path / "target")
    assert written(tmp_path / "target") == written(tmp_path / "expected")


@pytest.mark.parametrize("folder", ["val", "val/images"])
def test_images_of_val_in_one_folder_without_a_list_are_explained(source: Path, tmp_path: Path, folder: str) -> None:
    flat(source, folder)
    with pytest.raises(UserError, match=r"val: its images are not in folders of their classes; --val-labels FILE says"):
        convert(source, tmp_path / "target")


def test_a_list_that_does_not_fit_is_refused(source: Path, tmp_path: Path) -> None:
    rows = flat(source, "val")
    listed = tmp_path / "labels"
    listed.write_text("".join(f"{name} {of}\n" for name, of in rows[1:]))
    with pytest.raises(UserError, match=rf"labels: it does not say of which class {rows[0][0]} is"):
        convert(source, tmp_path / "target", listed)
    listed.write_text("".join(f"{name} n99\n" for name, _ in rows))
    with pytest.raises(UserError, match=r"labels: expected lines of an image and a class that train has, got '\d+"):
        convert(source, tmp_path / "target", listed)
    with pytest.raises(UserError, match="nothing: it cannot be read"):
        convert(source, tmp_path / "target", tmp_path / "nothing")


def test_without_a_terminal_there_is_a_line_for_each_file(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    convert(source, tmp_path / "target")
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("File ")]
    assert len(lines) == 11
    assert lines[-1] == "File 11 of 11, val_data: 9 images"
