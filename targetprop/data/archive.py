"""How data sets are published: an archive, or files one by one, with their checksums."""

from __future__ import annotations

import shutil
import tarfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from targetprop.data.files import CHUNK

MOST = 2**30
"""Bytes that a file may have, unpacked, where nothing else is said."""
GZIP = b"\x1f\x8b"
"""What a file packed by gzip begins with."""
XZ = b"\xfd7zXZ\x00"
"""What a file packed by xz begins with."""


@dataclass(frozen=True)
class Published(ABC):
    """Files that a data set is published in, kept in one folder.

    Args:
        title: the name of the data set in messages.
        url: where the files come from.
        folder: the folder of the files, below `data_dir`.
        files: names of the files that are needed, and their md5. A file whose name ends in .gz may also lie there
            unpacked, any other one packed by gzip or xz, which then ends its name.
        unpacked: names of the files that may be packed or not, and the md5 of what is packed in them.
        aliases: other names of the folder.
        spellings: other names of files, by their published ones.
        most: bytes that any of the files may have; a few times those of the largest one.
    """

    title: str
    url: str
    folder: str
    files: Mapping[str, str]
    unpacked: Mapping[str, str] = field(default_factory=dict, kw_only=True)
    aliases: tuple[str, ...] = field(default=(), kw_only=True)
    spellings: Mapping[str, tuple[str, ...]] = field(default_factory=dict, kw_only=True)
    most: int = field(default=MOST, kw_only=True)

    @property
    def elsewhere(self) -> tuple[str, ...]:
        """Folders below `data_dir` in which users have put the files, too: above, below, or within the proper one."""
        *above, name = Path(self.folder).parts
        nested = f"{self.folder}/{name}"
        return tuple(dict.fromkeys((nested, *("/".join(above[: n + 1]) for n in range(len(above))), name, ".")))

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

    @property
    def name(self) -> str:
        """That of the archive's file."""
        return self.url.rpartition("/")[2]

    def fetch(self, names: list[str], target: Path) -> None:
        """Download the archive and unpack the files `names` of its folder."""
        packed = download(self.url, self.md5, target / "archive")
        self.unpack(packed, names, target)
        packed.unlink()

    def unpack(self, packed: Path, names: list[str], target: Path) -> None:
        """Unpack the files `names` of the archive's folder; all other members are passed over.

        Raises:
            ValueError: the archive is broken, lacks a file, or one of them has more than `most` bytes.
        """
        wanted = {f"{self.folder}/{name}": target / name for name in names}
        try:
            with tarfile.open(packed, "r|*") as tar:  # as a stream: compressed data is slow to seek in
                for member in tar:
                    source = tar.extractfile(member) if member.name in wanted and member.isfile() else None
                    if source is not None:
                        if member.size > self.most:
                            raise ValueError(f"{member.name} in it has {member.size:,} bytes")
                        with wanted.pop(member.name).open("wb") as sink:
                            shutil.copyfileobj(source, sink, CHUNK)
        except (tarfile.TarError, EOFError, zlib.error) as error:
            raise ValueError(f"the archive is broken: {error}") from error
        if wanted:
            raise ValueError(f"the archive lacks {', '.join(wanted)}")


@dataclass(frozen=True)
class SingleFiles(Published):
    """Files that are published one by one, each at `url` + its name."""

    def fetch(self, names: list[str], target: Path) -> None:
        """Download each of the files `names`."""
        for name in names:
            downloaded = download(self.url + name, self.files[name], target / "download")
            shutil.copyfile(downloaded, target / name)  # pooch's own file can be read by its owner alone
            downloaded.unlink()


def download(url: str, md5: str, path: Path) -> Path:
    """Download `url` into the file `path`, and return the path.

    Raises:
        ValueError: the md5 of what came is another one.
    """
    import pooch  # here, because it is needed once for a data set and not worth its import time in every run

    downloader = pooch.HTTPDownloader(progressbar=True)
    return Path(pooch.retrieve(url, f"md5:{md5}", fname=path.name, path=path.parent, downloader=downloader))
