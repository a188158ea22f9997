"""Finding the published files of a data set, where users have put them, or fetching them."""

from __future__ import annotations

import gzip
import lzma
import tempfile
import warnings
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from targetprop.data.archive import GZIP, MOST, XZ, Archive, Published
from targetprop.data.examples import ExampleSplits
from targetprop.data.files import Stream, md5_of, md5_of_stream, readable, refuse_large
from targetprop.data.images import Splits
from targetprop.utils.errors import UserError

S = TypeVar("S", Splits, ExampleSplits)


class Located(dict[str, Path]):
    """Where each file of a data set is, by its published name.

    Attributes:
        title: of the data set.
        changed: paths of those that are not the published ones.
    """

    def __init__(self, title: str, paths: Mapping[str, Path], changed: Sequence[Path]) -> None:
        super().__init__(paths)
        self.title = title
        self.changed = changed

    @property
    def note(self) -> str:
        """Which of them are not the published ones; empty if all are."""
        return f"{self.title}: {self._names} are not the published files" if self.changed else ""

    @property
    def _names(self) -> str:
        return ", ".join(path.name for path in self.changed)

    def noted(self, splits: S) -> S:
        """What has been read of the files; with one warning and a note for the results where some are others."""
        if self.changed:
            warnings.warn(
                f"{self.title}: in {self.changed[0].parent} the checksums of {self._names} are not the published ones. "
                "The files are used as they are.",
                stacklevel=2,
            )
        return replace(splits, note=self.note)


def locate(published: Published, data_dir: Path, download: bool) -> Located:
    """Where each of the files of `published` is.

    They are looked for in their folder, and, if they are the published ones by their md5, in folders around it. What is
    missing is unpacked from the published archive where that lies in one of these, or downloaded. Files that are there
    are never overwritten. How a file is packed does not matter.

    Args:
        published: the files to look for.
        data_dir: the directory that holds the folder of the files.
        download: whether missing files are downloaded.

    Raises:
        UserError: files stay missing, or one cannot be read or is larger than it can be.
    """
    found = {name: _found(published, data_dir, name) for name in published.files}
    missing = [name for name, path in found.items() if path is None]
    if missing and isinstance(published, Archive) and (packed := _packed(published, data_dir)):
        _unpack(published, packed, data_dir, missing)
    elif missing and not download:
        raise _missing(published, data_dir, missing, "the download is switched off")
    elif missing:
        try:
            with _placing(published, data_dir) as scratch:
                published.fetch(missing, scratch)
        except (OSError, ValueError) as error:
            raise _missing(published, data_dir, missing, f"the download failed: {error}") from error
    folder = data_dir / published.folder
    paths = {name: path or _placed(published, folder, name) for name, path in found.items()}
    for path in paths.values():
        refuse_large(path, published.most)
    changed = [path for name, path in paths.items() if not _is_published(published, name, path)]
    return Located(published.title, paths, changed)


def _found(published: Published, data_dir: Path, name: str) -> Path | None:
    """Where a file is: in the proper folder, or the published one elsewhere."""
    with readable(data_dir):
        for folder in (published.folder, *published.aliases):
            if (path := _placed(published, data_dir / folder, name)).is_file():
                return path
        for folder in published.elsewhere:
            path = _placed(published, data_dir / folder, name)
            if path.is_file() and path.stat().st_size <= published.most and _is_published(published, name, path):
                return path
    return None


def _placed(published: Published, folder: Path, name: str) -> Path:
    """The file `name`, or the same unpacked, packed, or spelled otherwise, as some programs do it, if that is there."""
    spellings = [name, name.removesuffix(".gz")]
    spellings += [each.replace("-idx", ".idx") for each in spellings]
    if name in published.unpacked:
        plain = [name, *published.spellings.get(name, ())]
        spellings += [f"{each}{ending}" for each in plain for ending in ("", ".gz", ".xz")]
    return next((folder / each for each in spellings if (folder / each).is_file()), folder / name)


