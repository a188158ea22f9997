import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from data_helpers import at_most, mat_element, mat_head, mat_variable, svhn_file, svhn_pixels, write_files

from targetprop.data import svhn
from targetprop.data.mat5 import load_mat
from targetprop.utils.errors import UserError

pytestmark = pytest.mark.filterwarnings("ignore:SVHN. in .* checksums")
TRAIN, TEST, EXTRA = svhn.TRAIN_FILE, svhn.TEST_FILE, svhn.EXTRA_FILE


@pytest.mark.parametrize("folder", ["SVHN", "svhn"])
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("packed", [True, False])
def test_published_layout(tmp_path: Path, folder: str, order: str, packed: bool) -> None:
    train, test = svhn_pixels(), svhn_pixels(15, seed=1)
    files = {TRAIN: svhn_file(train, order, packed), TEST: svhn_file(test, order, packed)}
    splits = svhn.load(write_files(tmp_path / folder, files).parent, download=False)
    assert torch.equal(splits.train.pixels, torch.from_numpy(train.transpose(3, 2, 0, 1).copy()))
    assert torch.equal(splits.test.pixels, torch.from_numpy(test.transpose(3, 2, 0, 1).copy()))
    assert splits.train.labels.tolist() == [*range(1, 10), 0] * 2  # the published 10 is the digit 0
    assert splits.train.classes == tuple("0123456789")
    assert "are not the published files" in splits.note


def test_scipy_and_we_read_the_same(tmp_path: Path) -> None:
    scipy_io = pytest.importorskip("scipy.io")
    (tmp_path / "ours.mat").write_bytes(svhn_file(svhn_pixels()))
    theirs = scipy_io.loadmat(tmp_path / "ours.mat")
    ours = load_mat(tmp_path / "ours.mat", ("X", "y"), svhn.MOST)
    scipy_io.savemat(tmp_path / "theirs.mat", {name: theirs[name] for name in "yX"}, do_compression=True)
    again = load_mat(tmp_path / "theirs.mat", ("X", "y"), svhn.MOST)
    for name in ("X", "y"):
        assert np.array_equal(ours[name], theirs[name])
        assert np.array_equal(again[name], theirs[name])


def test_extra_images_follow_those_for_training(tmp_path: Path) -> None:
    files = {name: svhn_file(svhn_pixels(10, seed)) for seed, name in enumerate((TRAIN, TEST, EXTRA))}
    splits = svhn.load(write_files(tmp_path / "SVHN", files).parent, download=False, extra=True)
    assert (len(splits.train), len(splits.test)) == (20, 10)
    assert torch.equal(splits.train.pixels[10:], torch.from_numpy(svhn_pixels(10, 2).transpose(3, 2, 0, 1).copy()))
    (tmp_path / "SVHN" / EXTRA).unlink()
    assert len(svhn.load(tmp_path, download=False).train) == 10
    with pytest.raises(UserError, match=f"lacks {EXTRA}"):
        svhn.load(tmp_path, download=False, extra=True)


LABELS = np.arange(1.0, 21)[:, None] % 10 + 1
BOMB = zlib.compress(struct.pack("<II", 14, 2**31 - 8) + bytes(2**26))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "does not begin as one"),
        (b"<html>404</html>" * 20, "does not begin as one"),
        (svhn_file(svhn_pixels())[:-100], "not a readable MATLAB file"),
        (svhn_file(svhn_pixels())[:20_000], "not a readable MATLAB file"),
        (mat_head(), "lacks the variable X, y"),
        (mat_head() + mat_variable("y", LABELS), "lacks the variable X"),
        (mat_head() + mat_element(1, b"none of it"), "an element of type 1 in place of a variable"),
        (mat_head() + struct.pack("<II", 15, 2**32 - 1), "ends too early"),
        (mat_head() + struct.pack("<II", 15, len(BOMB)) + BOMB, "not a readable MATLAB file"),
        (mat_head() + mat_variable("X", svhn_pixels(), sizes=struct.pack("<4i", 32, 32, 3, 2**30)), "announces"),
        (mat_head() + mat_variable("X", svhn_pixels(), sizes=struct.pack("<4i", 32, 32, -3, 20)), "has the shape"),
        (mat_head() + mat_variable("X", svhn_pixels(), sizes=b""), "has the shape"),
        (mat_head() + mat_variable("X", svhn_pixels(), flags=struct.pack("<II", 1, 0)), "is no array of numbers"),
        (mat_head() + mat_variable("X", svhn_pixels(), flags=b""), "is no array of numbers"),
        (mat_head() + mat_variable("X", svhn_pixels()[:28]) + mat_variable("y", LABELS), "'X': expected a uint8 array"),
        (mat_head() + mat_variable("X", svhn_pixels() / 255) + mat_variable("y", LABELS), "'X': .* got float64"),
        (mat_head() + mat_variable("X", svhn_pixels()) + mat_variable("y", LABELS[1:]), "'y': expected 20 labels"),
        (mat_head() + mat_variable("X", svhn_pixels()) + mat_variable("y", LABELS + 1), r"in 1\.\.10, got 11.0"),
        (mat_head() + mat_variable("X", svhn_pixels()) + mat_variable("y", LABELS / 2), r"in 1\.\.10, got 1.5"),
        (mat_head() + mat_variable("X", svhn_pixels()) + mat_variable("y", LABELS * np.nan), "got nan"),
    ],
)
def test_what_is_not_as_published_is_named_and_small(tmp_path: Path, content: bytes, message: str) -> None:
    write_files(tmp_path / "SVHN", {TRAIN: content, TEST: svhn_file(svhn_pixels())})
    with at_most(2**24), pytest.raises(UserError, match=rf"{TRAIN}: .*{message}"):
        svhn.load(tmp_path, download=False)
