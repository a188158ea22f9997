"""Finding the published files of a data set, or fetching them."""

from __future__ import annotations

import gzip
import shutil
import tarfile
import tempfile
import warnings
import zlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from targetprop.data.files import md5_of, md5_of_stream, readable, refuse_large
from targetprop.utils.errors import UserError

MOST = 2**30
"""Bytes that a file may have, unpacked, where nothing else is said."""
GZIP = b"\x1f\x8b"
"""What a file packed by gzip begins with."""


@dataclass(frozen=True)
class Published(ABC):
    """Files that a data set is published in, kept in one folder.

    Args:
        title: the name of the data set in messages.
        url: where the files come from.
        folder: the folder of the files, below `data_dir`.
        files: names of the files that are needed, and their md5. A file whose name ends in .gz may also lie there
            unpacked.
        unpacked: names of the files that may be unpacked, and the md5 of what is packed in them.
        most: bytes that any of the files may have; a few times those of the largest one.
    """

    title: str
    url: str
    folder: str
    files: Mapping[str, str]
    unpacked: Mapping[str, str] = field(default_factory=dict, kw_only=True)
    most: int = field(default=MOST, kw_only=True)

    @abstractmethod
    def fetch(self, names: list[str], target: Path) -> None:
        """Download the files `names` into the empty folder `target`.

        Raises:
            OSError: a file cannot be fetched.
            ValueError: a file is not what was published.
        """


@dataclass(frozen=True)
class Archive(Published):
    """A tar archive at `url`, which holds a folder of the same name.

    Args:
        md5: the checksum of the archive itself.
    """

    md5: str

    def fetch(self, names: list[str], target: Path) -> None:
        """Unpack the files `names` of the folder; all other members are passed over."""
        packed = _download(self.url, self.md5, target / "archive")
        wanted = {f"{self.folder}/{name}": target / name for name in names}
        try:
            with tarfile.open(packed, "r|*") as tar:  # as a stream: compressed data is slow to seek in
                for member in tar:
                    source = tar.extractfile(member) if member.name in wanted and member.isfile() else None
                    if source is not None:
                        with wanted.pop(member.name).open("wb") as sink:
                            shutil.copyfileobj(source, sink)
        except tarfile.TarError as error:
            raise ValueError(f"the archive is broken: {error}") from error
        if wanted:
            raise ValueError(f"the archive lacks {', '.join(wanted)}")
        packed.unlink()


@dataclass(frozen=True)
class SingleFiles(Published):
    """Files that are published one by one, each at `url` + its name."""

    def fetch(self, names: list[str], target: Path) -> None:
        """Download each of the files `names`."""
        for name in names:
            downloaded = _download(self.url + name, self.files[name], target / "download")
            shutil.copyfile(downloaded, target / name)  # pooch's own file can be read by its owner alone
            downloaded.unlink()


class Located(dict[str, Path]):
    """Where each file of a data set is, by its published name.

    Attributes:
        note: which of them are not the published ones; empty if all are.
    """

    note = ""


def locate(published: Published, data_dir: Path, download: bool) -> Located:
    """Where each of the files of `published` is.

    Files that are there are never overwritten. Files that hold something else than the published ones, by their md5,
    are used all the same, with one warning, and a note for the results. How a file is packed does not matter.

    Args:
        published: the files to look for.
        data_dir: the directory that holds the folder of the files.
        download: whether missing files are downloaded.

    Raises:
        UserError: files stay missing, or one cannot be read or is larger than it can be.
    """
    folder = data_dir / published.folder
    with readable(folder):
        missing = [name for name in published.files if not _placed(folder, name).is_file()]
    if missing and not download:
        raise _missing(published, folder, missing, "the download is switched off")
    if missing:
        try:
            _fetch(published, data_dir, missing)
        except (OSError, ValueError) as error:
            raise _missing(published, folder, missing, f"the download failed: {error}") from error
    located = Located({name: _placed(folder, name) for name in published.files})
    for path in located.values():
        refuse_large(path, published.most)
    changed = [path.name for name, path in located.items() if not _is_published(published, name, path)]
    if changed:
        located.note = f"{published.title}: {', '.join(changed)} are not the published files"
        warnings.warn(
            f"{published.title}: in {folder} the checksums of {', '.join(changed)} are not the published ones. "
            "The files are used as they are.",
            stacklevel=2,
        )
    return located


def _placed(folder: Path, name: str) -> Path:
    """The file `name`, or the same unpacked, if only that is there."""
    unpacked = folder / name.removesuffix(".gz")
    return unpacked if unpacked.is_file() and not (folder / name).is_file() else folder / name


def _missing(published: Published, folder: Path, names: list[str], reason: str) -> UserError:
    return UserError(
        f"{published.title}: {folder} lacks {', '.join(names)}, and {reason}. Get them from {published.url} into this "
        "folder, or say with data_dir= (or the variable DATA_DIR) which directory holds the folder "
        f"{published.folder}."
    )


def _fetch(published: Published, data_dir: Path, names: list[str]) -> None:
    """Download the files `names`, verified, and put them in place, each one whole or not at all."""
    data_dir.mkdir(parents=True, exist_ok=True)
    # Below data_dir, so that the finished files need only be renamed; removed whatever happens.
    with tempfile.TemporaryDirectory(prefix=".download-", dir=data_dir) as scratch:
        published.fetch(names, Path(scratch))
        _place(Path(scratch), data_dir / published.folder)


def _download(url: str, md5: str, path: Path) -> Path:
    """Download `url` into the file `path`, and return the path.

    Raises:
        ValueError: the md5 of what came is another one.
    """
    import pooch  # here, because it is needed once for a data set and not worth its import time in every run

    downloader = pooch.HTTPDownloader(progressbar=True)
    return Path(pooch.retrieve(url, f"md5:{md5}", fname=path.name, path=path.parent, downloader=downloader))


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
    with readable(path), path.open("rb") as file:
        packed = name in published.unpacked and file.read(len(GZIP)) == GZIP
    return packed and _md5_unpacked(path) == published.unpacked[name]


def _md5_unpacked(path: Path) -> str | None:
    """The md5 of what is packed in a file; None if that cannot be unpacked or is larger than `MOST`."""
    try:
        with gzip.open(path) as file:
            return md5_of_stream(file, MOST)
    except (OSError, EOFError, ValueError, zlib.error):
        return None
