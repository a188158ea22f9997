"""Every data set that is at hand, with the default model and network: minutes each, by hand with `pytest -m slow`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from targetprop.app.overrides import check_overrides
from targetprop.app.run import train

DATA = Path(os.environ.get("DATA_DIR", "data"))
FILES = {
    "digits": ".",
    "mnist": "MNIST/raw",
    "fashion_mnist": "FashionMNIST/raw",
    "cifar10": "cifar-10-batches-py",
    "cifar100": "cifar-100-python",
    "svhn": "SVHN",
    "imagenet32": "Imagenet32_train",
    "tiny_imagenet": "tiny-imagenet-200",
}
"""Where each of them lies."""
BATCHES = 200
LEAST = {
    "digits": 0.9,
    "mnist": 0.93,
    "fashion_mnist": 0.78,
    "cifar10": 0.42,
    "cifar100": 0.08,
    "svhn": 0.5,
    "imagenet32": 0.005,
    "tiny_imagenet": 0.02,
}
"""Test accuracy that is asked for after so many batches, in one epoch or more; chance is 1 / classes."""


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 123])
@pytest.mark.parametrize("name", FILES)
def test_the_default_model_and_network_learn(name: str, seed: int, tmp_path: Path) -> None:
    if not (DATA / FILES[name]).exists():
        pytest.skip(f"{name} is not in {DATA}")
    epochs = 20 if name == "digits" else 1
    options = [f"trainer.max_epochs={epochs}", f"trainer.limit_train_batches={BATCHES if epochs == 1 else 1.0}"]
    places = [f"data_dir={DATA}", f"output_dir={tmp_path}", "+datamodule.download=false"]
    metrics = train(check_overrides([f"datamodule={name}", f"seed={seed}", *options, *places, "trainer.threads=1"]))
    assert metrics["test/accuracy"] > LEAST[name]


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 123])
def test_the_default_model_learns_from_the_teacher(seed: int, tmp_path: Path) -> None:
    options = ["trainer.max_epochs=4", f"output_dir={tmp_path}", "trainer.threads=1"]
    metrics = train(check_overrides(["datamodule=teacher", f"seed={seed}", *options]))
    assert metrics["test/r2"] > 0.8
