"""Small data sets in memory, and small files in the published CIFAR-10 format."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from data_helpers import NAMES, python2_batch, python2_dict, python2_list, random_images, text

from targetprop.data import Images, Splits
from targetprop.data.cifar10 import ARCHIVE, META_FILE, TEST_FILE, TRAIN_FILES


@pytest.fixture
def cifar_files() -> dict[str, bytes]:
    """Files by name: batches of 20 images, of which image k has label k % 10 and the file's number at pixel 0."""
    files = {META_FILE: python2_dict(label_names=python2_list(list(map(text, NAMES))))}
    for number, name in enumerate([*TRAIN_FILES, TEST_FILE]):
        pixels = np.random.default_rng(number).integers(0, 256, (20, 3072), dtype=np.uint8)
        pixels[:, 0] = number
        files[name] = python2_batch(pixels, [k % 10 for k in range(20)])
    return files


@pytest.fixture
def write_cifar(tmp_path: Path) -> Callable[[dict[str, bytes]], Path]:
    """Writes files into the published folder and returns the data directory."""

    def write(files: dict[str, bytes]) -> Path:
        folder = tmp_path / ARCHIVE.folder
        folder.mkdir(exist_ok=True)
        for name, content in files.items():
            (folder / name).write_bytes(content)
        return tmp_path

    return write


@pytest.fixture
def images() -> Images:
    return random_images(50)


@pytest.fixture
def splits() -> Splits:
    return Splits(train=random_images(200), test=random_images(30, seed=1))
