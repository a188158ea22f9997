"""Feedback updates: the mean over noise samples, one after the other, and weights that start symmetric."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from targetprop import DTP, TP, VANILLA_DTP, Learner, OptimizerSpec, PairedNetwork, Recipe, UserError
from targetprop.feedback.rules import Draw
from targetprop.feedback.updates import feedback_update, mean_update
from targetprop.measure import feedback_angles
from targetprop.noise import NoiseKey


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.ELU(), nn.MaxPool2d(2)),
        nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ELU(), nn.MaxPool2d(2)),
        nn.Sequential(nn.Flatten(), nn.Linear(16, 5)),
    ).double()


def draws(count: int) -> list[Draw]:
    def draw_of(number: int) -> Draw:
        def draw(kind: str, like: Tensor) -> Tensor:
            generator = torch.Generator().manual_seed(2 * number + (kind == "input"))
            return 0.1 * torch.randn(like.shape, dtype=like.dtype, generator=generator)

        return draw

    return [draw_of(number) for number in range(count)]


RECIPES = {
    "closed form": DTP,
    "textbook": replace(DTP, feedback="textbook"),
    "expected": replace(DTP, feedback="expected"),
    "reconstruction": VANILLA_DTP,
}


@pytest.mark.parametrize("name", RECIPES)
@settings(deadline=None, max_examples=5)
@given(count=st.integers(1, 4))
def test_several_noise_samples_give_the_mean_of_their_gradients(name: str, count: int) -> None:
    net = PairedNetwork.of(network())
    trace = net.trace(torch.randn(6, 2, 8, 8, dtype=torch.float64))[1].detach()
    pair = net.pairs[1]
    update = feedback_update(RECIPES[name], pair, trace, sigma=0.1)
    assert update is not None
    parameters = pair.feedback_parameters()
    singles = []
    for draw in draws(count):
        loss = update(draw)
        singles.append([loss, *(p.grad.clone() for p in parameters)])
    loss = mean_update(update, parameters, draws(count))
    for mine, *each in zip([loss, *(p.grad for p in parameters)], *singles, strict=True):
        torch.testing.assert_close(mine, torch.stack(each).mean(0), rtol=1e-12, atol=1e-14)


def test_a_learner_draws_every_sample_anew_and_steps_once_for_all_of_them() -> None:
    keys: list[NoiseKey] = []

    def noise(key: NoiseKey, like: Tensor) -> Tensor:
        keys.append(key)
        return torch.randn(like.shape, dtype=like.dtype)

    recipe = Recipe(feedback_training_iterations=2, noise_samples=3, b_optim=OptimizerSpec("adam", lr=1e-3))
    learner = Learner(network(), recipe, noise=noise)
    learner.backward(F.cross_entropy(learner(torch.randn(6, 2, 8, 8).double()), torch.arange(6) % 5))
    of_block = [key.iteration for key in keys if key.block == 1 and key.kind == "input"]
    assert of_block == list(range(6))
    state = learner.state_dict()["_extra_state"]["feedback_optimizers"][0]["state"]
    assert {float(each["step"]) for each in state.values()} == {2.0}


def test_more_samples_are_nearer_to_the_expected_gradient() -> None:
    net = PairedNetwork.of(network())
    trace = net.trace(torch.randn(6, 2, 8, 8, dtype=torch.float64))[1].detach()
    pair = net.pairs[1]
    update = feedback_update(DTP, pair, trace, sigma=0.1)
    weight = pair.linear.map.map.weight

    def spread(count: int) -> float:
        gradients = []
        for trial in range(30):
            mean_update(update, pair.feedback_parameters(), draws(count * (trial + 1))[-count:])
            gradients.append(weight.grad.clone())
        return float(torch.stack(gradients).var(0).sum())

    assert spread(10) < spread(1) / 5  # a tenth, were 30 trials enough to know


@pytest.mark.parametrize("recipe", [DTP, TP, replace(DTP, feedback="amortised", twin="linear")])
def test_symmetric_weights_are_the_transposed_forward_ones(recipe: Recipe) -> None:
    learner = Learner(network(), replace(recipe, init_symmetric_weights=True))
    for pair in learner.network.trained:
        ((forward, feedback),) = pair.weights()
        assert torch.equal(forward, feedback)
        assert float(feedback_angles(pair)[0]) == pytest.approx(0, abs=1e-3)
        feedback += 1  # a view of the twin's own weight, not the block's
        assert not torch.equal(*pair.weights()[0])
    linear = learner.network.pairs[2]
    assert torch.equal(linear.linear.map.map.weight.t() - 1, linear.block[1].weight)


def test_feedback_starts_random_unless_it_is_asked_to_be_symmetric() -> None:
    for pair in Learner(network()).network.trained:
        assert float(feedback_angles(pair)[0]) > 30


@pytest.mark.parametrize(
    "wrong", [{"noise_samples": 0}, {"noise_samples": 1.5}, {"noise_samples": True}, {"init_symmetric_weights": 1}]
)
def test_values_that_do_not_fit_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UserError, match=next(iter(wrong))):
        replace(DTP, **wrong)
