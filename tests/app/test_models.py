"""The family by name: every model is its algorithm, with the numbers that this has, and trains."""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any, ClassVar

import pytest
import torch
from algorithm_cases import OWN_NETWORK
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from targetprop import DTP, Algorithm, ByLoss, DifferenceTargets, Learner, PlainTargets, Trainable, UserError
from targetprop.algorithms import ALGORITHMS
from targetprop.app.datamodule import ImageDataModule
from targetprop.app.overrides import CONF, check_overrides
from targetprop.app.run import build_module, train
from targetprop.baselines.backprop import Backprop
from targetprop.data import digits
from targetprop.feedback.base import OptimizerSpec
from targetprop.feedback.losses import l_drl, reconstruction
from targetprop.learners import LEARNERS

Compose = Callable[..., DictConfig]
MODELS = sorted(path.stem for path in (CONF / "model").glob("*.yaml"))
BY_ALGORITHM = [name for name in MODELS if check_overrides([f"model={name}"]).model.get("algorithm")]


def settings(model: str, network: str = "simple_vgg") -> tuple[DictConfig, dict[str, Any]]:
    config = check_overrides([f"model={model}", f"network={network}", "output_dir=out"])
    hparams = OmegaConf.to_container(config.model.hparams, resolve=True)
    assert isinstance(hparams, dict)
    return config, {str(key): value for key, value in hparams.items()}


def build(config: DictConfig) -> Trainable:
    data = ImageDataModule(lambda *_: digits.load(), data_dir="", batch_size=32, mean=[0.3], std=[0.4])
    return build_module(config, data).learner


def built(config: DictConfig) -> Learner:
    learner = build(config)
    assert isinstance(learner, Learner)
    return learner


def test_every_algorithm_is_a_model() -> None:
    assert {settings(name)[0].model.algorithm for name in BY_ALGORITHM} == set(ALGORITHMS)
    assert set(ALGORITHMS) <= set(MODELS)


def test_every_rule_that_is_no_sweep_is_a_model() -> None:
    by_rule = {name: config for name in MODELS if "rule" in (config := settings(name)[0].model)}
    assert {name: config.rule for name, config in by_rule.items()} == {name: name for name in LEARNERS}
    for name, rule in LEARNERS.items():
        hparams = settings(name)[1]
        assert set(hparams) == {*rule.numbers, "f_optim"}
        for key, value in rule.numbers.items():
            given = OptimizerSpec(**hparams[key]) if isinstance(value, OptimizerSpec) else hparams[key]
            assert given == value


def pairs() -> list[Any]:
    """Models with networks: every one of either with the other's usual ones, and all where there is time."""
    networks = sorted(path.stem for path in (CONF / "network").glob("*.yaml"))
    usual = {("amortised_dtp", network) for network in networks}
    usual |= {(model, network) for model in BY_ALGORITHM for network in ("simple_vgg", "norm_vgg")}
    every = itertools.product(BY_ALGORITHM, networks)
    return [pytest.param(*each, marks=() if each in usual else pytest.mark.slow) for each in every]


@pytest.mark.parametrize(("model", "network"), pairs())
def test_a_model_has_the_numbers_of_its_algorithm_and_no_others(model: str, network: str) -> None:
    config, hparams = settings(model, network)
    assert set(hparams) == {*ALGORITHMS[config.model.algorithm].numbers, "f_optim"}
    assert set(config.model) - {"loss", "feedback_epochs"} == {"_target_", "algorithm", "hparams"}


@pytest.mark.parametrize("model", ["lee_dtp", "parallel_dtp"])
def test_numbers_that_an_algorithm_has_by_name_are_those_of_its_model(model: str) -> None:
    _, hparams = settings(model)
    by_name, plain = ALGORITHMS[model].numbers, DTP.numbers
    own = {key for key, value in by_name.items() if value != plain[key]}
    assert own >= {"feedback_training_iterations"}
    for key in own - {"b_optim"}:
        assert hparams[key] == by_name[key]
    if "b_optim" in own:
        assert OptimizerSpec(**hparams["b_optim"]) == by_name["b_optim"]


