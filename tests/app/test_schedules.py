"""Schedules that count epochs or steps, or wait for a metric; and runs that go on exactly with them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from identical import assert_identical
from omegaconf import DictConfig
from torch.optim.lr_scheduler import ReduceLROnPlateau

from targetprop.app.checkpoint.names import FOLDER, LAST
from targetprop.app.run import check_configuration, train
from targetprop.app.schedules import Plateau, WarmupCosine
from targetprop.utils.errors import UserError

Compose = Callable[..., DictConfig]
QUICK = ("model=backprop", "trainer.limit_train_batches=3", "trainer.limit_val_batches=1", "test=false", "logger=none",
         "callbacks.genuineness=null")  # fmt: skip
EPOCHS = 4
FALLING = ("scheduler=plateau", "scheduler.patience=0", "scheduler.factor=0.5", "scheduler.threshold=10")
"""Every epoch but the first is without improvement."""
STEP = "+scheduler.interval=step"


def optimizer(*rates: float) -> torch.optim.Optimizer:
    return torch.optim.SGD([{"params": [torch.zeros(1, requires_grad=True)], "lr": rate} for rate in rates or (1.0,)])


def state(config: DictConfig) -> dict[str, Any]:
    """The last checkpoint of a run."""
    saved: dict[str, Any] = torch.load(Path(config.output_dir, FOLDER, LAST), weights_only=True)
    return saved


def trained(config: DictConfig) -> dict[str, Any]:
    train(config)
    return state(config)


def rates(saved: dict[str, Any]) -> list[float]:
    return [group["lr"] for group in saved["optimizer_states"][0]["param_groups"]]


# The schedules themselves


def test_a_warm_up_rises_in_a_line_and_falls_as_half_a_cosine() -> None:
    made = optimizer(1.0, 2.0)
    schedule = WarmupCosine(made, warmup_epochs=0.5, epochs=3, steps_per_epoch=4, start_factor=0.5, eta_min=0.1)
    seen, other = [], []
    for _ in range(14):
        seen.append(made.param_groups[0]["lr"])
        other.append(made.param_groups[1]["lr"])
        made.step()
        schedule.step()
    assert seen[:3] == [0.5, 0.75, 1.0]
    assert other[:3] == [1.0, 1.5, 2.0], "every group from its own rate"
    assert seen[7] == pytest.approx(0.1 + 0.9 / 2), "halfway down"
    assert seen[12] == seen[13] == pytest.approx(0.1), "and stays"
    assert seen[2:13] == sorted(seen[2:13], reverse=True)


def test_a_warm_up_that_is_none_begins_with_the_rate() -> None:
    made = optimizer(1.0)
    WarmupCosine(made, warmup_epochs=0, epochs=2, steps_per_epoch=4)
    assert made.param_groups[0]["lr"] == 1.0
    with pytest.raises(ValueError, match="warmup_epochs: expected less than epochs, 2, got 2"):
        WarmupCosine(made, warmup_epochs=2, epochs=2, steps_per_epoch=4)


def test_a_plateau_falls_as_that_of_torch_does() -> None:
    ours, torchs = optimizer(1.0, 0.5), optimizer(1.0, 0.5)
    numbers: dict[str, Any] = {"mode": "max", "factor": 0.5, "patience": 1, "cooldown": 1, "min_lr": [0.2, 0.1]}
    mine, other = Plateau(ours, "val/accuracy", **numbers), ReduceLROnPlateau(torchs, **numbers)
    for value in (0.1, 0.2, 0.2, 0.2, 0.1, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3):
        mine.latest = value
        mine.end_epoch()
        mine.end_epoch()  # without a new value it sees nothing
        other.step(value)
        assert [group["lr"] for group in ours.param_groups] == [group["lr"] for group in torchs.param_groups]
    again = optimizer(1.0, 0.5)
    replayed = Plateau(again, "val/accuracy", **numbers)
    replayed.replay(mine.seen, None)
    assert_identical(replayed.state_dict(), mine.state_dict(), "schedule", ())
    assert again.param_groups[1]["lr"] == ours.param_groups[1]["lr"]


# Runs


def test_a_rate_falls_where_validation_no_longer_improves(compose: Compose) -> None:
    saved = trained(compose(*QUICK, *FALLING, f"trainer.max_epochs={EPOCHS}"))
    assert rates(saved) == [pytest.approx(0.05 / 2 ** (EPOCHS - 1))], "the last validation counts, too"
    assert len(saved["lr_schedulers"][0]["seen"]) == EPOCHS


def test_a_rate_may_wait_for_a_metric_of_training(compose: Compose) -> None:
    waits = ("scheduler.monitor=train/loss", "scheduler.mode=min", "datamodule.val_fraction=0")
    saved = trained(compose(*QUICK, *FALLING, *waits, "scheduler.threshold=0.9", "trainer.max_epochs=2"))
    assert rates(saved) == [pytest.approx(0.025)]


def test_only_an_epoch_with_a_validation_counts(compose: Compose) -> None:
    settings = (*QUICK, *FALLING, f"trainer.max_epochs={EPOCHS}", "trainer.check_val_every_n_epoch=2")
    assert rates(trained(compose(*settings))) == [pytest.approx(0.025)]


SCHEDULES = {
    "plateau": FALLING,
    "plateau of training": (*FALLING, "scheduler.monitor=train/loss", "scheduler.mode=min"),
    "warm-up": ("scheduler=warmup_cosine", "scheduler.warmup_epochs=1.5"),
    "one cycle": ("scheduler=one_cycle",),
    "cosine by steps": ("scheduler=cosine", STEP, "scheduler.T_max=null"),
    "steps by steps": ("scheduler=step", STEP, "scheduler.step_size=2"),
    "adam of every block": (
        *FALLING, "model.hparams.f_optim.type=adam", "model.hparams.f_optim.momentum=0",
        "model.hparams.f_optim.lr=[0.1,0.01,0.001]", "+model.hparams.f_optim.amsgrad=true",
        "+model.hparams.f_optim.betas=[0.8,0.9]",
    ),
    "rmsprop": (
        "model.hparams.f_optim.type=rmsprop", "model.hparams.f_optim.lr=0.001",
        "+model.hparams.f_optim.centered=true", "+model.hparams.f_optim.alpha=0.9",
    ),
    "damped": ("+model.hparams.f_optim.dampening=0.5",),
}  # fmt: skip


SHORT = ("plateau of training", "one cycle", "adam of every block")
"""A schedule of each kind: one that waits, one by steps, and one beside an optimiser with a state of its own."""


@pytest.mark.parametrize(
    "name", [pytest.param(each, marks=() if each in SHORT else pytest.mark.slow) for each in SCHEDULES]
)
def test_a_run_goes_on_exactly(compose: Compose, name: str) -> None:
    settings = (*QUICK, *SCHEDULES[name], f"trainer.max_epochs={EPOCHS}")
    steps = "+callbacks.steps={_target_:lightning.pytorch.callbacks.ModelCheckpoint,every_n_train_steps:1,"
    whole = compose(*settings, steps + "save_top_k:-1,filename:'{step}',dirpath:${output_dir}/steps}", output="whole")
    train(whole)
    epochs = whole.output_dir
    for place in (f"{epochs}/{FOLDER}/previous.ckpt", f"{epochs}/steps/step=5.ckpt", f"{epochs}/steps/step=6.ckpt"):
        went_on = trained(compose(*settings, f"ckpt_path='{place}'", output=Path(place).stem.replace("=", "")))
        for part in ("state_dict", "optimizer_states", "lr_schedulers"):
            assert_identical(state(whole)[part], went_on[part], f"{place}: {part}", ())


def test_a_schedule_by_steps_has_the_length_of_the_run(compose: Compose) -> None:
    saved = trained(compose(*QUICK, "scheduler=cosine", STEP, "scheduler.T_max=null", "trainer.max_epochs=2"))
    assert saved["lr_schedulers"][0]["T_max"] == saved["lr_schedulers"][0]["last_epoch"] == 6
    saved = trained(compose(*QUICK, "scheduler=cosine", "scheduler.T_max=null", "trainer.max_epochs=2", output="two"))
    assert saved["lr_schedulers"][0]["T_max"] == saved["lr_schedulers"][0]["last_epoch"] == 2


def test_a_changed_number_of_a_plateau_holds_as_from_the_start(compose: Compose) -> None:
    first = compose(*QUICK, *FALLING, "trainer.max_epochs=2", output="first")
    train(first)
    on = ("trainer.max_epochs=3", f"ckpt_path='{first.output_dir}'")
    for numbers, rate in (("scheduler.factor=0.1", 0.05 * 0.01), ("model.hparams.f_optim.lr=0.2", 0.2 * 0.25)):
        saved = trained(compose(*QUICK, *FALLING, *on, numbers, output=numbers.partition("=")[0]))
        assert rates(saved) == [pytest.approx(rate)]


def test_a_plateau_goes_on_only_with_the_metric_that_it_has_seen(compose: Compose) -> None:
    first = compose(*QUICK, *FALLING, "trainer.max_epochs=2", output="first")
    train(first)
    on = ("trainer.max_epochs=3", f"ckpt_path='{first.output_dir}'")
    with pytest.raises(UserError, match=r"scheduler\.monitor: the run so far has not been waiting for this metric"):
        train(compose(*QUICK, *FALLING, *on, "scheduler.monitor=val/loss", "scheduler.mode=min", output="other"))
    train(compose(*QUICK, *on, "scheduler=step", output="step"))
    plain = compose(*QUICK, "trainer.max_epochs=2", output="plain")
    train(plain)
    with pytest.raises(UserError, match=r"scheduler\.monitor: the run so far"):
        train(compose(*QUICK, *FALLING, "trainer.max_epochs=3", f"ckpt_path='{plain.output_dir}'", output="late"))


def test_a_schedule_by_steps_goes_on_with_batches_of_another_size(compose: Compose) -> None:
    """It is where it would be had all epochs had so many steps."""
    first = compose(*QUICK, "scheduler=warmup_cosine", "trainer.max_epochs=2", output="first")
    train(first)
    longer = ("trainer.max_epochs=4", "trainer.limit_train_batches=5")
    saved = trained(compose(*QUICK, "scheduler=warmup_cosine", *longer, f"ckpt_path='{first.output_dir}'"))
    assert saved["lr_schedulers"][0]["last_epoch"] == saved["lr_schedulers"][0]["total"] == 20
    assert rates(saved) == [pytest.approx(0.0, abs=1e-12)]


@pytest.mark.parametrize(
    ("kind", "option", "then", "now"),
    [
        ("adam", "amsgrad=true", "false", "true"),
        ("rmsprop", "centered=true", "false", "true"),
        ("rmsprop", "momentum=0.5", "0", "0.5"),
    ],
)
def test_what_needs_another_state_is_refused(compose: Compose, kind: str, option: str, then: str, now: str) -> None:
    plain = ("model.hparams.f_optim.momentum=0", "model.hparams.f_optim.lr=1e-3")
    settings = (*QUICK, f"model.hparams.f_optim.type={kind}", *plain)
    first = compose(*settings, output="first")
    train(first)
    key = f"model.hparams.f_optim.{option}"
    with pytest.raises(UserError, match=rf"^{key.partition('=')[0]}: the run was made with {then}, now it is {now}"):
        train(compose(*settings, f"++{key}", "trainer.max_epochs=2", f"ckpt_path='{first.output_dir}'", output="next"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ([STEP], r"^scheduler\.T_max: expected a number of steps, or null .*scheduler\.interval=step, got epochs"),
        (["scheduler=one_cycle", "+scheduler.interval=epoch"], r"^scheduler\.interval: expected step, since OneCycle"),
        (["scheduler=plateau", STEP], r"^scheduler\.interval: expected epoch, since it looks at validations"),
        (["+scheduler.interval=batch"], r"^scheduler\.interval: unknown value 'batch'"),
        (["scheduler=plateau", "scheduler.monitor=val/acc"], r"^scheduler\.monitor: unknown value.*'val/accuracy'"),
        (["scheduler=plateau", "datamodule.val_fraction=0"], r"^scheduler\.monitor: there is no valid.*train/loss"),
        (["scheduler=plateau", "scheduler.factor=1.5"], r"^scheduler\.factor: expected a number in \(0, 1\)"),
        (["scheduler=warmup_cosine", "scheduler.warmup_epochs=9"], "^scheduler: .*expected less than epochs"),
        (["~scheduler.T_max", "~scheduler.eta_min", "scheduler._target_=torch.optim.lr_scheduler.ReduceLROnPlateau"],
         r"^scheduler\._target_: .*scheduler=plateau"),
    ],
)  # fmt: skip
def test_what_a_schedule_cannot_do_is_refused_before_the_run(
    compose: Compose, settings: list[str], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        check_configuration(compose(*QUICK, *settings))
