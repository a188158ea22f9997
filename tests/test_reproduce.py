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
    of_papers = {f"{data}_mlp_meulemans_{rule}" for data, rules in MEULEMANS.items() for rule in rules}
    of_papers |= {f"{data}_mlp_{rule}" for data in MEULEMANS for rule in ("fw_dtp", "shibuya_dtp")}
    assert {path.stem for path in (CONF / "reproduce").glob("*.yaml")} == {*PUBLISHED, *ours, *of_papers}


# Of Meulemans et al. 2020 as their table has them, to three digits: rate (which they divide by the step size of the
# target), that step size; rate, noise and decay of the feedback, its epochs before training and after each epoch.
MEULEMANS: dict[str, dict[str, tuple[float, ...]]] = {
    "mnist": {
        "backprop": (2.97e-4,),
        "dfa": (3.81e-4, 1.0),
        "dtp": (6.19e-5, 0.220, 1.96e-3, 0.0837, 0, 0, 0),
        "drl": (2.97e-5, 0.0686, 2.01e-5, 0.0569, 5.4e-6, 6, 1),
        "ddtp_linear": (2.04e-5, 0.0610, 1.64e-4, 0.0908, 5.8e-7, 6, 1),
        "ddtp_rhl": (2.80e-5, 0.0435, 3.02e-4, 0.0416, 1.6e-3, 6, 1),
    },
    "fashion_mnist": {
        "backprop": (2.88e-4,),
        "dfa": (9.40e-4, 1.0),
        "dtp": (6.26e-5, 0.241, 3.66e-4, 0.267, 0, 0, 0),
        "drl": (7.10e-5, 0.0866, 9.70e-5, 0.0843, 2.1e-5, 6, 1),
        "ddtp_linear": (8.70e-6, 0.0173, 7.96e-4, 0.0986, 5.8e-6, 6, 1),
        "ddtp_rhl": (3.38e-5, 0.0262, 1.16e-5, 0.0439, 8.5e-4, 6, 1),
    },
    "cifar10": {
        "backprop": (3.89e-4,),
        "dfa": (3.81e-4, 1.0),
        "dtp": (8.08e-6, 0.0727, 2.13e-3, 0.241, 0, 0, 0),
        "drl": (1.41e-5, 0.0262, 1.52e-4, 0.0992, 1.3e-5, 10, 2),
        "ddtp_linear": (5.85e-5, 0.0669, 4.78e-5, 0.0063, 5.4e-5, 10, 2),
        "ddtp_rhl": (2.26e-6, 0.0162, 9.10e-4, 0.0274, 1.3e-7, 10, 2),
    },
}


@pytest.mark.parametrize("rule", MEULEMANS["mnist"])
@pytest.mark.parametrize("data", MEULEMANS)
def test_numbers_of_meulemans(data: str, rule: str) -> None:
    config = check_overrides([f"reproduce={data}_mlp_meulemans_{rule}", "output_dir=out"])
    hparams, (rate, *others) = config.model.hparams, MEULEMANS[data][rule]
    step = others[0] if others else 1.0
    assert hparams.f_optim.type == "adam"
    assert hparams.f_optim.lr == pytest.approx(rate / step, rel=0.01)
    assert (hparams.f_optim.weight_decay, hparams.f_optim.momentum) == (0, 0)
    if others:
        assert hparams.beta == pytest.approx(step / 128, rel=0.01)
    if others[1:]:
        lr, noise, decay, before, after = others[1:]
        assert (hparams.b_optim.lr, hparams.noise) == pytest.approx((lr, noise), rel=0.01)
        assert hparams.b_optim.weight_decay == pytest.approx(decay, rel=0.05)  # of two digits
        assert (config.model.feedback_epochs.before, config.model.feedback_epochs.after_each) == (before, after)
    assert (config.datamodule.batch_size, config.trainer.max_epochs) == (128, 100)
    assert not config.scheduler
    assert list(config.network.hparams.hidden) == ([1024] * 3 if data == "cifar10" else [256] * 5)
    assert hparams.get("hidden_units") == ({"cifar10": 2048}.get(data, 1024) if rule == "ddtp_rhl" else None)
    held = round(config.datamodule.val_fraction * (50_000 if data == "cifar10" else 60_000))
    assert held == 5000
    assert config.datamodule.get("augmentation") is None


@pytest.mark.parametrize("data", MEULEMANS)
def test_numbers_of_shibuya(data: str) -> None:
    fixed, learning = (
        check_overrides([f"reproduce={data}_mlp_{rule}", "output_dir=out"]) for rule in ("fw_dtp", "shibuya_dtp")
    )
    for config in (fixed, learning):
        hparams = config.model.hparams
        assert (hparams.f_optim.lr, hparams.f_optim.momentum, hparams.f_optim.weight_decay) == (2e-3, 0, 0)
        assert (hparams.beta, config.datamodule.batch_size, config.trainer.max_epochs) == (1e-2, 256, 100)
        assert list(config.network.hparams.hidden) == [256] * 5
        assert set(config.datamodule.mean) == {0.1307}
        assert set(config.datamodule.std) == {0.3081}
    assert fixed.model.hparams.init == "uniform-3"
    numbers = learning.model.hparams
    assert (numbers.init, numbers.noise, numbers.feedback_training_iterations) == ("uniform-2", 1e-2, 5)
    assert (numbers.b_optim.lr, learning.model.feedback_epochs.before) == (1e-3, 5)


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