@pytest.mark.parametrize("model", ["vanilla_dtp", "tp"])
def test_untuned_models_differ_from_dtp_in_their_rule_and_forward_rate_alone(model: str) -> None:
    config, hparams = settings(model)
    expected = settings("dtp")[1]
    expected["f_optim"]["lr"] = 1e-3
    assert hparams == expected
    assert config.model.algorithm == model


def test_parallel_dtp_is_one_shot_with_adam_and_without_schedule() -> None:
    config, hparams = settings("parallel_dtp")
    adam = {"type": "adam", "lr": 3e-4, "momentum": 0.0, "weight_decay": 1e-4, "nesterov": False}
    assert (hparams["f_optim"], hparams["b_optim"]) == (adam, adam)
    assert (hparams["feedback_training_iterations"], hparams["noise_samples"]) == (1, 10)
    assert config.scheduler == {}
    assert check_overrides(["model=parallel_dtp", "scheduler=cosine"]).scheduler.T_max == 85


@pytest.mark.parametrize(
    ("chosen", "style"),
    [
        (["network=simple_vgg"], "published"),
        (["network=lenet"], "published"),
        *(([f"network={each}"], "adjoint") for each in ("norm_vgg", "resnet18", "resnet34", "resnet_small")),
        (["network=resnet18", "model=tp"], "adjoint"),
        (["network=resnet18", "model.hparams.style=published"], "published"),
        (["network=norm_vgg", "model=lee_dtp"], "lee"),
        (["network=resnet18", "model=kolen_pollack"], "linear"),
    ],
)
def test_networks_with_batch_norm_have_adjoint_feedback_unless_the_model_needs_another(
    chosen: list[str], style: str
) -> None:
    assert check_overrides(chosen).model.hparams.style == style


@pytest.mark.parametrize("model", ["baseline", "vanilla_baseline"])
def test_a_baseline_is_backprop(model: str) -> None:
    assert settings(model)[0].model == settings("backprop")[0].model


@pytest.mark.parametrize(
    ("chosen", "rate"),
    [
        (["model=dtp", "network=lenet"], 0.03618),
        (["network=lenet", "model=dtp"], 0.03618),
        (["experiment=cifar10_cpu_30min", "network=lenet"], 0.03618),
        (["model=delta_mirror", "network=simple_vgg"], 0.04),
        (["experiment=cifar10_cpu_30min", "network=simple_vgg"], 0.04),
        (["reproduce=cifar10_simple_vgg_dtp", "model=delta_mirror"], 0.04),
        (["reproduce=cifar10_simple_vgg_dtp", "network=lenet"], 0.03618),
        (["model=layer_parallel_dtp", "network=lenet"], 0.05),
        (["model=delta_mirror", "network=simple_vgg", "model.hparams.f_optim.lr=0.3"], 0.3),
        (["model.hparams.f_optim.lr=0.3", "experiment=cifar10_resnet_small"], 0.3),
    ],
)
def test_numbers_follow_model_and_network_however_they_are_chosen(chosen: list[str], rate: float) -> None:
    assert check_overrides(chosen).model.hparams.f_optim.lr == rate


@pytest.mark.parametrize(
    ("model", "targets", "loss"),
    [
        ("dtp", DifferenceTargets, l_drl),
        ("vanilla_dtp", DifferenceTargets, reconstruction),
        ("tp", PlainTargets, reconstruction),
        ("parallel_dtp", DifferenceTargets, l_drl),
    ],
)
def test_a_model_is_its_algorithm(compose: Compose, model: str, targets: type, loss: object) -> None:
    algorithm = built(compose(f"model={model}")).algorithm
    assert isinstance(algorithm.feedback, ByLoss)
    assert (type(algorithm.targets), algorithm.feedback.loss) == (targets, loss)


@pytest.mark.parametrize("model", [name for name in MODELS if name not in ("as_printed", "own", *OWN_NETWORK)])
def test_a_model_trains_the_default_network(compose: Compose, model: str) -> None:
    config = compose(f"model={model}", "callbacks=none", "logger=none")
    config.network.hparams.channels = [4, 6]
    assert math.isfinite(train(config)["test/accuracy"])


