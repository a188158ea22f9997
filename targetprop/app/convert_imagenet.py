"""Make ImageNet32 from ImageNet: files in the published format from a tree of folders.

    targetprop convert_imagenet SOURCE TARGET [--val-labels FILE]

SOURCE holds train/CLASS/*.JPEG and val/CLASS/*.JPEG; images may also stand in a folder "images" in that of their class.
Where all images of val stand in one folder, as in ILSVRC2012_val, FILE says of which class each one is: lines that
begin with the name of an image and its class, with a space or a comma between, such as those of LOC_val_solution.csv of
Kaggle's copy. (val/val_annotations.txt, as Tiny ImageNet has it, is found by itself.)

TARGET gets Imagenet32_train/train_data_batch_1 to 10 and Imagenet32_val/val_data, so that data_dir=TARGET trains on
them, and classes.txt, whose line k names the class of label k: classes are in alphabetical order (in the published
files they are in another one). md5sums.txt holds their checksums, by which a file that is damaged later is noticed
before it is used. Each image is resized to 32x32 by Pillow's BOX filter, without regard to its proportions, as the
published ones were.

Which images are in a file, and in what order, is determined by their names. A file that is there is kept, so that a
conversion that was stopped goes on where it was when it is started again. A file is not written while one of its images
cannot be read; all others are. Memory: twice that of one file, .8 GB for the whole of ImageNet.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import pickle
import re
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress

from targetprop.data.files import md5_of, readable
from targetprop.data.imagenet32 import (
    CLASSES,
    CLASSES_FILE,
    SHAPE,
    SUMS_FILE,
    TEST_FILE,
    TEST_FOLDERS,
    TRAIN_FILES,
    TRAIN_FOLDERS,
)
from targetprop.data.pickles import MOST
from targetprop.data.sums import read_sums, write_sums
from targetprop.utils.errors import UserError, require
from targetprop.utils.files import whole_file
from targetprop.utils.text import shown

SUFFIXES = {".jpeg", ".jpg", ".png"}
ANNOTATIONS = "val/val_annotations.txt"
LISTS = "--val-labels FILE says of which class each one is, a line for each: its name and its class (--help)."
NAMED = 10
"""How many unreadable images a message names."""


@dataclass(frozen=True)
class Part:
    """A file to write, and the images for it: their names below `folder`, and classes, in order."""

    file: Path
    folder: Path
    images: list[tuple[str, str]]


def convert(source: Path, target: Path, val_labels: Path | None = None) -> None:
    """Write those files of ImageNet32 below `target` that are not there yet.

    Args:
        source: the folders train and val.
        target: where files are written.
        val_labels: a list of the classes of the images of val, if folders do not say them.

    Raises:
        UserError: `source` is no such tree, `target` holds files of other classes or of another origin, or images
            cannot be read. The message names these, once all files without such images have been written.
    """
    if val_labels is None and (source / ANNOTATIONS).is_file():
        val_labels = source / ANNOTATIONS
    classes = _class_names(source, listed=val_labels is not None)
    parts = [*_train_parts(source / "train", target, classes), _test_part(source / "val", target, classes, val_labels)]
    _list_classes(classes, target, parts)
    labels = {name: number for number, name in enumerate(classes, start=1)}
    unreadable: list[str] = []
    pool = ThreadPoolExecutor()
    try:
        with Progress() as progress:
            tasks = [progress.add_task(part.file.name, total=len(part.images)) for part in parts]
            for number, (part, task) in enumerate(zip(parts, tasks, strict=True), start=1):
                _say_lines(f"File {number} of {len(parts)}, {part.file.name}: {len(part.images):,} images")
                if part.file.is_file():
                    progress.advance(task, len(part.images))
                    continue
                images = pool.map(_read, (part.folder / name for name, _ in part.images))
                rows, broken = _stack(progress.track(images, task_id=task, total=len(part.images)), len(part.images))
                unreadable += broken
                if not broken:
                    _write(part.file, target, rows, [labels[name] for _, name in part.images])
    finally:
        pool.shutdown(cancel_futures=True)  # or an interrupted conversion would first read all that is left
    if unreadable:
        raise _unreadable(unreadable)


def _say_lines(line: str) -> None:
    """Say how far it is where no bar is seen."""
    if not sys.stdout.isatty():
        print(line, flush=True)


def _class_names(source: Path, *, listed: bool) -> list[str]:
    """The folders of train in alphabetical order; val, unless its classes are listed, may lack some of them."""
    train, val = _folders(source / "train"), [] if listed else _folders(source / "val")
    fits = 1 <= len(train) <= len(CLASSES)
    require(fits, str(source / "train"), f"1 to {len(CLASSES)} folders, one for each class", len(train))
    others = sorted(set(val) - set(train))
    flat = not (listed or val) or others == ["images"]
    if flat:
        raise UserError(f"{source / 'val'}: its images are not in folders of their classes; {LISTS}")
    require(not others, str(source / "val"), "only folders that are in train as well", others)
    for name in train:  # each is a line of classes.txt
        require(name.isprintable(), str(source / "train"), "folders whose names can be printed", name)
    return train


def _folders(path: Path) -> list[str]:
    if not path.is_dir():
        raise UserError(f"{path}: expected a folder with a folder of images for each class, got none")
    return sorted(each.name for each in path.iterdir() if each.is_dir())


def _train_parts(source: Path, target: Path, classes: Sequence[str]) -> list[Part]:
    """All training files, about equally large.

    A hash of its name says where an image belongs: one that is taken away leaves all others in their files.
    """
    parts = [Part(target / TRAIN_FOLDERS[0] / name, source, []) for name in TRAIN_FILES]
    for image in _images(source, classes):
        parts[_key(image) % len(parts)].images.append(image)
    return parts


def _test_part(source: Path, target: Path, classes: Sequence[str], val_labels: Path | None) -> Part:
    images = _images(source, classes) if val_labels is None else _listed_images(source, classes, val_labels)
    return Part(target / TEST_FOLDERS[0] / TEST_FILE, source, images)


def _images(source: Path, classes: Sequence[str]) -> list[tuple[str, str]]:
    """The images in the folders of the classes, by their names below `source`, each with its class, mixed."""
    found = [
        (path.relative_to(source).as_posix(), name)
        for name in classes
        for folder in (source / name, source / name / "images")
        for path in _files(folder)
    ]
    return sorted(found, key=_key)


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES] if folder.is_dir() else []


def _listed_images(source: Path, classes: Sequence[str], val_labels: Path) -> list[tuple[str, str]]:
    """The images in one folder, each with the class that a list says, mixed.

    Raises:
        UserError: the list cannot be read, or does not name an image, or names another class.
    """
    with readable(val_labels):
        lines = val_labels.read_bytes().decode("utf-8", "replace").splitlines()
    said = {}
    for number, line in enumerate(lines):
        name, found, *_ = [*re.split(r"[,\s]+", line.strip()), "", ""]
        if found in classes:
            said[name.removesuffix(Path(name).suffix)] = found
        elif number:  # the first line may be a heading
            raise UserError(f"{val_labels}: expected lines of an image and a class that train has, got {shown(line)}")
    images = []
    for path in [*_files(source), *_files(source / "images")]:
        if path.stem not in said:
            raise UserError(f"{val_labels}: it does not say of which class {path.name} is")
        images.append((path.relative_to(source).as_posix(), said[path.stem]))
    return sorted(images, key=_key)


def _key(image: tuple[str, str]) -> int:
    """A number that is determined by the class of an image and its name."""
    name, of = image
    return int.from_bytes(hashlib.sha256(f"{of}/{Path(name).name}".encode()).digest(), "big")


def _list_classes(classes: Sequence[str], target: Path, parts: Sequence[Part]) -> None:
    """Write classes.txt, or see that what is in `target` fits it."""
    for part in parts:
        images = f"an image ({', '.join(sorted(SUFFIXES))}) for every file"
        require(bool(part.images), str(part.folder), images, f"none for {part.file.name}")
        most = MOST // (2 * math.prod(SHAPE))  # so that the file can be read again
        require(len(part.images) <= most, str(part.folder), f"at most {most:,} images a file", len(part.images))
    listed, text = target / CLASSES_FILE, "".join(f"{name}\n" for name in classes).encode()
    placed = [part.file for part in parts if part.file.is_file()]
    if listed.is_file() and listed.read_bytes() != text:
        raise UserError(f"{listed}: it names other classes than SOURCE has. Choose another TARGET.")
    if placed and not listed.is_file():
        raise UserError(f"{placed[0]} is of another origin: there is no {listed}. Choose another TARGET.")
    for part in parts:
        part.file.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(listed) as partial:
        partial.write_bytes(text)


def _read(path: Path) -> NDArray[np.uint8] | str:
    """The image, resized, as uint8 (3, 32, 32); or, as text, which one it is and why it cannot be read."""
    from PIL import Image  # here, because no training needs it

    try:
        with Image.open(path) as image:
            small = image.convert("RGB").resize(SHAPE[:0:-1], Image.Resampling.BOX)
    except Exception as error:  # a broken image may raise anything
        return f"{path} ({type(error).__name__}: {error})"
    return np.asarray(small).transpose(2, 0, 1)


def _stack(images: Iterable[NDArray[np.uint8] | str], count: int) -> tuple[NDArray[np.uint8], list[str]]:
    """The images as uint8 (count, 3072), and what is said of those that cannot be read."""
    rows, broken = np.zeros((count, *SHAPE), np.uint8), []
    for row, image in zip(rows, images, strict=True):
        if isinstance(image, str):
            broken.append(image)
        else:
            row[:] = image
    return rows.reshape(count, -1), broken


def _write(path: Path, target: Path, rows: NDArray[np.uint8], labels: list[int]) -> None:
    """A file of the published keys: 'mean' is that of its own images; and its checksum, before it is there."""
    with whole_file(path) as partial:
        with partial.open("wb") as file:
            pickle.dump({"data": rows, "labels": labels, "mean": rows.mean(axis=0)}, file, protocol=4)
        sums = read_sums(target / SUMS_FILE)
        write_sums(target / SUMS_FILE, {**sums, path.relative_to(target).as_posix(): md5_of(partial)})


def _unreadable(messages: list[str]) -> UserError:
    more = f", and {len(messages) - NAMED} more" if len(messages) > NAMED else ""
    return UserError(
        f"Unreadable images: {len(messages)}, namely {', '.join(messages[:NAMED])}{more}. Files that need them were "
        "not written. Replace or remove these images and start again: files that are there are kept."
    )


def main(arguments: Sequence[str]) -> None:
    """The command, with what follows its name."""
    parser = argparse.ArgumentParser(
        "targetprop convert_imagenet", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", metavar="SOURCE", type=Path)
    parser.add_argument("target", metavar="TARGET", type=Path)
    parser.add_argument("--val-labels", metavar="FILE", type=Path)
    options = parser.parse_args(arguments)
    try:
        convert(options.source, options.target, options.val_labels)
    except (UserError, OSError) as error:
        sys.exit(f"Error: {error}")
    except KeyboardInterrupt:
        sys.exit("Stopped. Start it again to go on.")
