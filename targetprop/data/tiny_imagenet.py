"""Tiny ImageNet (Stanford CS231n, 2015): 100,000 training and 10,000 test images of 3x64x64 pixels in 200 classes.

The images published for validation are the test set, since labels of the test images were never published; validation
is a split of the training images, as for every data set here. They are JPEG files, read from their folders or from the
zip file as it is, and converted once into files that are mapped into memory (`mapped.py`), 1.35 GB in all.
"""

from __future__ import annotations

import io
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from targetprop.data.archive import download as download_file
from targetprop.data.files import md5_of, readable, refuse_large
from targetprop.data.images import Images, Splits
from targetprop.data.locate import Located
from targetprop.data.mapped import Piece, Read, mapped_images
from targetprop.utils.errors import UserError, require
from targetprop.utils.text import printable, shown

TITLE = "Tiny ImageNet"
URL = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"  # the checksum vouches for it
MD5 = "90528d7ca1a48142e341f4ef8d21d0de"
FOLDER, ARCHIVE = "tiny-imagenet-200", "tiny-imagenet-200.zip"
FOLDERS = (FOLDER, f"{FOLDER}/{FOLDER}", "tiny_imagenet", ".")
CACHE_FOLDER = "tiny_imagenet_mapped"
ANNOTATIONS = "val/val_annotations.txt"
SHAPE = (3, 64, 64)
SUFFIXES = (".jpeg", ".jpg", ".png")
MOST_CLASSES = 1000
IMAGE, LIST = 2**20, 2**24
"""Bytes that an image, and a list, may have."""
PIECE = 500
"""Images that are in memory at once, at most."""


class _Tree(Protocol):
    """The folders of the data set, on the disk or in a zip file."""

    place: Path
    """What to name in messages."""

    def names(self) -> Iterable[str]:
        """Of all files for training, such as train/n01443537/images/n01443537_0.JPEG."""

    def sources(self, part: str, classes: Sequence[str]) -> list[Path]:
        """What tells by its size and time whether the images of a part have changed."""

    def read(self, name: str, most: int) -> bytes | None:
        """The content of a file; None if it is not there.

        Raises:
            UserError: it cannot be read, or has more than `most` bytes.
        """


class _Folder:
    def __init__(self, root: Path) -> None:
        self.place = root

    def names(self) -> Iterator[str]:
        with readable(self.place):
            for folder in sorted((self.place / "train").iterdir()):
                images = folder / "images"
                for path in images.iterdir() if images.is_dir() else ():
                    yield path.relative_to(self.place).as_posix()

    def sources(self, part: str, classes: Sequence[str]) -> list[Path]:
        if part == "test":
            return [self.place / ANNOTATIONS, self.place / "val" / "images"]
        return [self.place / "train" / name / "images" for name in classes]

    def read(self, name: str, most: int) -> bytes | None:
        path = self.place / name
        with readable(path):
            if not path.is_file():
                return None
            refuse_large(path, most)
            return path.read_bytes()


class _Zip:
    def __init__(self, path: Path) -> None:
        self.place = path
        try:
            with readable(path):
                self._zip = zipfile.ZipFile(path)
        except zipfile.BadZipFile as error:
            raise UserError(
                f"{path}: not a readable zip file ({printable(error)}). Get it again from {URL}."
            ) from error
        self._members = {info.filename: info for info in self._zip.infolist()}
        self._prefix = f"{FOLDER}/"

    def names(self) -> Iterator[str]:
        start = f"{self._prefix}train/"
        return (name.removeprefix(self._prefix) for name in sorted(self._members) if name.startswith(start))

    def sources(self, part: str, classes: Sequence[str]) -> list[Path]:
        return [self.place]

    def read(self, name: str, most: int) -> bytes | None:
        member = self._members.get(self._prefix + name)
        if member is None or member.is_dir():
            return None
        if member.file_size > most:
            raise UserError(f"{self.place}: {name}: expected at most {most:,} bytes, got {member.file_size:,}")
        try:
            with self._zip.open(member) as file:
                return file.read(most)
        except Exception as error:  # of zipfile and the packers that it uses
            raise UserError(f"{self.place}: {name} cannot be unpacked ({printable(error)}). Get it again.") from error


def load(data_dir: Path | str, download: bool = True, *, cache_dir: Path | str | None = None) -> Splits:
    """Tiny ImageNet from its folders in `data_dir`/tiny-imagenet-200, or from tiny-imagenet-200.zip in `data_dir`.

    The zip file is checked by its md5; of the folders no checksums are published. Classes are in the order of their
    WordNet numbers, the names of their folders, and named as words.txt says. Folders may hold fewer classes and images,
    which is noted with the results.

    Args:
        data_dir: where the folders or the zip file are looked for.
        download: whether the zip file is downloaded, 248 MB, if there is neither.
        cache_dir: where the converted files are kept; None for `data_dir`/tiny_imagenet_mapped.

    Raises:
        UserError: files are missing or do not hold what was published, or the converted ones cannot be kept.
    """
    data_dir = Path(data_dir)
    tree = _find(data_dir, download)
    images = _by_class(tree)
    labels = {name: number for number, name in enumerate(images)}
    cache = data_dir / CACHE_FOLDER if cache_dir is None else Path(cache_dir)
    names = _class_names(tree, list(images))
    train = _images(cache, "train", tree, names, labels, partial(_train, tree, images))
    test = _images(cache, "test", tree, names, labels, partial(_test, tree, labels))
    whole = len(images) == 200 and len(train) == 100_000 and len(test) == 10_000
    original = whole and (isinstance(tree, _Folder) or md5_of(tree.place) == MD5)
    return Located(TITLE, {}, [] if original else [tree.place]).noted(Splits(train, test))


