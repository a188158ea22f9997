"""Complete published settings, and the older spelling of the command that asks for them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from omegaconf import OmegaConf

from targetprop.app.legacy import translate
from targetprop.app.overrides import CONF, check_overrides

Constants = tuple[list[float], list[float]]
BOLTS: Constants = ([x / 255 for x in (125.3, 123.0, 113.9)], [x / 255 for x in (63.0, 62.1, 66.7)])
IMAGENET: Constants = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
TRIPLE: Constants = ([0.4914, 0.4822, 0.4465], [3 * x for x in (0.2023, 0.1994, 0.2010)])
COSINE, STEP = {"T_max": 85, "eta_min": 1e-5}, {"step_size": 30, "gamma": 0.1}


def sgd(rate: float | list[float], decay: float = 1e-4) -> dict[str, Any]:
    return {"type": "sgd", "lr": rate, "momentum": 0.9, "weight_decay": decay, "nesterov": False}


ADAM = {"type": "adam", "lr": 3e-4, "momentum": 0.0, "weight_decay": 1e-4, "nesterov": False}
L_DRL = {
    "beta": 0.7,
    "feedback_training_iterations": [20, 30, 35, 55, 20],
    "noise": [0.4, 0.4, 0.2, 0.2, 0.08],
    "noise_samples": 1,
    "init_symmetric_weights": False,
    "style": "published",
    "b_optim": sgd([1e-4, 3.5e-4, 8e-3, 8e-3, 0.18], 0.0),
}
LENET = {
    "beta": 0.4655,
    "feedback_training_iterations": [41, 51, 24],
    "noise": [0.41640228838517584, 0.3826261146623929, 0.1395382069358601],
    "b_optim": sgd([0.0007188427494432325, 0.00012510321884615596, 0.03541466958291287], 0.0),
}
ON_IMAGENET32 = {"feedback_training_iterations": [25, 35, 40, 60, 25]}
ONE_SHOT = {"feedback_training_iterations": 1, "noise_samples": 10, "b_optim": ADAM}


@dataclass(frozen=True)
class Published:
    """What a published file says.

    Attributes:
        held_out: share of the training set.
        f_optim: the forward optimiser.
        others: the rest of the algorithm's numbers.
    """

    constants: Constants
    held_out: float
    batch: int
    schedule: dict[str, Any] | None
    f_optim: dict[str, Any]
    others: dict[str, Any] = field(default_factory=dict)


PUBLISHED = {
    # amoudgl/distributed-dtp at 04faaaa, conf/reproduce
    "cifar10_simple_vgg_baseline": Published(IMAGENET, 0, 128, COSINE, sgd(0.05)),
    "cifar10_simple_vgg_dtp": Published(IMAGENET, 0, 128, COSINE, sgd(0.08), L_DRL),
    "cifar10_simple_vgg_distributed_dtp": Published(BOLTS, 0, 128, COSINE, sgd(0.05), L_DRL),
    "imagenet32_simple_vgg_baseline": Published(IMAGENET, 0, 256, STEP, sgd(0.01)),
    "imagenet32_simple_vgg_dtp": Published(IMAGENET, 0, 256, COSINE, sgd(0.01), L_DRL | ON_IMAGENET32),
    "imagenet32_simple_vgg_distributed_dtp": Published(IMAGENET, 0, 256, COSINE, sgd(0.01), L_DRL | ON_IMAGENET32),
    # ernoult/scalingDTP at 19b0880, defaults and conf/model_network/dtp_lenet.yaml
    "cifar10_simple_vgg_scaling": Published(BOLTS, 0.1, 128, COSINE, sgd(0.05), L_DRL),
    "cifar10_simple_vgg_scaling_baseline": Published(BOLTS, 0.1, 128, COSINE, sgd(0.05, 0.0)),
    "cifar10_simple_vgg_scaling_parallel": Published(BOLTS, 0.1, 128, None, ADAM, L_DRL | ONE_SHOT),
    "cifar10_lenet_dtp": Published(BOLTS, 0.1, 256, COSINE, sgd(0.03618), L_DRL | LENET),
    # main_legacy.py of both, without --scheduler
    "cifar10_simple_vgg_legacy": Published(TRIPLE, 0, 128, None, sgd(0.08), L_DRL),
}
"""Both code bases train for 90 epochs, keep an epoch's last small batch, flip, and crop after 4 pixels of padding."""


@pytest.mark.parametrize("name", PUBLISHED)
def test_reproduce_has_the_published_settings(name: str) -> None:
    config, published = check_overrides([f"reproduce={name}", "output_dir=out"]), PUBLISHED[name]
    OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    hparams, data, schedule = (
        OmegaConf.to_container(each, resolve=True)
        for each in (config.model.hparams, config.datamodule, config.scheduler)
    )
    assert isinstance(hparams, dict)
    assert isinstance(data, dict)
    assert isinstance(schedule, dict)
    schedule = {key: value for key, value in schedule.items() if not str(key).startswith("_")}
    assert hparams["f_optim"] == published.f_optim
    assert {key: hparams.get(key) for key in published.others} == published.others
    assert schedule == (published.schedule or {})
    assert (data["mean"], data["std"]) == (
        pytest.approx(published.constants[0], abs=1e-6),
        pytest.approx(published.constants[1], abs=1e-6),
    )
    assert (data["val_fraction"], data["batch_size"], data["drop_last"]) == (published.held_out, published.batch, False)
    augmentation = {"_target_": "targetprop.data.Augmentation", "flip": 0.5, "crop": 4, "border": "edge"}
    assert (data["augmentation"], data["reshuffle"]) == (augmentation, True)
    assert (config.trainer.max_epochs, config.seed) == (90, 123)
    assert published.held_out == 0 or config.callbacks.best is None  # the last weights count


@pytest.mark.parametrize("name", PUBLISHED)
def test_reproduce_has_the_published_network_and_trainer(name: str) -> None:
    config = check_overrides([f"reproduce={name}", "output_dir=out"])
    network = OmegaConf.to_container(config.network.hparams)
    if name == "cifar10_lenet_dtp":
        assert network == {"channels": [32, 64], "hidden": 512, "activation": "elu", "pool_padding": 1}
    else:
        assert network == {"channels": [128, 128, 256, 256, 512], "activation": "elu"}
    assert ("layer_parallel" in config.trainer._target_) == ("distributed" in name)
    assert config.model._target_.endswith("backprop" if "baseline" in name else "target_propagation")


def test_every_complete_setting_is_tested() -> None:
    ours = {"cifar10_mlp_as_printed", "cifar10_mlp_dtp"}  # tested beside what they choose
    assert {path.stem for path in (CONF / "reproduce").glob("*.yaml")} == {*PUBLISHED, *ours}


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_complete_setting_says_where_it_is_from(name: str) -> None:
    text = (CONF / "reproduce" / f"{name}.yaml").read_text()
    source = ("amoudgl/distributed-dtp", "04faaaa"), ("ernoult/scalingDTP", "19b0880")
    assert any(repository in text and commit in text for repository, commit in source)
    assert "differs" in text


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
