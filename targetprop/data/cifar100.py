"""CIFAR-100 (Krizhevsky 2009): 50,000 training and 10,000 test images of 3x32x32 pixels, 100 classes in 20 groups."""

from __future__ import annotations

from pathlib import Path

import torch

from targetprop.data.archive import Archive
from targetprop.data.images import Images, Splits
from targetprop.data.locate import locate
from targetprop.data.pickles import load_batch, load_names
from targetprop.utils.errors import unknown

ARCHIVE = Archive(
    title="CIFAR-100",
    url="https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
    md5="eb9058c3a382ffc7106e4002c42a8d85",
    folder="cifar-100-python",
    files={
        "train": "16019d7e3df5f24257cddd939b257f8d",
        "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
        "meta": "7973b15100ade9c7d40fb424638fde48",
    },
    most=2**29,
)
SHAPE = (3, 32, 32)
LABELS = {"fine": 100, "coarse": 20}
"""How many classes there are, by the kind of labels."""


def load(data_dir: Path | str, download: bool = True, *, labels: str = "fine") -> Splits:
    """CIFAR-100 from the published Python files in `data_dir`/cifar-100-python.

    Checksums that are not the published ones lead to one warning for all files.

    Args:
        data_dir: the directory that holds the folder of the files, or their archive.
        download: whether missing files are downloaded.
        labels: "fine" for 100 classes, "coarse" for their 20 groups.

    Raises:
        UserError: files are missing, or do not hold what was published.
    """
    if labels not in LABELS:
        raise unknown("labels", labels, LABELS)
    files = locate(ARCHIVE, Path(data_dir), download)
    classes = load_names(files["meta"], f"{labels}_label_names", LABELS[labels], ARCHIVE.most)
    train, test = (_read(files[part], labels, classes) for part in ("train", "test"))
    return files.noted(Splits(train, test))


def _read(path: Path, labels: str, classes: tuple[str, ...]) -> Images:
    pixels, classed = load_batch(path, SHAPE, range(len(classes)), ARCHIVE.most, f"{labels}_labels")
    return Images(torch.from_numpy(pixels.copy()), torch.from_numpy(classed), classes)
