import dataclasses
import hashlib
import io
import os
import tarfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pooch
import pytest
import torch
from data_helpers import (
    NAMES,
    everything_below,
    python2_array,
    python2_batch,
    python2_dict,
    python2_list,
    small_integer,
    text,
)

from targetprop.data import cifar10
from targetprop.utils.errors import UserError

Files = dict[str, bytes]
Write = Callable[[Files], Path]

pytestmark = pytest.mark.filterwarnings("ignore:CIFAR-10. in .* checksums")
ROWS = np.zeros((2, 3072), dtype=np.uint8)


def published_md5(monkeypatch: pytest.MonkeyPatch, files: Files, **changes: Any) -> None:
    """Let the module believe that `files` are the published ones."""
    sums = {name: hashlib.md5(content).hexdigest() for name, content in files.items()}
    monkeypatch.setattr(cifar10, "ARCHIVE", dataclasses.replace(cifar10.ARCHIVE, files=sums, **changes))


def packed(files: Files) -> bytes:
    """A published archive: it also holds a file that nobody needs and one that wants to be elsewhere."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in {**files, "readme.html": b"read me", "../../outside": b"x"}.items():
            member = tarfile.TarInfo(f"{cifar10.ARCHIVE.folder}/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


@pytest.fixture
def published(server: tuple[Path, str], cifar_files: Files, monkeypatch: pytest.MonkeyPatch) -> Files:
    """Small files that can be downloaded as if they were the published ones."""
    root, address = server
    archive = packed(cifar_files)
    (root / "cifar.tar.gz").write_bytes(archive)
    md5 = hashlib.md5(archive).hexdigest()
    published_md5(monkeypatch, cifar_files, url=f"{address}/cifar.tar.gz", md5=md5)
    return cifar_files


def test_images_come_in_the_published_order(write_cifar: Write, cifar_files: Files) -> None:
    splits = cifar10.load(write_cifar(cifar_files), download=False)
    assert (len(splits.train), len(splits.test)) == (100, 20)
    assert splits.train.image_shape == (3, 32, 32)
    assert splits.train.classes == splits.test.classes == tuple(NAMES)
    assert torch.equal(splits.train.pixels[:, 0, 0, 0].long(), torch.arange(5).repeat_interleave(20))
    assert torch.equal(splits.train.labels, torch.arange(100) % 10)


def test_rows_are_channels_then_rows_then_columns(write_cifar: Write, cifar_files: Files) -> None:
    row = np.zeros((1, 3072), dtype=np.uint8)
    row[0, 2 * 1024 + 5 * 32 + 7] = 200
    splits = cifar10.load(write_cifar({**cifar_files, "test_batch": python2_batch(row, [9])}), download=False)
    assert splits.test.pixels[0, 2, 5, 7] == 200
    assert splits.test.pixels.sum() == 200


def test_one_warning_names_all_files_with_other_checksums(
    write_cifar: Write, cifar_files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    published_md5(monkeypatch, cifar_files)
    changed = dict.fromkeys(("data_batch_2", "data_batch_4"), cifar_files["data_batch_1"])
    with pytest.warns(UserWarning, match="checksums of data_batch_2, data_batch_4 are") as record:
        splits = cifar10.load(write_cifar({**cifar_files, **changed}), download=False)
    assert len(record) == 1
    assert splits.note == "CIFAR-10: data_batch_2, data_batch_4 are not the published files"


def test_no_warning_for_published_files(
    write_cifar: Write, cifar_files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    published_md5(monkeypatch, cifar_files)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not cifar10.load(str(write_cifar(cifar_files)), download=False).note


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (python2_batch(ROWS[:, :3000], [0, 0]), r"'data': .*\(rows, 3072\), got uint8 \(2, 3000\)"),
        (python2_batch(ROWS.reshape(-1), [0]), r"got uint8 \(6144,\)"),
        (python2_batch(ROWS[:0], []), "array|labels"),
        (python2_dict(data=python2_array(ROWS, "i1"), labels=python2_list([b"K\x00"] * 2)), "got int8"),
        (python2_dict(data=text("rows"), labels=python2_list([])), "'data': .* got str"),
        (python2_dict(labels=python2_list([])), "'data': .* got NoneType"),
        (python2_dict(data=python2_array(ROWS)), "'labels': .* got NoneType"),
        (python2_batch(ROWS, [0]), "'labels': .* list of 2 labels .* got 1 labels"),
        (python2_batch(ROWS, [0, 10]), r"'labels': expected whole numbers in 0\.\.9, got 10"),
        (python2_batch(ROWS, [-1, 0]), "got -1"),
        (python2_dict(data=python2_array(ROWS), labels=python2_list([text("a"), small_integer(0)])), "got 'a'"),
        (python2_batch(ROWS, [0, 0])[:-100], "complete copy"),
    ],
)
def test_misshapen_batches_are_refused(write_cifar: Write, cifar_files: Files, content: bytes, message: str) -> None:
    data_dir = write_cifar({**cifar_files, "data_batch_3": content})
    with pytest.raises(UserError, match=f"data_batch_3: .*({message})"):
        cifar10.load(data_dir, download=False)


def test_wrong_class_names_are_refused(write_cifar: Write, cifar_files: Files) -> None:
    meta = python2_dict(label_names=python2_list([text("cat")]))
    with pytest.raises(UserError, match=r"batches\.meta: 'label_names': expected a list of 10 names"):
        cifar10.load(write_cifar({**cifar_files, "batches.meta": meta}), download=False)


@pytest.mark.parametrize("download", [True, False])
def test_missing_files_and_no_network(
    write_cifar: Write, cifar_files: Files, monkeypatch: pytest.MonkeyPatch, download: bool
) -> None:
    attempts = []

    def refuse(*_: object, **__: object) -> str:
        attempts.append(1)
        raise OSError("Network is unreachable")

    monkeypatch.setattr(pooch, "retrieve", refuse)
    del cifar_files["data_batch_2"], cifar_files["test_batch"]
    data_dir = write_cifar(cifar_files)
    with pytest.raises(UserError) as caught:
        cifar10.load(data_dir, download=download)
    message = str(caught.value)
    for part in (str(data_dir / "cifar-10-batches-py"), "data_batch_2, test_batch", cifar10.ARCHIVE.url):
        assert part in message
    assert "data_dir=" in message
    assert "DATA_DIR" in message
    assert ("Network is unreachable" in message) == download == bool(attempts)
    assert everything_below(data_dir) == sorted(cifar_files)


def test_download_puts_the_files_in_place_and_nothing_else(published: Files, tmp_path: Path) -> None:
    data_dir = tmp_path / "new" / "data"
    splits = cifar10.load(data_dir)
    assert len(splits.train) == 100
    assert everything_below(tmp_path) == sorted(published)
    assert [path.name for path in data_dir.iterdir()] == ["cifar-10-batches-py"]


def test_download_never_overwrites_files_of_the_user(published: Files, write_cifar: Write) -> None:
    own = python2_batch(ROWS, [0, 1])
    splits = cifar10.load(data_dir := write_cifar({"test_batch": own}))
    assert (data_dir / "cifar-10-batches-py" / "test_batch").read_bytes() == own
    assert (len(splits.train), len(splits.test)) == (100, 2)


def test_download_never_overwrites_what_appeared_meanwhile(
    published: Files, write_cifar: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, retrieve = python2_batch(ROWS, [0, 1]), pooch.retrieve

    def slow(*arguments: object, **options: object) -> str:
        write_cifar({"test_batch": own})
        return str(retrieve(*arguments, **options))

    monkeypatch.setattr(pooch, "retrieve", slow)
    data_dir = write_cifar({})
    assert len(cifar10.load(data_dir).test) == 2


@pytest.mark.parametrize("damage", ["cut", "incomplete", "absent"])
def test_failed_download_leaves_no_file(
    published: Files, server: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    served = server[0] / "cifar.tar.gz"
    if damage == "cut":
        served.write_bytes(served.read_bytes()[:-1000])
    elif damage == "absent":
        served.unlink()
    else:
        served.write_bytes(packed({name: published[name] for name in list(published)[:3]}))
        md5 = hashlib.md5(served.read_bytes()).hexdigest()
        monkeypatch.setattr(cifar10, "ARCHIVE", dataclasses.replace(cifar10.ARCHIVE, md5=md5))
    with pytest.raises(UserError, match="the download failed"):
        cifar10.load(tmp_path)
    assert everything_below(tmp_path) == []


def test_the_real_files() -> None:
    data_dir = Path(os.environ.get("DATA_DIR", "data"))
    if not (data_dir / cifar10.ARCHIVE.folder).is_dir():
        pytest.skip("no CIFAR-10 found: say with DATA_DIR where it lies")
    splits = cifar10.load(data_dir, download=False)
    assert (len(splits.train), len(splits.test)) == (50_000, 10_000)
    assert splits.train.labels.bincount().tolist() == [5000] * 10
    assert splits.test.labels.bincount().tolist() == [1000] * 10
    assert splits.train.classes == tuple(NAMES)
    # The mean of the training pixels is known to four digits; files that went through JPEG keep it to two.
    mean = splits.train.pixels.double().mean((0, 2, 3)) / 255
    torch.testing.assert_close(mean, torch.tensor([0.4914, 0.4822, 0.4465]).double(), atol=5e-3, rtol=0)
