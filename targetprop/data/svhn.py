"""SVHN (Netzer et al. 2011): 73,257 training, 26,032 test and 531,131 extra images of 3x32x32 pixels, house numbers.

These are its cropped digits: the digit that an image is classed by stands in its centre. For non-commercial use, as its
page says.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from targetprop.data.archive import SingleFiles
from targetprop.data.images import Images, Splits
from targetprop.data.locate import locate
from targetprop.data.mat5 import load_mat
from targetprop.utils.errors import UserError

URL = "http://ufldl.stanford.edu/housenumbers/"
TRAIN_FILE, TEST_FILE, EXTRA_FILE = "train_32x32.mat", "test_32x32.mat", "extra_32x32.mat"
SUMS = {
    TRAIN_FILE: "e26dedcc434d2e4c54c9b2d4a06d8373",
    TEST_FILE: "eb5a983be6a315427106f1b164d9cef3",
    EXTRA_FILE: "a93ce644f1a588dc4d68dda5feec44a7",
}
MOST = 2**31
"""Bytes that a file, or what is packed in it, may have: somewhat more than the largest one."""
SHAPE = (3, 32, 32)
CLASSES = tuple("0123456789")
CHUNK = 10_000
"""Images that are put into another order at once."""


def load(data_dir: Path | str, download: bool = True, *, extra: bool = False) -> Splits:
    """SVHN's cropped digits from the published MATLAB files in `data_dir`/SVHN (or svhn); label 10 is the digit 0.

    Checksums that are not the published ones lead to one warning for all files.

    Args:
        data_dir: the directory that holds the folder of the files, or the files.
        download: whether missing files are downloaded.
        extra: whether the 531,131 images of the extra file, which are easier, are trained on, too; 1.6 GB of memory.

    Raises:
        UserError: files are missing, or do not hold what was published.
    """
    names = (TRAIN_FILE, TEST_FILE, *([EXTRA_FILE] if extra else []))
    published = SingleFiles(
        title="SVHN",
        url=URL,  # no https there: the checksums vouch for it
        folder="SVHN",
        files={name: SUMS[name] for name in names},
        aliases=("svhn",),
        most=MOST,
    )
    files = locate(published, Path(data_dir), download)
    train = [_read(files[name]) for name in (TRAIN_FILE, EXTRA_FILE) if name in files]
    return files.noted(Splits(_images(train), _images([_read(files[TEST_FILE])])))


def _images(parts: Sequence[tuple[Tensor, Tensor]]) -> Images:
    pixels, labels = (torch.cat(each) if len(parts) > 1 else each[0] for each in zip(*parts, strict=True))
    return Images(pixels, labels, CLASSES)


def _read(path: Path) -> tuple[Tensor, Tensor]:
    """Pixels uint8 (N, 3, 32, 32) and labels int64 (N,) of a file, which has them as (32, 32, 3, N) and (N, 1)."""
    content = load_mat(path, ("X", "y"), MOST)
    pixels, labels = content["X"], content["y"]
    if not (pixels.dtype == np.uint8 and pixels.ndim == 4 and pixels.shape[:3] == (32, 32, 3) and pixels.shape[3]):
        raise UserError(
            f"{path}: 'X': expected a uint8 array of shape (32, 32, 3, N), got {pixels.dtype} {pixels.shape}"
        )
    count = pixels.shape[3]
    if labels.size != count:
        raise UserError(f"{path}: 'y': expected {count} labels, got an array of shape {labels.shape}")
    fits = np.isin(labels, np.arange(1, 11))
    if not fits.all():
        raise UserError(f"{path}: 'y': expected whole numbers in 1..10, got {labels[~fits].flat[0].item()}")
    ordered = np.empty((count, *SHAPE), np.uint8)
    for start in range(0, count, CHUNK):
        ordered[start : start + CHUNK] = pixels[..., start : start + CHUNK].transpose(3, 2, 0, 1)
    return torch.from_numpy(ordered), torch.from_numpy(labels.ravel().astype(np.int64) % 10)
