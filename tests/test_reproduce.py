"""Complete published settings, and the older spelling of the command that asks for them."""

from __future__ import annotations

from typing import Any

import pytest
from omegaconf import OmegaConf

from targetprop.app.cli import CONF, check_overrides
from targetprop.app.legacy import translate

NOISE, FEEDBACK_RATES = [0.4, 0.4, 0.2, 0.2, 0.08], [1e-4, 3.5e-4, 8e-3, 8e-3, 0.18]
ITERATIONS = {"cifar10": [20, 30, 35, 55, 20], "imagenet32": [25, 35, 40, 60, 25]}


def hparams(forward_rate: float, **others: Any) -> dict[str, Any]:
    return {**others, "f_optim": {"type": "sgd", "lr": forward_rate, "momentum": 0.9, "weight_decay": 1e-4}}


def dtp(forward_rate: float, iterations: list[int], **others: Any) -> dict[str, Any]:
    b_optim = {"type": "sgd", "lr": FEEDBACK_RATES, "momentum": 0.9, "weight_decay": 0.0}
    numbers = {"beta": 0.7, "feedback_training_iterations": iterations, "noise": NOISE, "b_optim": b_optim}
    return hparams(forward_rate, **{**numbers, **others})


LENET_B_OPTIM = {"type": "sgd", "lr": [7.19e-4, 1.25e-4, 3.54e-2], "momentum": 0.9, "weight_decay": 0.0}
LENET = {"beta": 0.4655, "noise": [0.416, 0.383, 0.140], "b_optim": LENET_B_OPTIM}
PUBLISHED = {
    "cifar10_simple_vgg_baseline": (128, hparams(0.05), "CosineAnnealingLR"),
    "cifar10_simple_vgg_dtp": (128, dtp(0.08, ITERATIONS["cifar10"]), "CosineAnnealingLR"),
    "cifar10_simple_vgg_distributed_dtp": (128, dtp(0.05, ITERATIONS["cifar10"]), "CosineAnnealingLR"),
    "imagenet32_simple_vgg_baseline": (256, hparams(0.01), "StepLR"),
    "imagenet32_simple_vgg_dtp": (256, dtp(0.01, ITERATIONS["imagenet32"]), "CosineAnnealingLR"),
    "imagenet32_simple_vgg_distributed_dtp": (256, dtp(0.01, ITERATIONS["imagenet32"]), "CosineAnnealingLR"),
    "cifar10_lenet_dtp": (256, dtp(0.03618, [41, 51, 24], **LENET), "CosineAnnealingLR"),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_reproduce_has_the_published_settings(name: str) -> None:
    config = check_overrides([f"reproduce={name}", "output_dir=out"])
    OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    batch, numbers, scheduler = PUBLISHED[name]
    published = OmegaConf.to_container(config.model.hparams, resolve=True)
    assert isinstance(published, dict)
    assert {key: published[key] for key in numbers} == numbers
    assert (config.datamodule.batch_size, config.trainer.max_epochs, config.seed) == (batch, 90, 123)
    assert config.scheduler._target_.endswith(scheduler)
    assert config.datamodule.val_fraction == 0


def test_every_complete_setting_is_tested() -> None:
    ours = {"cifar10_simple_vgg_legacy", "cifar10_mlp_as_printed", "cifar10_mlp_dtp"}  # tested beside what they choose
    assert {path.stem for path in (CONF / "reproduce").glob("*.yaml")} == {*PUBLISHED, *ours}


def test_overrides_win_over_the_complete_settings() -> None:
    small = ["trainer.max_epochs=1", "network.hparams.channels=[8,8,8,8,8]", "seed=1"]
    config = check_overrides(["reproduce=cifar10_simple_vgg_dtp", *small])
    assert (config.trainer.max_epochs, config.network.hparams.channels, config.seed) == (1, [8] * 5, 1)


@pytest.mark.parametrize(
    "options",
    [
        ["--config-path", "conf/reproduce", "--config-name", "cifar10_lenet_dtp"],
        ["--config-path=targetprop/app/conf/reproduce", "--config-name=cifar10_lenet_dtp.yaml"],
        ["-cp", "reproduce", "-cn", "cifar10_lenet_dtp"],
    ],
)
def test_the_older_spelling_is_the_same_command(options: list[str]) -> None:
    assert translate([*options, "seed=3"]) == ["reproduce=cifar10_lenet_dtp", "seed=3"]
    assert translate(["-m", *options, "seed=3,4"]) == ["-m", "reproduce=cifar10_lenet_dtp", "seed=3,4"]
    assert translate([*options, "--cfg", "job"]) == ["--cfg", "job", "reproduce=cifar10_lenet_dtp"]


@pytest.mark.parametrize("own", [["--config-path", "my/conf", "--config-name", "mine"], ["-m", "seed=1,2"], ["--help"]])
def test_options_of_hydra_stay_as_they_are(own: list[str]) -> None:
    assert translate(own) == own
