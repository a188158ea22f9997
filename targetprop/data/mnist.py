"""MNIST (LeCun et al. 1998): 60,000 training and 10,000 test images of 28x28 grey pixels, handwritten digits."""

from __future__ import annotations

from pathlib import Path

from targetprop.data.archive import SingleFiles
from targetprop.data.idx import load_splits
from targetprop.data.images import Splits
from targetprop.data.locate import locate

PUBLISHED = SingleFiles(
    title="MNIST",
    url="https://ossci-datasets.s3.amazonaws.com/mnist/",
    folder="MNIST/raw",
    files={
        "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
        "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
        "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
    },
    unpacked={
        "train-images-idx3-ubyte.gz": "6bbc9ace898e44ae57da46a324031adb",
        "train-labels-idx1-ubyte.gz": "a25bea736e30d166cdddb491f175f624",
        "t10k-images-idx3-ubyte.gz": "2646ac647ad5339dbf082846283269ea",
        "t10k-labels-idx1-ubyte.gz": "27ae3e4e09519cfbb04c329615203637",
    },
)


def load(data_dir: Path | str, download: bool = True) -> Splits:
    """MNIST from the published files in `data_dir`/MNIST/raw, compressed or not.

    Files that hold something else than the published ones lead to one warning for all of them.

    Args:
        data_dir: the directory that holds the folder of the files.
        download: whether missing files are downloaded.

    Raises:
        UserError: files are missing, or do not hold what was published.
    """
    files = locate(PUBLISHED, Path(data_dir), download)
    return files.noted(load_splits(files, tuple("0123456789")))
