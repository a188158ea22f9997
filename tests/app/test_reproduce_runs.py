"""Every complete setting trains, on a narrow network and a few images in the format of its data set."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import numpy as np
import pytest

from targetprop.app.overrides import CONF, check_overrides
from targetprop.app.run import train
from targetprop.data.cifar10 import ARCHIVE, META_FILE, TEST_FILE, TRAIN_FILES

RECIPES = sorted(path.stem for path in (CONF / "reproduce").glob("*.yaml"))
LIKE_OTHERS = re.compile(r"(cifar10|fashion_mnist)_mlp_(meulemans|fw_dtp|shibuya)|imagenet32_.*_distributed_")
"""Of a paper's the ones for MNIST train in every run of the tests, and of the layer-parallel ones that for CIFAR-10."""
NARROW = {"simple_vgg": "channels=[4,4,4,4,4]", "lenet": "channels=[4,4]", "mlp": "hidden=[8,8,8]"}


@pytest.fixture
def cifar10(tmp_path: Path) -> Path:
    """The directory of a CIFAR-10 of 120 images."""
    folder = tmp_path / "data" / ARCHIVE.folder
    folder.mkdir(parents=True)
    files: dict[str, dict[bytes, object]] = {META_FILE: {b"label_names": [f"class {k}".encode() for k in range(10)]}}
    for name in (*TRAIN_FILES, TEST_FILE):
        pixels = np.random.default_rng(0).integers(0, 256, (20, 3072), dtype=np.uint8)
        files[name] = {b"data": pixels, b"labels": [k % 10 for k in range(20)]}
    for name, content in files.items():
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))
    return tmp_path / "data"


@pytest.fixture
def mnist(tmp_path: Path) -> Path:
    """The directory of an MNIST and a Fashion-MNIST of 120 images."""
    data = tmp_path / "mnist"
    for name in ("MNIST", "FashionMNIST"):
        folder = data / name / "raw"
        folder.mkdir(parents=True)
        for part in ("train", "t10k"):
            pixels = np.random.default_rng(0).integers(0, 256, (120, 28, 28), dtype=np.uint8)
            for kind, array in (("images-idx3", pixels), ("labels-idx1", np.arange(120, dtype=np.uint8) % 10)):
                head = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
                (folder / f"{part}-{kind}-ubyte").write_bytes(head + array.tobytes())
    return data


def data_of(recipe: str, request: pytest.FixtureRequest) -> Path:
    """A small data set in the format that a setting reads."""
    if recipe.startswith("imagenet32"):
        made: Path = request.getfixturevalue("make_imagenet32")(images=40)
    else:
        made = request.getfixturevalue("cifar10" if recipe.startswith("cifar10") else "mnist")
    return made


@pytest.mark.filterwarnings("ignore:.*checksums")
@pytest.mark.parametrize(
    "recipe", [pytest.param(name, marks=pytest.mark.slow if LIKE_OTHERS.match(name) else ()) for name in RECIPES]
)
def test_it_trains(recipe: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    data = data_of(recipe, request)
    narrow = next(sizes for network, sizes in NARROW.items() if network in recipe)
    short = ["datamodule.batch_size=32", "trainer.max_epochs=1", f"network.hparams.{narrow}", "logger=csv"]
    if "distributed" in recipe:
        short.append("trainer.processes=1")
    train(check_overrides([f"reproduce={recipe}", *short, f"data_dir={data}", f"output_dir={tmp_path / 'run'}"]))
    assert (tmp_path / "run" / "results.json").is_file()
