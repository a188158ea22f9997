"""Where users put the files of data sets."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from data_helpers import everything_below, tarred, write_files

from targetprop.data import cifar10, mnist
from targetprop.data.archive import Archive, SingleFiles
from targetprop.data.idx import FILES
from targetprop.data.locate import locate
from targetprop.utils.errors import UserError

CONTENT = {name: name.encode() for name in FILES}
SUMS = {name: hashlib.md5(content).hexdigest() for name, content in CONTENT.items()}
SINGLE = replace(mnist.PUBLISHED, files=SUMS, unpacked=SUMS)


def packed(files: dict[str, bytes]) -> Archive:
    """CIFAR-10's archive, were these its files."""
    return replace(cifar10.ARCHIVE, files={name: hashlib.md5(each).hexdigest() for name, each in files.items()})


@pytest.mark.parametrize("folder", ["MNIST/raw", "MNIST", ".", "raw", "MNIST/raw/raw"])
@pytest.mark.parametrize(
    "spelled", [str, lambda name: name.removesuffix(".gz"), lambda name: name.replace("-idx", ".idx")]
)
def test_published_files_are_found_around_their_folder(
    tmp_path: Path, folder: str, spelled: Callable[[str], str]
) -> None:
    write_files(tmp_path / folder, {spelled(name): content for name, content in CONTENT.items()})
    located = locate(SINGLE, tmp_path, download=False)
    assert {name: path.read_bytes() for name, path in located.items()} == CONTENT
    assert located.note == ""
    assert len(everything_below(tmp_path)) == len(FILES)


def test_others_are_taken_from_their_own_folder_only(tmp_path: Path) -> None:
    """MNIST and Fashion-MNIST have the same names."""
    write_files(tmp_path, dict.fromkeys(FILES, b"other"))
    with pytest.raises(UserError, match=rf"lacks .*Files of these names in {tmp_path} are others, by their md5"):
        locate(SINGLE, tmp_path, download=False)
    write_files(tmp_path / "MNIST/raw", dict.fromkeys(FILES, b"other"))
    assert "are not the published files" in locate(SINGLE, tmp_path, download=False).note


@pytest.mark.parametrize("place", [".", "cifar-10-batches-py", "cifar-10-batches-py/cifar-10-batches-py"])
def test_an_archive_is_unpacked_whole_and_once(
    tmp_path: Path, place: str, cifar_files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = packed(cifar_files)
    write_files(tmp_path / place, {archive.name: tarred(cifar_files, archive.folder)})
    located = locate(archive, tmp_path, download=False)
    assert {path.name: path.read_bytes() for path in located.values()} == cifar_files
    assert {path.parent for path in located.values()} == {tmp_path / archive.folder}
    assert located.note == ""
    monkeypatch.setattr(Archive, "unpack", None)
    assert locate(archive, tmp_path, download=False) == located


def test_of_an_archive_only_what_is_missing_is_unpacked(tmp_path: Path, cifar_files: dict[str, bytes]) -> None:
    archive = packed(cifar_files)
    write_files(tmp_path, {archive.name: tarred(cifar_files, archive.folder)})
    write_files(tmp_path / archive.folder, {"data_batch_1": b"mine"})
    located = locate(archive, tmp_path, download=False)
    assert located["data_batch_1"].read_bytes() == b"mine"
    assert located["data_batch_2"].read_bytes() == cifar_files["data_batch_2"]
    assert "data_batch_1 are not the published files" in located.note


def test_what_is_too_large_in_an_archive_is_not_unpacked(tmp_path: Path, cifar_files: dict[str, bytes]) -> None:
    archive = replace(packed(cifar_files), most=10_000)
    write_files(tmp_path, {archive.name: tarred(cifar_files, archive.folder)})
    with pytest.raises(UserError, match=rf"{archive.name}: it cannot be unpacked .*data_batch_1 in it has"):
        locate(archive, tmp_path, download=False)
    assert everything_below(tmp_path) == [archive.name]


def test_members_outside_the_folder_are_passed_over(tmp_path: Path, cifar_files: dict[str, bytes]) -> None:
    archive = packed(cifar_files)
    write_files(tmp_path / "data", {archive.name: tarred({**cifar_files, "../../evil": b"x"}, archive.folder)})
    locate(archive, tmp_path / "data", download=False)
    assert "evil" not in everything_below(tmp_path)


def test_aliases_are_folders_like_the_proper_one(tmp_path: Path) -> None:
    published = SingleFiles("Some", "http://nowhere/", "Some", {"a": "0" * 32}, aliases=("some",))
    write_files(tmp_path / "some", {"a": b"other"})
    assert locate(published, tmp_path, download=False)["a"] == tmp_path / "some" / "a"
