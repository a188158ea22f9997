"""Feedback by a loss: the mean over noise samples, one update after the other, and weights that start symmetric."""

from __future__ import annotations

import zlib
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from targetprop import (
    DTP,
    FIXED_DTP,
    KOLEN_POLLACK,
    TP,
    VANILLA_DTP,
    Algorithm,
    ByLoss,
    Learner,
    OptimizerSpec,
    PairedNetwork,
    UserError,
)
from targetprop.feedback.by_loss import ByLossLearning
from targetprop.measure.alignment import feedback_angles
from targetprop.network.passes import StoredPass
from targetprop.noise import NoiseKey


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.ELU(), nn.MaxPool2d(2)),
        nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ELU(), nn.MaxPool2d(2)),
        nn.Sequential(nn.Flatten(), nn.Linear(16, 5)),
    ).double()


def noise(key: NoiseKey, like: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(zlib.crc32(repr(tuple(key)).encode()))
    return torch.randn(like.shape, dtype=like.dtype, generator=generator)


ALGORITHMS: dict[str, Algorithm] = {
    "closed form": DTP,
    "autograd": DTP.with_numbers(gradient="autograd"),
    "reconstruction": VANILLA_DTP,
}


def updates(algorithm: Algorithm, net: PairedNetwork, x: Tensor, step: int = 0, **numbers: int) -> list[list[Tensor]]:
    """The loss and the gradients of all updates of block 1 on a batch, at weights that stay as they are."""
    feedback = algorithm.with_numbers(noise=0.1, b_optim=OptimizerSpec(lr=0.0), **numbers).feedback
    learning = feedback.start(net)
    assert isinstance(learning, ByLossLearning)
    parameters = net.pairs[1].feedback_parameters()
    found = []
    for loss in learning.updates(StoredPass(net, x, noise, step), 1):
        gradients = [p.grad for p in parameters if p.grad is not None]
        assert len(gradients) == len(parameters)
        found.append([loss, *(gradient.clone() for gradient in gradients)])
    return found


@pytest.mark.parametrize("name", ALGORITHMS)
@settings(deadline=None, max_examples=5)
@given(count=st.integers(1, 4))
def test_several_noise_samples_give_the_mean_of_their_gradients(name: str, count: int) -> None:
    net = PairedNetwork.of(network())
    x = torch.randn(6, 2, 8, 8, dtype=torch.float64)
    singles = updates(ALGORITHMS[name], net, x, feedback_training_iterations=count, noise_samples=1)
    (together,) = updates(ALGORITHMS[name], net, x, feedback_training_iterations=1, noise_samples=count)
    assert len(singles) == count
    for mine, *each in zip(together, *singles, strict=True):
        torch.testing.assert_close(mine, torch.stack(each).mean(0), rtol=1e-12, atol=1e-14)


def test_a_learner_draws_every_sample_anew_and_steps_once_for_all_of_them() -> None:
    keys: list[NoiseKey] = []

    def noise(key: NoiseKey, like: Tensor) -> Tensor:
        keys.append(key)
        return torch.randn(like.shape, dtype=like.dtype)

    adam = OptimizerSpec("adam", lr=1e-3)
    algorithm = DTP.with_numbers(feedback_training_iterations=2, noise_samples=3, b_optim=adam)
    learner = Learner(network(), algorithm, noise=noise)
    learner.backward(F.cross_entropy(learner(torch.randn(6, 2, 8, 8).double()), torch.arange(6) % 5))
    of_block = [key.iteration for key in keys if key.block == 1 and key.kind == "input"]
    assert of_block == list(range(6))
    state = learner.state_dict()["_extra_state"]["feedback"]["blocks"][1]["state"]
    assert {float(each["step"]) for each in state.values()} == {2.0}


def test_more_samples_are_nearer_to_the_expected_gradient() -> None:
    net = PairedNetwork.of(network())
    x = torch.randn(6, 2, 8, 8, dtype=torch.float64)

    def spread(count: int) -> float:
        trials = [
            updates(DTP, net, x, trial, feedback_training_iterations=1, noise_samples=count) for trial in range(30)
        ]
        return float(torch.stack([of_weight for ((_, of_weight, _),) in trials]).var(0).sum())

    assert spread(10) < spread(1) / 5  # a tenth, were 30 trials enough to know


@pytest.mark.parametrize("algorithm", [DTP, TP, FIXED_DTP, KOLEN_POLLACK])
def test_symmetric_weights_are_the_transposed_forward_ones(algorithm: Algorithm) -> None:
    learner = Learner(network(), algorithm.with_numbers(init_symmetric_weights=True))
    for pair in learner.network.trained:
        ((forward, feedback),) = pair.weights()
        assert torch.equal(forward, feedback)
        assert float(feedback_angles(pair)[0]) == pytest.approx(0, abs=1e-3)
        feedback += 1  # a view of the feedback's own weight, not the block's
        assert not torch.equal(*pair.weights()[0])
    linear = learner.network.pairs[2]
    assert linear.linear is not None
    assert torch.equal(linear.linear.map.weight.t() - 1, linear.block.get_parameter("1.weight"))


def test_feedback_starts_random_unless_it_is_asked_to_be_symmetric() -> None:
    for pair in Learner(network()).network.trained:
        assert float(feedback_angles(pair)[0]) > 30


@pytest.mark.parametrize(
    "wrong", [{"noise_samples": 0}, {"noise_samples": 1.5}, {"noise_samples": True}, {"init_symmetric_weights": 1}]
)
def test_values_that_do_not_fit_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=f"^{next(iter(wrong))}: expected"):
        DTP.with_numbers(**wrong)