def on_its_network(model: str) -> list[str]:
    """What to choose for a model that trains a network of its own."""
    network = OWN_NETWORK[model]
    return [f"model={model}", f"network={network}", *(["datamodule=sequential_digits"] if network == "rnn" else [])]


@pytest.mark.parametrize("model", OWN_NETWORK)
def test_a_model_trains_the_network_that_it_is_known_for_and_refuses_others(compose: Compose, model: str) -> None:
    config = compose("callbacks=none", "logger=none", *on_its_network(model))
    assert math.isfinite(train(config)["test/accuracy"])
    with pytest.raises(UserError, match=rf"^network: .*{OWN_NETWORK[model]}"):
        train(compose(f"model={model}", "callbacks=none"))


@pytest.mark.parametrize("model", LEARNERS)
def test_numbers_of_a_rule_that_is_no_sweep_are_checked_by_key(compose: Compose, model: str) -> None:
    with pytest.raises(UserError, match=r"^model\.hparams\.bta: there is no such setting"):
        train(compose(*on_its_network(model), "+model.hparams.bta=1"))
    with pytest.raises(UserError, match=r"^model\.rule: unknown value 'lra'\. Did you mean 'lra_e'\?"):
        train(compose(*on_its_network(model), "model.rule=lra"))
    key = {"counter_current": "scale", "lra_e": "beta"}.get(model, "step")
    with pytest.raises(UserError, match=rf"^model\.hparams\.{key}: expected a number above 0, got -1"):
        train(compose(*on_its_network(model), f"model.hparams.{key}=-1"))


def test_a_baseline_trains_by_backprop(compose: Compose) -> None:
    config = compose("model=backprop")
    config.model = check_overrides(["model=baseline"]).model
    assert isinstance(build(config), Backprop)


def test_symmetric_weights_by_configuration(compose: Compose) -> None:
    learner = built(compose("model.hparams.init_symmetric_weights=true"))
    for pair in learner.network.trained:
        for forward, feedback in pair.weights():
            assert (forward == feedback).all()


class Watching(DifferenceTargets):
    """Difference targets that remember what they were told at the output."""

    told: ClassVar[list[Any]] = []

    def sweep(self, seen: Any, output: Any) -> Any:
        self.told.append(output)
        return super().sweep(seen, output)


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A module of the user's own, with an algorithm in it."""
    module: Any = ModuleType("my_rules")
    module.MINE = Algorithm(Watching(), ByLoss(reconstruction))
    monkeypatch.setitem(sys.modules, "my_rules", module)
    return module


def test_an_algorithm_of_ones_own_is_trained_by_its_import_path(compose: Compose, own: Any) -> None:
    learner = built(compose("model.algorithm=my_rules.MINE", "model.hparams.beta=0.3"))
    assert learner.algorithm == own.MINE.with_numbers(
        **{key: value for key, value in learner.algorithm.numbers.items() if key != "beta"}, beta=0.3
    )
    with pytest.raises(UserError, match=r"^model\.algorithm: .*my_rules"):
        build(compose("model.algorithm=my_rules.YOURS"))


def test_the_model_own_keeps_the_numbers_of_an_algorithm(
    compose: Compose, own: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="targetprop.app.models")
    assert built(compose("model=own", "model.algorithm=my_rules.MINE")).algorithm == own.MINE
    assert not caplog.messages
    changed = built(compose("model=own", "model.algorithm=my_rules.MINE", "+model.hparams.beta=0.3")).algorithm
    assert changed == own.MINE.with_numbers(beta=0.3)
    caplog.clear()
    built(compose("model=dtp", "model.algorithm=my_rules.MINE"))
    (said,) = caplog.messages
    assert said.startswith("my_rules.MINE trains with the configuration's ")
    assert "noise" in said
    assert "model=own" in said


def test_a_rule_is_told_labels_and_loss(compose: Compose, own: Any) -> None:
    Watching.told.clear()
    train(compose("model.algorithm=my_rules.MINE", "callbacks=none"))
    assert len(Watching.told) == 3
    for signal in Watching.told:
        output: Tensor = torch.randn(len(signal.labels), 10, requires_grad=True)
        expected = torch.nn.functional.cross_entropy(output, signal.labels)
        assert torch.equal(signal.loss(output), expected)
