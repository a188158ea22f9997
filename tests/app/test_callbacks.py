"""Observers see what they should, and change nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from omegaconf import DictConfig
from torch import nn

from targetprop import DTP, Learner, PairedNetwork, UserError
from targetprop.app.callbacks import history
from targetprop.app.errors import DivergenceError
from targetprop.app.report.curves import draw_curves
from targetprop.app.run import train
from targetprop.app.task import Classification
from targetprop.measure.alignment import angle, backprop_gradients, block_gradients, feedback_angles

Compose = Callable[..., DictConfig]


def weights(run: Path) -> dict[str, torch.Tensor]:
    state = torch.load(run / "checkpoints" / "last.ckpt", weights_only=False)["state_dict"]
    return {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}


def test_observers_do_not_change_the_run(compose: Compose, tmp_path: Path) -> None:
    train(compose("callbacks.alignment.every_n_steps=1", output="watched"))
    train(
        compose("callbacks.alignment=null", "callbacks.step_losses=null", "callbacks.divergence=null", output="alone")
    )
    watched, alone = weights(tmp_path / "watched"), weights(tmp_path / "alone")
    for name, value in watched.items():
        assert torch.equal(value, alone[name]), name


def network() -> PairedNetwork:
    hidden = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Tanh())
    return PairedNetwork.of(nn.Sequential(hidden, nn.Sequential(nn.Linear(8, 5), nn.ELU()), nn.Linear(5, 3)))


def test_backprop_gradients_are_those_of_backward_and_leave_no_trace() -> None:
    net, x, y = network(), torch.randn(7, 6), torch.randint(3, (7,))
    before = {name: buffer.clone() for name, buffer in net.named_buffers()}
    state = torch.get_rng_state()
    measured = backprop_gradients(net, x, y, F.cross_entropy)
    assert all(p.grad is None for p in net.parameters())
    assert all(torch.equal(before[name], buffer) for name, buffer in net.named_buffers())
    torch.set_rng_state(state)
    F.cross_entropy(net(x), y).backward()
    for mine, true in zip(measured, block_gradients(net), strict=True):
        assert torch.equal(mine, true)


def test_angles_are_in_degrees() -> None:
    assert angle(torch.tensor([1.0, 0.0]), torch.tensor([[0.0], [3.0]])) == pytest.approx(90)
    assert angle(torch.tensor([1.0, 1.0]), torch.tensor([2.0, 2.0])) == pytest.approx(0, abs=0.05)
    assert angle(torch.tensor([1.0, 1.0]), torch.tensor([-2.0, -2.0])) == pytest.approx(180, abs=0.05)


def test_feedback_angle_compares_weights_in_the_forward_layout() -> None:
    net = PairedNetwork.of(nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)))
    ((forward, feedback),) = net.pairs[1].weights()
    with torch.no_grad():
        feedback.copy_(2 * forward)
    assert feedback_angles(net.pairs[0]) == []
    assert float(feedback_angles(net.pairs[1])[0]) == pytest.approx(0, abs=0.05)


@pytest.mark.parametrize("loss", [[], ["+model.label_smoothing=0.3"]])
def test_the_logged_angle_is_that_of_update_and_gradient(compose: Compose, tmp_path: Path, loss: list[str]) -> None:
    train(compose("callbacks.alignment.every_n_steps=2", *loss))
    rows = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=False)["callbacks"]["Alignment"][
        "rows"
    ]
    assert [row["step"] for row in rows] == [0, 2]
    assert rows[0]["angle/block3"] < 0.1  # the output block's update is beta times backprop's
    assert rows[0]["norm_ratio/block3"] == pytest.approx(1, abs=1e-4)
    assert rows[0]["angle/block1"] > 20  # two feedback iterations from random feedback


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("model.hparams.f_optim.lr=1e38", ["output of block 1 (Conv2d, ELU, MaxPool2d)", "step 2", "epoch 1"]),
        (
            "model.hparams.b_optim.lr=[1e30,0.1]",
            ["feedback loss of block 2 (Conv2d, ELU, MaxPool2d)", "step 1", "epoch 1"],
        ),
    ],
)
def test_a_diverging_run_stops_with_block_and_step_named(
    compose: Compose, tmp_path: Path, override: str, words: list[str]
) -> None:
    with pytest.raises(DivergenceError) as caught:
        train(compose(override, "trainer.max_epochs=3", "model.hparams.feedback_training_iterations=5"))
    for word in words:
        assert word in str(caught.value)


@pytest.mark.pictures
def test_a_diverging_run_keeps_its_last_good_checkpoint(compose: Compose, tmp_path: Path) -> None:
    settings = compose(
        "trainer.max_epochs=4",
    )
    settings.scheduler = {"_target_": "torch.optim.lr_scheduler.ExponentialLR", "_partial_": True, "gamma": 1e20}
    with pytest.raises(DivergenceError, match=r"last good checkpoint is .*last.ckpt"):
        train(settings)
    kept = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=False)
    assert kept["epoch"] == 0
    assert all(v.isfinite().all() for v in kept["state_dict"].values() if isinstance(v, torch.Tensor))
    assert (tmp_path / "run" / "curves.png").is_file()


def test_a_run_draws_its_curves_once_also_where_nothing_was_left_to_train(
    compose: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[object] = []
    monkeypatch.setattr(history, "draw_curves", lambda *given: drawn.append(given))
    train(compose())
    assert len(drawn) == 1
    train(compose("ckpt_path=last"))
    assert len(drawn) == 2


def test_curves_are_drawn_without_feedback_validation_or_alignment(tmp_path: Path) -> None:
    row = {"epoch": 1.0, "train/loss": 1.0, "train/accuracy": 0.5}
    draw_curves(tmp_path / "curves.png", [row], [], Classification.curves)
    assert (tmp_path / "curves.png").stat().st_size > 1000
    assert [path.name for path in tmp_path.iterdir()] == ["curves.png"]


def test_learner_without_feedback_iterations_still_reports_losses() -> None:
    learner = Learner(network(), DTP.with_numbers(feedback_training_iterations=0))
    step = learner.backward(F.cross_entropy(learner(torch.randn(7, 6)), torch.randint(3, (7,))))
    assert step.feedback_losses.tolist() == [0, 0]
    assert step.local_losses.shape == (3,)


def test_alignment_refuses_accumulated_gradients(compose: Compose) -> None:
    with pytest.raises(UserError, match="accumulate_grad_batches=2"):
        train(compose("+trainer.accumulate_grad_batches=2"))


def test_history_takes_validation_only_from_epochs_that_validated(compose: Compose, tmp_path: Path) -> None:
    train(compose("trainer.max_epochs=3", "trainer.check_val_every_n_epoch=2"))
    checkpoint = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=False)
    rows = checkpoint["callbacks"]["History"]["epochs"]
    assert ["val/accuracy" in row for row in rows] == [False, True, False]
