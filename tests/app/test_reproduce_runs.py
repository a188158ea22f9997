"""Every complete setting trains, on a narrow network and a few images in the format of its data set."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from targetprop.app.overrides import CONF, check_overrides
from targetprop.app.run import train
from targetprop.data.cifar10 import ARCHIVE, META_FILE, TEST_FILE, TRAIN_FILES

RECIPES = sorted(path.stem for path in (CONF / "reproduce").glob("*.yaml"))
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


@pytest.mark.filterwarnings("ignore:.*checksums of")
@pytest.mark.parametrize("recipe", RECIPES)
def test_it_trains(recipe: str, cifar10: Path, make_imagenet32: Callable[..., Path], tmp_path: Path) -> None:
    data = make_imagenet32(images=40) if recipe.startswith("imagenet32") else cifar10
    narrow = next(sizes for network, sizes in NARROW.items() if network in recipe)
    short = ["datamodule.batch_size=32", "trainer.max_epochs=1", f"network.hparams.{narrow}", "logger=csv"]
    if "distributed" in recipe:
        short.append("trainer.processes=1")
    train(check_overrides([f"reproduce={recipe}", *short, f"data_dir={data}", f"output_dir={tmp_path / 'run'}"]))
    assert (tmp_path / "run" / "results.json").is_file()
