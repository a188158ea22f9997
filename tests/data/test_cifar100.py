from pathlib import Path

import numpy as np
import pytest
from data_helpers import cifar100_files, everything_below, python2_dict, small_integer, tarred, write_files

from targetprop.data import cifar100
from targetprop.utils.errors import UserError

FOLDER = cifar100.ARCHIVE.folder
OTHERS = pytest.mark.filterwarnings("ignore:CIFAR-100. in .* checksums")


@OTHERS
@pytest.mark.parametrize(("kind", "count"), [("fine", 100), ("coarse", 20)])
def test_both_kinds_of_labels(tmp_path: Path, kind: str, count: int) -> None:
    write_files(tmp_path / FOLDER, cifar100_files())
    splits = cifar100.load(tmp_path, download=False, labels=kind)
    assert splits.train.classes == tuple(f"{kind} {number}" for number in range(count))
    assert splits.train.labels.tolist() == [number % count for number in range(200)]
    assert splits.test.labels.tolist() == [number % count for number in range(100)]
    first = np.random.default_rng(0).integers(0, 256, (200, 3072), dtype=np.uint8)[0]
    assert np.array_equal(splits.train.pixels[0].numpy(), first.reshape(3, 32, 32))
    assert "train, test, meta are not the published files" in splits.note


def test_another_kind_of_labels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^labels: unknown value 'finest'\. Did you mean 'fine'"):
        cifar100.load(tmp_path, labels="finest")


@OTHERS
@pytest.mark.parametrize("place", [".", FOLDER])
def test_the_archive_is_unpacked_where_the_user_put_it(tmp_path: Path, place: str) -> None:
    packed = tarred({**cifar100_files(), "file.txt~": b"other"}, FOLDER)
    write_files(tmp_path / place, {"cifar-100-python.tar.gz": packed})
    assert len(cifar100.load(tmp_path, download=False).train) == 200
    assert everything_below(tmp_path) == ["cifar-100-python.tar.gz", "meta", "test", "train"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (tarred(cifar100_files(), FOLDER)[:50_000], "the archive is broken"),
        (b"<html>404</html>", "the archive is broken"),
        (tarred({"train": b""}, FOLDER), "the archive lacks cifar-100-python/test, cifar-100-python/meta"),
    ],
)
def test_a_broken_archive_is_named_and_leaves_nothing(tmp_path: Path, content: bytes, reason: str) -> None:
    write_files(tmp_path, {"cifar-100-python.tar.gz": content})
    with pytest.raises(UserError, match=rf"cifar-100-python\.tar\.gz: it cannot be unpacked .*{reason}.*Get it again"):
        cifar100.load(tmp_path, download=False)
    assert everything_below(tmp_path) == ["cifar-100-python.tar.gz"]


@OTHERS
@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("train", b"\x80\x02cposix\nsystem\n(U\x04trueoR.", "train: not a readable batch file"),
        ("test", cifar100_files()["test"][:-1000], "test: not a readable batch file"),
        ("meta", python2_dict(other=small_integer(0)), "'fine_label_names': expected a list of 100 names"),
        ("train", cifar100_files()["meta"], "'data': expected a uint8 array"),
    ],
)
def test_what_is_not_as_published_is_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    write_files(tmp_path / FOLDER, {**cifar100_files(), name: content})
    with pytest.raises(UserError, match=message):
        cifar100.load(tmp_path, download=False)


def test_what_is_missing_and_where_from_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"lacks train, test, meta.*Put https://www\.cs.*, packed or not, into"):
        cifar100.load(tmp_path, download=False)