def _packed(archive: Archive, data_dir: Path) -> Path | None:
    """The archive itself, where the user has put it."""
    with readable(data_dir):
        places = (data_dir / folder / archive.name for folder in (".", archive.folder, *archive.elsewhere))
        return next((path for path in places if path.is_file()), None)


def _unpack(archive: Archive, packed: Path, data_dir: Path, names: list[str]) -> None:
    """Unpack files of an archive into the folder where they belong.

    Raises:
        UserError: the archive is broken, or there is no place for what is in it; names the archive.
    """
    try:
        with _placing(archive, data_dir) as scratch:
            archive.unpack(packed, names, scratch)
    except (OSError, ValueError) as error:
        reason = str(error) if isinstance(error, ValueError) else (error.strerror or str(error))
        message = f"{packed}: it cannot be unpacked into {data_dir / archive.folder}: {reason}"
        broken = isinstance(error, ValueError) or not error.errno
        raise UserError(f"{message}. Get it again from {archive.url}." if broken else f"{message}.") from error


def _missing(published: Published, data_dir: Path, names: list[str], reason: str) -> UserError:
    url, packed = published.url, isinstance(published, Archive)
    how = f"Put {url}, packed or not," if packed else f"Get them from {url}"
    return UserError(
        f"{published.title}: {data_dir / published.folder} lacks {', '.join(names)}, and {reason}. {how} into "
        f"this folder, or say with data_dir= (or the variable DATA_DIR) which directory holds the folder "
        f"{published.folder}.{_others(published, data_dir, names)}"
    )


def _others(published: Published, data_dir: Path, names: list[str]) -> str:
    """What to say of files that have the names, and lie where only the published ones are taken."""
    places = {path.parent for name in names for each in published.elsewhere
              if (path := _placed(published, data_dir / each, name)).is_file()}  # fmt: skip
    return f" Files of these names in {min(places)} are others, by their md5, and not taken." if places else ""


@contextmanager
def _placing(published: Published, data_dir: Path) -> Iterator[Path]:
    """An empty folder, whose files are put in place behind it, each one whole or not at all."""
    data_dir.mkdir(parents=True, exist_ok=True)
    # Below data_dir, so that the finished files need only be renamed; removed whatever happens.
    with tempfile.TemporaryDirectory(prefix=".download-", dir=data_dir) as scratch:
        yield Path(scratch)
        _place(Path(scratch), data_dir / published.folder)


def _place(source: Path, target: Path) -> None:
    """Move the files in `source` to `target`, except those that have appeared there during the download."""
    target.mkdir(parents=True, exist_ok=True)
    for file in source.iterdir():
        if not (target / file.name).exists():
            file.replace(target / file.name)


def _is_published(published: Published, name: str, path: Path) -> bool:
    """Whether the file at `path` is the published one called `name`, packed or not."""
    if md5_of(path) in (published.files[name], published.unpacked.get(name)):
        return True
    return name in published.unpacked and _md5_unpacked(path) == published.unpacked[name]


@contextmanager
def unpacking(path: Path) -> Iterator[Stream]:
    """A file opened for reading, unpacked as it is read if it is packed by gzip or xz.

    Raises:
        UserError: it cannot be read.
    """
    with readable(path), path.open("rb") as file:
        begin = file.read(len(XZ))
    opener = gzip.open if begin.startswith(GZIP) else lzma.open if begin == XZ else open
    with readable(path), opener(path, "rb") as stream:
        yield stream


def _md5_unpacked(path: Path) -> str | None:
    """The md5 of what is packed in a file; None if that cannot be unpacked or is larger than `MOST`."""
    try:
        with unpacking(path) as file:
            return md5_of_stream(file, MOST)
    except (UserError, EOFError, ValueError, zlib.error, lzma.LZMAError):
        return None
