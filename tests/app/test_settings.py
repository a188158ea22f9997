"""Numbers that depend on model, network and data set, as the configuration resolves them."""

from __future__ import annotations

import pytest

from targetprop.app.overrides import check_overrides


def rate(*overrides: str) -> float:
    return float(check_overrides([*overrides, "output_dir=nowhere"]).model.hparams.f_optim.lr)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([], 0.04),
        (["datamodule=cifar10"], 0.04),
        (["datamodule=mnist"], 0.01),
        (["datamodule=fashion_mnist"], 0.01),
        (["network=mlp", "datamodule=mnist"], 0.05),
        (["model=amortised_dtp", "datamodule=mnist"], 0.04),
        (["model=layer_parallel_dtp", "datamodule=mnist"], 0.01),
        (["model=layer_parallel_dtp", "datamodule=cifar10"], 0.05),
        (["model=backprop", "datamodule=mnist"], 0.05),
        (["model=tp", "datamodule=mnist"], 0.01),
        (["network=lenet"], 0.03618),
        (["network=lenet", "datamodule=mnist"], 0.01),
        (["network=lenet", "datamodule=fashion_mnist"], 0.01),
        (["network=lenet", "datamodule=mnist", "model=layer_parallel_dtp"], 0.01),
        (["network=lenet", "datamodule=mnist", "model=vanilla_dtp"], 0.001),
        (["datamodule=teacher"], 0.2),
        (["datamodule=teacher", "network=mlp"], 0.05),
        (["datamodule=mnist", "model.hparams.f_optim.lr=0.3"], 0.3),
        (["model.hparams.f_optim.lr=0.3", "datamodule=mnist"], 0.3),
        (["reproduce=cifar10_simple_vgg_dtp"], 0.08),
    ],
)
def test_the_most_special_settings_hold_and_what_is_typed_over_all(overrides: list[str], expected: float) -> None:
    assert rate(*overrides) == expected


@pytest.mark.parametrize(
    ("overrides", "network", "task"),
    [
        (["datamodule=teacher"], [128, 128], "Regression"),
        (["datamodule=teacher", "network=mlp"], [1000, 1000, 1000], "Regression"),
        (["network=mlp", "datamodule=mnist"], [1000, 1000, 1000], "Classification"),
        (["datamodule=own", "network=mlp", "task=regression"], [1000, 1000, 1000], "Regression"),
    ],
)
def test_a_data_set_may_choose_task_and_network(overrides: list[str], network: list[int], task: str) -> None:
    config = check_overrides([*overrides, "output_dir=nowhere"])
    assert list(config.network.hparams.hidden) == network
    assert config.task["_target_"].endswith(task)
    assert config.callbacks.best.monitor == {"Regression": "val/loss", "Classification": "val/accuracy"}[task]
    assert config.callbacks.best.mode == {"Regression": "min", "Classification": "max"}[task]
