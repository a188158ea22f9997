"""CIFAR-10 (Krizhevsky 2009): 50,000 training and 10,000 test images of 3x32x32 pixels in 10 classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from targetprop.data.archive import Archive
from targetprop.data.images import Images, Splits
from targetprop.data.locate import locate
from targetprop.data.pickles import load_batch, load_names

TRAIN_FILES = tuple(f"data_batch_{number}" for number in range(1, 6))
TEST_FILE = "test_batch"
META_FILE = "batches.meta"
ARCHIVE = Archive(
    title="CIFAR-10",
    url="https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
    md5="c58f30108f718f92721af3b95e74349a",
    folder="cifar-10-batches-py",
    files={
        "data_batch_1": "c99cafc152244af753f735de768cd75f",
        "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "634d18415352ddfa80567beed471001a",
        "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
        TEST_FILE: "40351d587109b95175f43aff81a1287e",
        META_FILE: "5ff9c542aee3614f3951f8cda6e48888",
    },
    most=2**26,
)
SHAPE = (3, 32, 32)
CLASS_COUNT = 10


def load(data_dir: Path | str, download: bool = True) -> Splits:
    """CIFAR-10 from the published Python files in `data_dir`/cifar-10-batches-py.

    Checksums that are not the published ones lead to one warning for all files.

    Args:
        data_dir: the directory that holds the folder of the files.
        download: whether missing files are downloaded.

    Raises:
        UserError: files are missing, or do not hold what was published.
    """
    files = locate(ARCHIVE, Path(data_dir), download)
    classes = load_names(files[META_FILE], "label_names", CLASS_COUNT, ARCHIVE.most)
    train = _read_images([files[name] for name in TRAIN_FILES], classes)
    return files.noted(Splits(train, _read_images([files[TEST_FILE]], classes)))


def _read_images(paths: list[Path], classes: tuple[str, ...]) -> Images:
    pixels, labels = zip(*(load_batch(path, SHAPE, range(CLASS_COUNT), ARCHIVE.most) for path in paths), strict=True)
    return Images(torch.from_numpy(np.concatenate(pixels)), torch.from_numpy(np.concatenate(labels)), classes)