def test_other_ways_to_a_gradient_and_other_styles_are_answered_with_the_nearest() -> None:
    with pytest.raises(UserError, match=r"^gradient: unknown value 'close_form'\. Did you mean 'closed_form'"):
        DTP.with_numbers(gradient="close_form")
    with pytest.raises(UserError, match=r"^style: unknown value 'matchd'\. Did you mean 'matched'"):
        ByLoss(style="matchd")  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"^loss: expected a function"):
        ByLoss("l_drl")  # type: ignore[arg-type]


def momentum(learner: Learner, block: int) -> list[Tensor]:
    """Of the optimiser of a block's feedback, which is in the learner's state."""
    state = learner.state_dict()["_extra_state"]["feedback"]["blocks"][block]["state"]
    return [each["momentum_buffer"].clone() for each in state.values()]


def test_feedback_optimisers_follow_weights_assigned_anew_with_all_of_their_momentum() -> None:
    x, y = torch.randn(6, 2, 8, 8).double(), torch.arange(6) % 5
    through, assigned = (Learner(network(), "dtp", seed=3) for _ in range(2))
    assigned.load_state_dict(through.state_dict())
    for learner in (through, assigned):
        learner.backward(F.cross_entropy(learner(x), y))
    before = momentum(assigned, 1)
    assigned.network.load_state_dict({k: v.clone() for k, v in assigned.network.state_dict().items()}, assign=True)
    torch.testing.assert_close(momentum(assigned, 1), before, rtol=0, atol=0)
    for learner in (through, assigned):
        learner.backward(F.cross_entropy(learner(x), y))
    for mine, theirs in zip(assigned.network.parameters(), through.network.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    assert not torch.equal(momentum(assigned, 1)[0], before[0])


def test_feedback_optimisers_follow_their_weights_to_another_type() -> None:
    x, y = torch.randn(6, 2, 8, 8), torch.arange(6) % 5
    learner = Learner(network().float())
    learner.backward(F.cross_entropy(learner(x), y))
    learner.double()
    step = learner.backward(F.cross_entropy(learner(x.double()), y))
    assert step.feedback_losses.dtype == torch.float64
    assert {each.dtype for each in momentum(learner, 1)} == {torch.float64}


def test_weights_of_the_feedback_that_are_frozen_stay_beside_others_that_learn() -> None:
    learner = Learner(network(), DTP.with_numbers(gradient="autograd", feedback_training_iterations=2))
    weight, bias = learner.network.pairs[1].feedback_parameters()
    weight.requires_grad_(False)
    before = weight.clone(), [p.clone() for p in learner.network.pairs[2].feedback_parameters()]
    x, y = torch.randn(6, 2, 8, 8).double(), torch.arange(6) % 5
    learner.backward(F.cross_entropy(learner(x), y))
    assert torch.equal(before[0], weight)
    assert not torch.equal(before[1][0], learner.network.pairs[2].feedback_parameters()[0])
    assert bias.grad is None


def test_a_loss_that_is_no_scalar_of_the_feedback_is_refused() -> None:
    x, net = torch.randn(4, 2, 8, 8).double(), network()
    for loss, words in (
        (lambda pair, trace, draw: trace.y, r"shape \(4, .* does not depend"),
        (lambda pair, trace, draw: pair.decode(trace.y, trace.context), r"shape \(4, .*\)\.$"),
        (lambda pair, trace, draw: trace.y.mean(), r"shape \(\) that does not depend"),
    ):
        learner = Learner(net, Algorithm(DTP.targets, ByLoss(loss)))
        with pytest.raises(UserError, match=rf"^loss: expected a scalar of the feedback's weights, .*{words}"):
            learner.backward(learner(x).pow(2).mean())
