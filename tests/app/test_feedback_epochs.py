"""Epochs of the feedback alone: how many there are, what they leave alone, and that a run goes on through them."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from identical import assert_identical
from omegaconf import DictConfig
from torch import Tensor

from targetprop import Learner, UserError
from targetprop.app.callbacks.feedback_epochs import FeedbackEpochs
from targetprop.app.run import train

Compose = Callable[..., DictConfig]

STEPS, EPOCHS = 3, 2
QUICK = (
    "model=ddtp_linear", "network.hparams.channels=[4,4]", f"trainer.max_epochs={EPOCHS}", "trainer.threads=1",
    f"trainer.limit_train_batches={STEPS}", "trainer.limit_val_batches=1", "trainer.limit_test_batches=1",
)  # fmt: skip
BEFORE, AFTER = "model.feedback_epochs.before=2", "model.feedback_epochs.after_each=1"
ONE = "+model.feedback_epochs={before:1}"
EVERY_STEP = (
    "+callbacks.steps={_target_:lightning.pytorch.callbacks.ModelCheckpoint,every_n_train_steps:1,save_top_k:-1,"
    "filename:'{step}',auto_insert_metric_name:false,dirpath:%s}"
)


@pytest.fixture
def course(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[Tensor], list[Tensor]]]:
    """What is called, with forward and feedback weights as they then are."""
    seen: list[tuple[str, list[Tensor], list[Tensor]]] = []

    def noting(name: str) -> Callable[..., Any]:
        method = getattr(Learner, name)

        def call(learner: Learner, *args: Any, **kwargs: Any) -> Any:
            sides = (learner.network.forward_parameters(), learner.network.feedback_parameters())
            forward, feedback = ([p.detach().clone() for p in side] for side in sides)
            seen.append((name, forward, feedback))
            return method(learner, *args, **kwargs)

        return call

    for name in ("learn_feedback", "backward"):
        monkeypatch.setattr(Learner, name, noting(name))
    return seen


def same(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_so_many_before_training_and_so_many_after_each_epoch(
    compose: Compose, course: list[tuple[str, list[Tensor], list[Tensor]]]
) -> None:
    train(compose(*QUICK, BEFORE, AFTER))
    names = [name for name, *_ in course]
    epoch, alone = ["backward"] * STEPS, ["learn_feedback"] * STEPS
    assert names == [*alone, *alone, *epoch, *alone, *epoch, *alone]
    for (name, forward, feedback), (_, later_forward, later_feedback) in itertools.pairwise(course):
        assert same(forward, later_forward) is (name == "learn_feedback")
        assert not same(feedback, later_feedback)


def test_feedback_that_learns_in_these_epochs_only_stays_in_a_step(
    compose: Compose, course: list[tuple[str, list[Tensor], list[Tensor]]]
) -> None:
    train(compose(*QUICK, BEFORE, AFTER, "model.feedback_epochs.alone=true"))
    for (name, _, feedback), (_, _, later) in itertools.pairwise(course):
        assert same(feedback, later) is (name == "backward")


@pytest.mark.parametrize(
    "more", [[], ["model.feedback_epochs.alone=true"], ["model=drl"]], ids=["both", "alone", "drl"]
)
def test_a_run_goes_on_through_them_from_any_step(compose: Compose, tmp_path: Path, more: list[str]) -> None:
    settings = (*QUICK, BEFORE, AFTER, *more)
    train(compose(*settings, EVERY_STEP % (tmp_path / "steps"), output="whole"))
    whole = torch.load(tmp_path / "whole/checkpoints/last.ckpt", weights_only=True)
    starts = [f"{tmp_path}/steps/{step}.ckpt" for step in (1, STEPS, STEPS + 1)]
    for number, start in enumerate([*starts, f"{tmp_path}/whole/checkpoints/previous.ckpt"]):
        train(compose(*settings, f"ckpt_path='{start}'", output=f"from_{number}"))
        resumed = torch.load(tmp_path / f"from_{number}/checkpoints/last.ckpt", weights_only=True)
        for part in ("state_dict", "optimizer_states"):
            assert_identical(whole[part], resumed[part], part, ())
        assert_identical(made(whole), made(resumed), "epochs made", ())
    assert made(whole) == {"made": 2 + EPOCHS}


def made(checkpoint: dict[str, Any]) -> Any:
    return next(state for name, state in checkpoint["callbacks"].items() if name.startswith(FeedbackEpochs.__name__))


def test_another_number_of_them_is_another_run(compose: Compose, tmp_path: Path) -> None:
    train(compose(*QUICK, AFTER, output="whole"))
    with pytest.raises(UserError, match=r"^model\.feedback_epochs\.after_each: .* it would be another run"):
        train(compose(*QUICK, f"ckpt_path={tmp_path}/whole", "trainer.max_epochs=3", output="more"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["model.feedback_epochs.before=-1"], r"model\.feedback_epochs\.before: expected a whole number, 0 or more"),
        (["model.feedback_epochs.after_each=0.5"], r"model\.feedback_epochs\.after_each: expected a whole number"),
        (["model.feedback_epochs.alone=1"], r"model\.feedback_epochs\.alone: expected true or false, got 1"),
        (["model.feedback_epochs.alone=true"], r"model\.feedback_epochs\.alone: the feedback would never learn"),
        (["+model.feedback_epochs.befor=1"], r"model\.feedback_epochs\.befor: there is no such setting.*'before'"),
        (["model=backprop", ONE], r"model\.feedback_epochs: the model has no feedback"),
        (["model=fixed_dtp", ONE], r"model\.feedback_epochs: the model has no feedback"),
        (["model=dtp", ONE, "trainer=layer_parallel"], r"model\.feedback_epochs: they run in one process"),
        (["model=dtp", ONE, "trainer.cuda_graph=true"], r"model\.feedback_epochs: they run in one process"),
    ],
)
def test_what_does_not_fit_is_refused_by_its_key(compose: Compose, settings: list[str], message: str) -> None:
    with pytest.raises(UserError, match=rf"^{message}"):
        train(compose(*QUICK, *settings))


def test_rates_of_another_number_of_blocks_are_refused(compose: Compose) -> None:
    with pytest.raises(UserError, match=r"^model\.hparams\.f_optim\.lr: expected 3 values, one for each block \(1 "):
        train(compose(*QUICK, "model.hparams.f_optim.lr=[0.1,0.2]"))


def test_a_rate_of_zero_for_one_block_leaves_it_as_it_is(
    compose: Compose, course: list[tuple[str, list[Tensor], list[Tensor]]]
) -> None:
    train(compose(*QUICK, "model.hparams.f_optim.lr=[0.1,0,0.2]", "scheduler=none"))
    (_, first, _), *_, (_, last, _) = course
    assert [torch.equal(a, b) for a, b in zip(first, last, strict=True) if a.dim() > 1] == [False, True, False]
