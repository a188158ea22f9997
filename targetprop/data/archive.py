"""Finding the files of a published data set, or fetching them."""

from __future__ import annotations

import hashlib
import shutil
import tarfile
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from targetprop.errors import UserError


@dataclass(frozen=True)
class Archive:
    """A published tar archive with one folder of files.

    title: for messages.  md5: of the archive.  folder: its folder, the same below `data_dir`.
    files: names of the files in the folder that are needed, and their md5.
    """

    title: str
    url: str
    md5: str
    folder: str
    files: Mapping[str, str]


def locate(archive: Archive, data_dir: Path, download: bool) -> Path:
    """The folder below `data_dir` that holds all files of `archive`.

    Missing files are downloaded if `download`; files that are there are never overwritten. Files whose md5 is
    not the published one are used all the same, with one warning. Raises `UserError` if files stay missing.
    """
    folder = data_dir / archive.folder
    missing = [name for name in archive.files if not (folder / name).is_file()]
    if missing and not download:
        raise _missing(archive, folder, missing, "the download is switched off")
    if missing:
        try:
            _fetch(archive, data_dir, missing)
        except (OSError, ValueError, tarfile.TarError) as error:
            raise _missing(archive, folder, missing, f"the download failed: {error}") from error
    _warn_of_changes(archive, folder)
    return folder


def _missing(archive: Archive, folder: Path, names: list[str], reason: str) -> UserError:
    return UserError(
        f"{archive.title}: {folder} lacks {', '.join(names)}, and {reason}. Unpack {archive.url} so that this "
        "folder holds them, or say with data_dir= (or the variable DATA_DIR) which directory holds the folder "
        f"{archive.folder}."
    )


def _fetch(archive: Archive, data_dir: Path, names: list[str]) -> None:
    """Download the archive, verify it and put the files `names` in place, each one whole or not at all."""
    import pooch  # here, because it is needed once for a data set and not worth its import time in every run

    data_dir.mkdir(parents=True, exist_ok=True)
    # Below data_dir, so that the finished files need only be renamed; removed whatever happens.
    with tempfile.TemporaryDirectory(prefix=".download-", dir=data_dir) as scratch:
        downloader = pooch.HTTPDownloader(progressbar=True)
        packed = pooch.retrieve(archive.url, f"md5:{archive.md5}", fname="archive", path=scratch, downloader=downloader)
        unpacked = Path(scratch, "files")
        unpacked.mkdir()
        _unpack(archive, Path(packed), names, unpacked)
        _place(unpacked, data_dir / archive.folder)


def _unpack(archive: Archive, packed: Path, names: list[str], target: Path) -> None:
    """Write the files `names` of the archive's folder to `target`; all other members are passed over."""
    wanted = {f"{archive.folder}/{name}": target / name for name in names}
    with tarfile.open(packed, "r|*") as tar:  # as a stream: compressed data is slow to seek in
        for member in tar:
            source = tar.extractfile(member) if member.name in wanted and member.isfile() else None
            if source is not None:
                with wanted.pop(member.name).open("wb") as sink:
                    shutil.copyfileobj(source, sink)
    if wanted:
        raise ValueError(f"the archive lacks {', '.join(wanted)}")


def _place(source: Path, target: Path) -> None:
    """Move the files in `source` to `target`, except those that have appeared there during the download."""
    target.mkdir(exist_ok=True)
    for file in source.iterdir():
        if not (target / file.name).exists():
            file.replace(target / file.name)


def _warn_of_changes(archive: Archive, folder: Path) -> None:
    changed = [name for name, published in archive.files.items() if _md5(folder / name) != published]
    if changed:
        warnings.warn(
            f"{archive.title}: in {folder} the checksums of {', '.join(changed)} are not the published ones. "
            "The files are used as they are.",
            stacklevel=3,
        )


def _md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
