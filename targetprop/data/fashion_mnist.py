"""Fashion-MNIST (Xiao et al. 2017): 60,000 training and 10,000 test images of 28x28 grey pixels, ten garments."""

from __future__ import annotations

from pathlib import Path

from targetprop.data.archive import SingleFiles
from targetprop.data.idx import load_splits
from targetprop.data.images import Splits
from targetprop.data.locate import locate

PUBLISHED = SingleFiles(
    title="Fashion-MNIST",
    url="http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",  # no https there: the checksums vouch for it
    folder="FashionMNIST/raw",
    files={
        "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
        "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
        "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
    },
    unpacked={
        "train-images-idx3-ubyte.gz": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
        "train-labels-idx1-ubyte.gz": "9018921c3c673c538a1fc5bad174d6f9",
        "t10k-images-idx3-ubyte.gz": "8181f5470baa50b63fa0f6fddb340f0a",
        "t10k-labels-idx1-ubyte.gz": "15d484375f8d13e6eb1aabb0c3f46965",
    },
)
CLASSES = (
    "T-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip


def load(data_dir: Path | str, download: bool = True) -> Splits:
    """Fashion-MNIST from the published files in `data_dir`/FashionMNIST/raw; all else is as in `mnist.load`."""
    files = locate(PUBLISHED, Path(data_dir), download)
    return files.noted(load_splits(files, CLASSES))
