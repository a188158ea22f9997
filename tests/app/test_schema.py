"""Configurations that cannot work are refused before any data is read, in one line that names the key."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from algorithm_cases import OWN_NETWORK
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf, open_dict
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from targetprop.app.objects import build
from targetprop.app.overrides import CONF, check_overrides
from targetprop.app.repeated import refuse_repeated
from targetprop.app.run import check_configuration, train
from targetprop.app.schema import costs
from targetprop.app.schema.check import GROUPS
from targetprop.app.schema.objects import DESCRIBED, INSTRUCTIONS, described
from targetprop.app.schema.reference import page
from targetprop.utils.errors import UserError


@cache
def _composed(overrides: tuple[str, ...]) -> DictConfig:
    return check_overrides([*overrides, "output_dir=nowhere"])


def compose(*overrides: str) -> DictConfig:
    """The configuration, composed once for all tests; values of keys are put in afterwards."""
    choices = tuple(each for each in overrides if (CONF / each.partition("=")[0]).is_dir())
    config = copy.deepcopy(_composed(choices))
    for override in overrides:
        key = override.lstrip("+").partition("=")[0]
        if override.startswith("~"):
            with open_dict(config):
                del OmegaConf.select(config, key.lstrip("~").rpartition(".")[0])[key.rpartition(".")[2]]
        elif override not in choices:
            config = changed(config, key, parsed(override))
    return config


def parsed(override: str) -> Any:
    return OverridesParser.create().parse_override(override).value()


def changed(config: DictConfig, key: str, value: Any) -> DictConfig:
    """The configuration with another value for a key that may be new."""
    parent, _, name = key.rpartition(".")
    with open_dict(config):
        (OmegaConf.select(config, parent) if parent else config)[name] = value
    return config


def refusal(config: DictConfig) -> str:
    with pytest.raises(UserError) as caught:
        check_configuration(config)
    return str(caught.value)


def objects(section: Any) -> list[tuple[str, DictConfig]]:
    """Every described object within a section, by its key."""
    found = []
    if isinstance(section, DictConfig) and not section._is_none():
        if section.get("_target_"):  # null where the user says what it is
            found.append((str(section._get_full_key(None)), section))
        for name in section:
            found += objects(section._get_node(name))
    return found


# What is right


OWN_DATA = {"rnn": "adding", "decoder": "tiny_shakespeare"}
"""Of networks that take no images."""
GROUP_CHOICES = [
    f"{group}={path.stem}"
    for group in ("model", "network", "scheduler", "callbacks", "trainer", "experiment", "reproduce")
    for path in sorted((CONF / group).glob("*.yaml"))
]


@pytest.mark.parametrize("choice", GROUP_CHOICES)
def test_every_choice_of_every_group_is_right(choice: str) -> None:
    overrides = [choice]
    if choice.startswith("network="):
        overrides += [f"datamodule={OWN_DATA.get(choice.removeprefix('network='), 'cifar10')}"]
    if choice == "model=own":
        overrides += ["model.algorithm=targetprop.algorithms.DTP"]
    if choice == "network=own":
        overrides += ["network._target_=targetprop.models.simple_vgg"]
    if choice in ("model=as_printed", "model=notebook_dtp"):
        overrides += ["network=mlp"]
    if choice.startswith("model=") and (network := OWN_NETWORK.get(choice.removeprefix("model="))):
        overrides += [f"network={network}", *([f"datamodule={OWN_DATA[network]}"] if network in OWN_DATA else [])]
    check_configuration(compose(*overrides))


def test_everything_of_a_described_object_is_described() -> None:
    for group in GROUPS:
        for path in (CONF / group).glob("*.yaml"):
            for key, each in objects(OmegaConf.load(path)):
                target = get_object(each._target_)
                names = each.get("hparams", each) if group == "network" else each
                known = {*described(target), *INSTRUCTIONS, "defaults"}
                if target.__name__ not in ("StepLosses", "Genuineness", "load"):  # which have no settings
                    assert known >= set(map(str, names)), f"{path}: {key}"


@pytest.mark.parametrize("name", DESCRIBED)
def test_what_is_described_exists(name: str) -> None:
    module, _, last = name.rpartition(".")
    assert hasattr(__import__(module, fromlist=[last]), last)


def test_the_reference_is_current() -> None:
    written = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text()
    assert written == page(), "run: python -m targetprop.app.schema.reference > docs/configuration.md"


# Sections


@pytest.mark.parametrize("section", [*GROUPS, "model.hparams", "model.hparams.f_optim", "network.hparams"])
@pytest.mark.parametrize("value", [-1, 0, 1e30, float("nan"), "abc", True, [1]])
def test_a_section_is_no_value(section: str, value: object) -> None:
    said = refusal(changed(compose(), section, value))
    assert said.startswith(f"{section}: expected ")
    assert "got " in said
    assert "\n" not in said


@pytest.mark.parametrize("section", ["model", "network", "datamodule", "trainer", "model.hparams", "network.hparams"])
def test_a_section_is_not_null(section: str) -> None:
    assert refusal(changed(compose(), section, None)).startswith(f"{section}: expected ")


@pytest.mark.parametrize("value", ["null", "-1", "1e30", "nan", "true", "[]"])
@pytest.mark.parametrize("group", GROUPS)
def test_a_choice_on_the_command_line_is_a_name(group: str, value: str) -> None:
    with pytest.raises(UserError, match=f"^{group}: unknown value .*Valid: "):
        check_overrides([f"{group}={value}"])


# Values of every key


@pytest.mark.parametrize("value", [{"a": 1}, [[]], float("nan")])
@pytest.mark.parametrize("choices", [[], ["callbacks=early_stopping"], ["scheduler=one_cycle"], ["scheduler=step"]])
def test_no_setting_of_a_described_object_takes_what_is_no_value(choices: list[str], value: object) -> None:
    tried = 0
    for group in ("trainer", "datamodule", "scheduler", "callbacks", "logger"):
        for key, each in objects(compose(*choices)[group]):
            for name in map(str, each):
                if name in INSTRUCTIONS or isinstance(each._get_node(name), DictConfig):
                    continue
                said = refusal(changed(compose(*choices), f"{key}.{name}", value))
                assert said.startswith(f"{key}.{name}: "), said
                tried += 1
    assert tried > 40


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        (["callbacks.best.mode=mx"], "callbacks.best.mode"),
        (["callbacks.best.monitor=val/acc"], "callbacks.best.monitor"),
        (["callbacks.best.save_top_k=abc"], "callbacks.best.save_top_k"),
        (["callbacks.best.filename=../../x"], "callbacks.best.filename"),
        (["callbacks.best.filename=last"], "callbacks.best.filename"),
        (["callbacks.last.every_n_minutes=0"], "callbacks.last.every_n_minutes"),
        (["+callbacks.two=${callbacks.last}"], "callbacks.two.dirpath"),
        (["+callbacks.two=${callbacks.best}"], "callbacks.two.filename"),
        (["callbacks.divergence.every_n_steps=null"], "callbacks.divergence.every_n_steps"),
        (["callbacks.progress_lines.seconds=null"], "callbacks.progress_lines.seconds"),
        (["callbacks.history.path=0"], "callbacks.history.path"),
        (["+callbacks.x=1"], "callbacks.x"),
        (["callbacks=early_stopping", "callbacks.early_stopping.patience=nan"], "callbacks.early_stopping.patience"),
        (["callbacks=early_stopping", "callbacks.early_stopping.monitor=val/f1"], "callbacks.early_stopping.monitor"),
        (["callbacks.best.monitor=feedback_loss/block9"], "callbacks.best.monitor"),
        (["callbacks.best.monitor=feedback_loss/block1"], "callbacks.best.monitor"),
        (["model=backprop", "callbacks.best.monitor=feedback_loss/block2"], "callbacks.best.monitor"),
        (["callbacks=early_stopping", "trainer.limit_val_batches=0"], "callbacks.early_stopping.monitor"),
        (["logger.csv.save_dir=null"], "logger.csv.save_dir"),
        (["scheduler.T_max=0"], "scheduler.T_max"),
        (["scheduler.T_max=abc"], "scheduler.T_max"),
        (["scheduler.T_max=nan"], "scheduler.T_max"),
        (["scheduler.eta_min=null"], "scheduler.eta_min"),
        (["scheduler.eta_min=1e9"], "scheduler.eta_min"),
        (["scheduler=step", "scheduler.gamma=-1"], "scheduler.gamma"),
        (["scheduler=step", "scheduler.step_size=-1"], "scheduler.step_size"),
        (["scheduler=none", "+scheduler._target_=torch.optim.lr_scheduler.ConstantLR", "+scheduler._partial_=true",
          "+scheduler.factor=abc"], "scheduler.factor"),
        (["trainer.limit_train_batches=0"], "trainer.limit_train_batches"),
        (["trainer.limit_train_batches=1e-9"], "trainer.limit_train_batches"),
        (["trainer.limit_test_batches=0.5"], "trainer.limit_test_batches"),
        (["model.hparams.f_optim.type=[]"], "model.hparams.f_optim.type"),
        (["model.hparams.style={a:1}"], "model.hparams.style"),
        (["trainer.check_val_every_n_epoch=0"], "trainer.check_val_every_n_epoch"),
        (["trainer.fast_dev_run=1e30"], "trainer.fast_dev_run"),
        (["trainer.threads=1000000"], "trainer.threads"),
        (["trainer.max_epochs=-1"], "trainer.max_epochs"),
        (["trainer.max_epochs=-1", "+trainer.max_steps=5"], "trainer.max_epochs"),
        (["+trainer.benchmark=-1"], "trainer.benchmark"),
        (["+trainer.max_time=-1"], "trainer.max_time"),
        (["+trainer.logger=abc"], "trainer.logger"),
        (["+trainer.precison=64"], "trainer.precison"),
        (["datamodule.drop_last=nan"], "datamodule.drop_last"),
        (["datamodule.reshuffle=null"], "datamodule.reshuffle"),
        (["datamodule.mean=0.3"], "datamodule.mean"),
        (["datamodule.augmentation={_target_:targetprop.data.Augmentation,crop:100000}"],
         "datamodule.augmentation.crop"),
        (["datamodule.load._partial_=false"], "datamodule.load"),
        (["~datamodule.batch_size"], "datamodule.batch_size"),
        (["datamodule=teacher", "~datamodule.batch_size"], "datamodule.batch_size"),
        (["datamodule=tiny_shakespeare", "~datamodule.batch_size"], "datamodule.batch_size"),
        (["datamodule=sequential_digits", "datamodule.load.by=columns"], "datamodule.load.by"),
        (["datamodule=adding", "datamodule.load.length=1"], "datamodule.load.length"),
        (["+datamodule.foo=1"], "datamodule.foo"),
        (["+model.loss=1"], "model.loss"),
        (["+model.foo=1"], "model.foo"),
        (["+network.hparams.foo=1"], "network.hparams.foo"),
        (["network.hparams.activation=0"], "network.hparams.activation"),
        (["model.hparams.noise=[1,2,3]"], "model.hparams.noise"),
        (["model.hparams.f_optim.momentum=1.5"], "model.hparams.f_optim.momentum"),
    ],
    ids=str,
)  # fmt: skip
def test_a_value_that_does_not_fit_is_refused_by_its_key(overrides: list[str], key: str) -> None:
    said = refusal(compose(*overrides))
    assert said.startswith(f"{key}: "), said
    assert "\n" not in said


UNKNOWABLE = ("os.getcwd", "torch.nn.Linear")


@pytest.mark.parametrize("wrong", ["abc", "os.getcwd", "nowhere.Class", "math.pi", "torch.nn.Linear", 5, None])
def test_a_wrong_target_is_refused(wrong: object) -> None:
    for group in GROUPS:
        for key, each in objects(compose()[group]):
            if set(each) <= set(INSTRUCTIONS) and wrong in UNKNOWABLE:
                continue  # of a function without settings nobody knows what it makes, until it has
            said = refusal(changed(compose(), f"{key}._target_", wrong))
            assert said.startswith(key), said
            assert "\n" not in said


def test_nothing_is_read_for_a_configuration_that_is_refused() -> None:
    read: list[str] = []
    config = changed(compose("scheduler=cosine"), "scheduler.eta_min", "abc")
    config.datamodule.load._target_ = f"{__name__}.note_reading"
    note_reading.calls = read  # type: ignore[attr-defined]
    with pytest.raises(UserError, match=r"^scheduler.eta_min: "):
        train(config)
    assert not read
    assert not Path(config.output_dir).exists()


def note_reading(data_dir: str, download: bool) -> None:
    note_reading.calls.append(data_dir)  # type: ignore[attr-defined]


def test_a_key_is_given_one_value_only() -> None:
    with pytest.raises(UserError, match=r"^seed: expected one value, got '1' and '2'"):
        refuse_repeated(["seed=1", "+trainer.max_steps=4", "seed=2"])
    with pytest.raises(UserError, match=r"^trainer.max_steps: "):
        refuse_repeated(["-m", "+trainer.max_steps=4", "++trainer.max_steps=5"])
    refuse_repeated(["seed=1", "seed=1"])
    refuse_repeated(["~datamodule.augmentation", "+datamodule.augmentation={flip:1}", "--config-name", "config"])


# Objects of the user's own


class Own(L.Callback):
    """An observer with one setting."""

    def __init__(self, count: int, name: str | None = None) -> None:
        if count > 9:
            raise RuntimeError("more than\nI can count")
        self.count = count


def halved(optimizer: Optimizer, factor: float = 0.5) -> LRScheduler:
    return LambdaLR(optimizer, lambda epoch: factor**epoch)


def two_layers(image_shape: tuple[int, ...], num_classes: int, width: int = 4) -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ELU(), nn.Linear(width, num_classes))


OWN: Mapping[str, tuple[str, dict[str, Any]]] = {
    "callbacks.own": ("callbacks.own", {"_target_": f"{__name__}.Own", "count": 3}),
    "scheduler": ("scheduler", {"_target_": f"{__name__}.halved", "_partial_": True, "factor": 0.9}),
    "network.hparams": ("network", {"_target_": f"{__name__}.two_layers", "hparams": {"width": 5}}),
}
"""Where settings stand, where the object stands, and the object."""


@pytest.mark.parametrize("place", OWN)
def test_objects_of_the_users_own_are_taken_and_their_settings_checked(place: str) -> None:
    key, described_so = OWN[place]
    config = changed(compose("model=delta_mirror"), key, described_so)
    check_configuration(config)
    name = {"callbacks.own": "count", "scheduler": "factor", "network.hparams": "width"}[place]
    for value in ("abc", None, [1], {"a": 1}):
        assert refusal(changed(config, f"{place}.{name}", value)).startswith(f"{place}.{name}: expected a ")
    assert refusal(changed(changed(config, f"{place}.{name}", 1), f"{place}.foo", 1)).startswith(f"{place}.foo: ")


def test_whatever_an_object_raises_while_it_is_made_is_one_line() -> None:
    config = changed(compose(), "callbacks.own", {"_target_": f"{__name__}.Own", "count": 10})
    with pytest.raises(UserError, match=r"^callbacks\.own: cannot be made: more than I can count$"):
        build(config.callbacks.own)


def test_a_schedule_whose_rates_are_none_is_refused() -> None:
    config = changed(compose("trainer.max_epochs=3"), "scheduler", OWN["scheduler"][1])
    assert refusal(changed(config, "scheduler.factor", -1.0)).startswith("scheduler: expected rates of 0 or more")


# What is too much


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("network.hparams.channels=[100000000,8]", "network.hparams, datamodule.batch_size"),
        ("network.hparams.channels=[100000,100000]", "network.hparams"),
        ("model.hparams.feedback_training_iterations=100000000", "model.hparams.feedback_training_iterations"),
        ("model.hparams.noise_samples=10000000", "model.hparams.noise_samples"),
    ],
)
def test_what_no_machine_can_do_is_refused_with_an_estimate(override: str, key: str) -> None:
    said = refusal(compose(override))
    assert said.startswith(f"{key}: expected ")
    assert "at least" in said or "at the least" in said


def test_a_run_of_years_is_refused_and_one_of_days_announced(caplog: pytest.LogCaptureFixture) -> None:
    work = costs.Work(multiply_adds=0, updates=1 / costs.UPDATE)  # about a second
    with pytest.raises(UserError, match=r"^key: expected a run of a year at most, got one of 3 years"):
        costs.refuse_endless("key", work, 3 * 365 * 86400, rate=1)
    with caplog.at_level(logging.WARNING):
        costs.refuse_endless("key", work, 3 * 86400, rate=1)
    assert "takes 3 days at the least" in caplog.text


def test_memory_is_that_of_weights_gradients_and_the_largest_layer() -> None:
    with torch.device("meta"):
        net = nn.Sequential(nn.Flatten(), nn.Linear(12, 100), nn.Linear(100, 7))
    numbers = 12 * 100 + 100 + 100 * 7 + 7
    assert costs.least_memory(net, net.parameters(), (3, 2, 2), batch=5) == (2 * 4 * numbers, 4 * 5 * 100)
    costs.refuse_memory(60, 40, 100, "a machine")
    with pytest.raises(UserError, match=r"^network.hparams: .* 100 bytes of a machine, .* 101 bytes: 61 bytes"):
        costs.refuse_memory(61, 40, 100, "a machine")
