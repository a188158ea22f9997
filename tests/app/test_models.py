"""The family by name: every model trains, with the published settings."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from targetprop.app.cli import check_overrides
from targetprop.app.datamodule import ImageDataModule
from targetprop.app.run import build_module, train
from targetprop.baselines.backprop import Backprop
from targetprop.data import digits
from targetprop.feedback.rules import difference, direct, l_drl, reconstruction
from targetprop.learner import Learner

Compose = Callable[..., DictConfig]


def settings(model: str) -> tuple[DictConfig, dict[str, Any]]:
    config = check_overrides([f"model={model}", "network=simple_vgg", "output_dir=out"])
    hparams = OmegaConf.to_container(config.model.hparams, resolve=True)
    assert isinstance(hparams, dict)
    return config, {str(key): value for key, value in hparams.items()}


@pytest.mark.parametrize("model", ["vanilla_dtp", "tp"])
def test_untuned_models_differ_from_dtp_in_their_rule_and_forward_rate_alone(model: str) -> None:
    config, hparams = settings(model)
    expected = settings("dtp")[1]
    expected["f_optim"]["lr"] = 1e-3
    assert hparams == expected
    assert config.model.recipe == model


def test_parallel_dtp_is_one_shot_with_adam_and_without_schedule() -> None:
    config, hparams = settings("parallel_dtp")
    adam = {"type": "adam", "lr": 3e-4, "momentum": 0.0, "weight_decay": 1e-4}
    assert (hparams["f_optim"], hparams["b_optim"]) == (adam, adam)
    assert (hparams["feedback_training_iterations"], hparams["noise_samples"]) == (1, 10)
    assert config.scheduler == {}
    assert check_overrides(["model=parallel_dtp", "scheduler=cosine"]).scheduler.T_max == 85


@pytest.mark.parametrize("model", ["baseline", "vanilla_baseline"])
def test_a_baseline_is_backprop(model: str) -> None:
    assert settings(model)[0].model == settings("backprop")[0].model


@pytest.mark.parametrize(
    ("model", "targets", "loss"),
    [
        ("dtp", difference, l_drl),
        ("vanilla_dtp", difference, reconstruction),
        ("tp", direct, reconstruction),
        ("parallel_dtp", difference, l_drl),
    ],
)
def test_a_model_is_its_recipe(compose: Compose, model: str, targets: object, loss: object) -> None:
    recipe = build(compose(f"model={model}")).recipe
    assert (recipe.targets, recipe.feedback_loss) == (targets, loss)


def build(config: DictConfig) -> Learner:
    data = ImageDataModule(lambda *_: digits.load(), data_dir="", batch_size=32, mean=[0.3], std=[0.4])
    learner = build_module(config, data).learner
    assert isinstance(learner, Learner)
    return learner


@pytest.mark.parametrize("model", ["vanilla_dtp", "tp", "parallel_dtp"])
def test_a_model_trains(compose: Compose, tmp_path: Path, model: str) -> None:
    metrics = train(compose(f"model={model}"))
    assert math.isfinite(metrics["test/accuracy"])


def test_a_baseline_trains_by_backprop(compose: Compose) -> None:
    config = compose("model=backprop")
    config.model = check_overrides(["model=baseline"]).model
    data = ImageDataModule(lambda *_: digits.load(), data_dir="", batch_size=32, mean=[0.3], std=[0.4])
    assert isinstance(build_module(config, data).learner, Backprop)


def test_symmetric_weights_by_configuration(compose: Compose) -> None:
    learner = build(compose("model.hparams.init_symmetric_weights=true"))
    for pair in learner.network.trained:
        for forward, feedback in pair.weights():
            assert (forward == feedback).all()
