"""The published command for ImageNet32, shortened, on generated files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra.utils import instantiate
from omegaconf import DictConfig

from targetprop.app.overrides import check_overrides
from targetprop.app.run import build_module, train

PUBLISHED = [
    "model=dtp", "network=simple_vgg", "datamodule=imagenet32", "trainer=default", "scheduler=cosine", "seed=123",
    "datamodule.batch_size=256", "model.hparams.feedback_training_iterations=[25,35,40,60,25]",
    "model.hparams.f_optim.lr=0.01", "model.hparams.b_optim.momentum=0.9",
    "model.hparams.b_optim.lr=[1e-4,3.5e-4,8e-3,8e-3,0.18]",
]  # fmt: skip
Compose = Callable[..., DictConfig]


def test_the_published_command_runs(
    compose: Compose, make_imagenet32: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short = ["trainer.limit_train_batches=1", "network.hparams.channels=[4,4,4,4,4]", "callbacks=none"]
    train(compose(*PUBLISHED, *short, f"data_dir={make_imagenet32(images=300)}"))
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert len(results["test"]["per_class"]) == 1000
    shown = capsys.readouterr().out
    tested = sum(each is not None for each in results["test"]["per_class"])  # by files of so few images
    assert tested < 300
    assert f"best 5 of {tested} with images (test)" in shown


@pytest.mark.parametrize("network", ["simple_vgg", "tiny_vgg", "norm_vgg", "lenet", "mlp"])
def test_every_network_fits_as_it_is(make_imagenet32: Callable[..., Path], network: str) -> None:
    settings = [f"data_dir={make_imagenet32(images=40)}", "output_dir=out"]
    config = check_overrides([f"network={network}", "datamodule=imagenet32", *settings])
    datamodule = instantiate(config.datamodule)
    module = build_module(config, datamodule)
    x, y = next(iter(datamodule.test_dataloader()))
    assert module(x).shape == (len(y), 1000)
