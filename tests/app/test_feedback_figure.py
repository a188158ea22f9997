"""The picture of feedback learning shows what the step does, and changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from omegaconf import DictConfig
from torch import nn

from targetprop import DTP, Learner, OptimizerSpec, UserError
from targetprop.app.callbacks.feedback_figure import feedback_courses
from targetprop.app.run import train
from targetprop.measure.alignment import feedback_distances

Compose = Callable[..., DictConfig]


def learner() -> Learner:
    torch.manual_seed(0)
    hidden = nn.Sequential(nn.Linear(8, 7), nn.BatchNorm1d(7), nn.Dropout(0.5), nn.ELU())
    net = nn.Sequential(nn.Sequential(nn.Linear(6, 8), nn.ELU()), hidden, nn.Linear(7, 5)).double()
    b_optim = OptimizerSpec(lr=[0.01, 0.02], momentum=0.9)
    return Learner(net, DTP.with_numbers(feedback_training_iterations=[4, 3], b_optim=b_optim), seed=3)


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(9, 6, dtype=torch.float64, generator=generator), torch.arange(9) % 5


def test_courses_are_those_of_the_step_that_follows() -> None:
    mine, (x, y) = learner(), batch()
    for _ in range(2):  # the second step has momentum from the first
        courses = feedback_courses(mine, x)
        step = mine.backward(F.cross_entropy(mine(x), y))
        assert [len(course.losses) for course in courses.values()] == [4, 3]
        for number, loss in zip(courses, step.feedback_losses, strict=True):
            course = courses[number]
            assert len(course.angles) == len(course.distances) == len(course.losses) + 1
            assert sum(course.losses) / len(course.losses) == pytest.approx(float(loss), rel=1e-12)
            after = float(feedback_distances(mine.network.pairs[number - 1])[0])
            assert course.distances[-1] == pytest.approx(after, rel=1e-12)


def test_measuring_leaves_weights_buffers_optimisers_and_random_state_as_they_are() -> None:
    mine, (x, y) = learner(), batch()
    mine.backward(F.cross_entropy(mine(x), y))
    before, state = {name: each.clone() for name, each in mine.named_parameters()}, torch.get_rng_state()
    buffers = {name: each.clone() for name, each in mine.named_buffers()}
    momenta = [torch.clone(each) for each in _momenta(mine)]
    feedback_courses(mine, x)
    assert all(torch.equal(each, before[name]) for name, each in mine.named_parameters())
    assert all(torch.equal(each, buffers[name]) for name, each in mine.named_buffers())
    assert all(torch.equal(a, b) for a, b in zip(momenta, _momenta(mine), strict=True))
    assert torch.equal(state, torch.get_rng_state())
    assert mine.steps == 1


def _momenta(mine: Learner) -> list[torch.Tensor]:
    states = mine.learning.states(mine.network.fed).values()
    return [each["momentum_buffer"] for state in states for each in state["state"].values()]


@pytest.mark.pictures
def test_a_run_with_pictures_equals_one_without(compose: Compose, tmp_path: Path) -> None:
    train(compose("callbacks=feedback_figure", "callbacks.feedback_figure.plot_every=2", output="watched"))
    train(compose(output="alone"))
    watched, alone = (
        torch.load(tmp_path / run / "checkpoints" / "last.ckpt", weights_only=False)["state_dict"]
        for run in ("watched", "alone")
    )
    tensors = [name for name, value in watched.items() if isinstance(value, torch.Tensor)]
    assert all(torch.equal(watched[name], alone[name]) for name in tensors)
    pictures = sorted(path.name for path in (tmp_path / "watched" / "feedback").iterdir())
    assert pictures == ["step-000000.png", "step-000002.png"]


@pytest.mark.parametrize("model", ["model=backprop", "model=delta_mirror"])
def test_a_run_without_feedback_iterations_is_refused(compose: Compose, model: str) -> None:
    with pytest.raises(UserError, match=r"callbacks\.feedback_figure"):
        train(compose(model, "callbacks=feedback_figure"))


def test_early_stopping_ends_a_run_that_no_longer_improves(compose: Compose, tmp_path: Path) -> None:
    patience = "callbacks.early_stopping.patience=2"
    train(compose("callbacks=early_stopping", patience, "trainer.max_epochs=9", "model.hparams.f_optim.lr=0"))
    kept = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=False)
    assert kept["epoch"] == 2


def test_early_stopping_needs_validation(compose: Compose) -> None:
    with pytest.raises(UserError, match=r"datamodule\.val_fraction"):
        train(compose("callbacks=early_stopping", "datamodule.val_fraction=0"))
