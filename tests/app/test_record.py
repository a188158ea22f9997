"""`experiment=cifar10_record`: one file of settings, by which every rule trains the same network in the same way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from omegaconf import DictConfig, OmegaConf

from targetprop import DifferenceTargets, Learner
from targetprop.app.datamodule import ImageDataModule
from targetprop.app.module import TaskModule
from targetprop.app.overrides import check_overrides
from targetprop.app.run import build_module, train
from targetprop.data import digits
from targetprop.layers.fixed import Whitening

Compose = Callable[..., DictConfig]
RULES = ["amortised_dtp", "delta_mirror", "backprop"]


def settings(model: str) -> DictConfig:
    return check_overrides(
        [
            f"model={model}",
            "experiment=cifar10_record",
            "network.hparams.channels=[4,6]",
            "output_dir=out",
            "task_name=record",
        ]
    )


def data(seed: int = 0) -> ImageDataModule:
    return ImageDataModule(
        lambda *_: digits.load(), data_dir="", batch_size=32, mean=[0.3], std=[0.4], val_fraction=0.1, seed=seed
    )


def built(model: str, seed: int = 0) -> TaskModule:
    torch.manual_seed(0)
    return build_module(settings(model), data(seed))


def whitening(module: TaskModule) -> Whitening:
    (found,) = (layer for layer in module.modules() if isinstance(layer, Whitening))
    return found


def test_rules_differ_in_nothing_but_the_rule() -> None:
    def shared(model: str) -> dict[str, Any]:
        config: Any = OmegaConf.to_container(settings(model), resolve=True)
        return {
            **config,
            "model": {"loss": config["model"]["label_smoothing"], **config["model"]["hparams"]["f_optim"]},
        }

    assert check_overrides(["experiment=cifar10_record"]).model.algorithm == "amortised_dtp"
    assert shared("amortised_dtp") == shared("delta_mirror") == shared("backprop")


@pytest.mark.parametrize("model", ["amortised_dtp", "delta_mirror"])
def test_rates_are_those_of_backprop(model: str) -> None:
    learner = built(model).learner
    assert isinstance(learner, Learner)
    assert isinstance(learner.algorithm.targets, DifferenceTargets)
    assert learner.update_scale == 1
    assert learner.network.style == {"amortised_dtp": "matched", "delta_mirror": "linear"}[model]


def test_patches_are_whitened_by_training_images_of_the_seed() -> None:
    for seed in (0, 1):
        wanted = Whitening(1, 2)
        wanted.fit(data(seed).sample(2000))
        for model in RULES:
            assert torch.equal(whitening(built(model, seed)).weight, wanted.weight)
    assert not torch.equal(whitening(built("backprop", 0)).weight, whitening(built("backprop", 1)).weight)


def test_labels_are_smoothed_in_training() -> None:
    logits, labels = torch.randn(4, 10), torch.arange(4)
    expected = F.cross_entropy(logits, labels, label_smoothing=0.2)
    assert torch.equal(built("backprop").loss(logits, labels), expected)


@pytest.mark.parametrize("model", RULES)
def test_a_short_run_ends_well(compose: Compose, model: str) -> None:
    small = (
        "datamodule=digits",
        "datamodule.val_fraction=0.1",
        "network.hparams.depth=1",
        "datamodule.batch_size=64",
        "scheduler=one_cycle",
    )
    metrics = train(compose("experiment=cifar10_record", f"model={model}", *small))
    assert set(metrics) == {f"{part}/accuracy" for part in ("validation", "test", "validation_mirror", "test_mirror")}