def _find(data_dir: Path, download: bool) -> _Tree:
    """The folders, else the zip file, which is fetched if need be."""
    with readable(data_dir):
        for folder in FOLDERS:
            if (data_dir / folder / "train").is_dir() and (data_dir / folder / "val").is_dir():
                return _Folder(data_dir / folder)
        packed = next((path for each in (".", FOLDER) if (path := data_dir / each / ARCHIVE).is_file()), None)
    if packed is None and not download:
        raise _missing(data_dir, "the download is switched off")
    try:
        return _Zip(packed or _fetched(data_dir))
    except (OSError, ValueError) as error:
        raise _missing(data_dir, f"the download failed: {error}") from error


def _fetched(data_dir: Path) -> Path:
    data_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".download-", dir=data_dir) as scratch:
        return download_file(URL, MD5, Path(scratch) / ARCHIVE).replace(data_dir / ARCHIVE)


def _missing(data_dir: Path, reason: str) -> UserError:
    return UserError(
        f"{TITLE}: {data_dir} has neither {FOLDER}/train and {FOLDER}/val nor {ARCHIVE}, and {reason}. Put {URL}, "
        "packed or not, there, or say with data_dir= (or the variable DATA_DIR) where it is."
    )


def _by_class(tree: _Tree) -> Mapping[str, list[str]]:
    """The files of the training images of each class, in order."""
    found: dict[str, list[str]] = {}
    for name in sorted(tree.names()):
        parts = name.split("/")
        if len(parts) == 4 and parts[2] == "images" and name.lower().endswith(SUFFIXES):
            found.setdefault(parts[1], []).append(name)
    where = f"{tree.place}: train"
    require(1 <= len(found) <= MOST_CLASSES, where, "folders CLASS/images with images, one for each class", len(found))
    return found


def _class_names(tree: _Tree, classes: Sequence[str]) -> tuple[str, ...]:
    """The first word for each class, or its number where there is none."""
    words = {}
    for line in (tree.read("words.txt", LIST) or b"").decode("utf-8", "replace").splitlines():
        number, _, said = line.partition("\t")
        words[number] = said.partition(",")[0].strip()
    return tuple(words.get(each) or each for each in classes)


def _images(
    cache: Path, part: str, tree: _Tree, names: tuple[str, ...], labels: Mapping[str, int], read: Read
) -> Images:
    sources = tree.sources(part, list(labels))
    missing = [path for path in sources if not path.exists()]
    if missing:
        raise UserError(f"{TITLE}: {missing[0]} is missing. Get it again from {URL}.")
    pixels, classed = mapped_images(cache, part, SHAPE, sources, read, "load.cache_dir= names another place.")
    try:
        return Images(pixels, classed, names)
    except UserError as error:
        raise UserError(f"{cache / part}.images: it does not hold {TITLE} ({error}). Delete it.") from None


def _train(tree: _Tree, images: Mapping[str, list[str]], source: Path) -> Iterator[Piece]:
    """The training images of one class, if its folder is the source, else of all."""
    for label, (name, files) in enumerate(images.items()):
        if isinstance(tree, _Zip) or source.parent.name == name:
            yield from _pieces(tree, files, [label] * len(files))


def _test(tree: _Tree, labels: Mapping[str, int], source: Path) -> Iterator[Piece]:
    """All test images, in the order of the list of their classes."""
    if source.name == "images":
        return
    content = tree.read(ANNOTATIONS, LIST)
    where = f"{tree.place}: {ANNOTATIONS}"
    if content is None:
        raise UserError(f"{where} is missing. Get it again from {URL}.")
    rows = [line.split("\t") for line in content.decode("utf-8", "replace").splitlines()]
    for row in rows:
        if not (len(row) >= 2 and row[1] in labels and "/" not in row[0]):
            raise UserError(
                f"{where}: expected lines of an image and one of the classes in train, got {shown(row[:2])}"
            )
    require(bool(rows), where, "a line for each image", "none")
    yield from _pieces(tree, [f"val/images/{row[0]}" for row in rows], [labels[row[1]] for row in rows])


def _pieces(tree: _Tree, files: Sequence[str], labels: Sequence[int]) -> Iterator[Piece]:
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(files), PIECE):
            chosen = files[start : start + PIECE]
            contents = [tree.read(name, IMAGE) for name in chosen]
            images = pool.map(partial(_decoded, tree.place), chosen, contents)
            yield np.stack(list(images)), np.array(labels[start : start + PIECE], np.int64)


def _decoded(place: Path, name: str, content: bytes | None) -> NDArray[np.uint8]:
    """An image, uint8 (3, 64, 64); grey ones have three equal channels."""
    from PIL import Image  # here, because only a conversion needs it

    if content is None:
        raise UserError(f"{place}: {name} is missing. Get it again from {URL}.")
    try:
        with Image.open(io.BytesIO(content), formats=["JPEG", "PNG"]) as image:
            if image.size != (64, 64):
                raise ValueError(f"it has {image.width}x{image.height} pixels, not 64x64")
            return np.asarray(image.convert("RGB")).transpose(2, 0, 1)
    except Exception as error:  # a broken image may raise anything
        raise UserError(f"{place}: {name}: not a readable image ({printable(error)}). Get it again.") from error
