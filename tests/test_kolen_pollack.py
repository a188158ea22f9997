"""Kolen-Pollack: feedback weights that take the forward weights' updates come to equal them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from targetprop import Learner, Recipe, UserError
from targetprop.feedback.updates import explain
from targetprop.measure import feedback_angles
from targetprop.network.linear_feedback import LinearPart

RECIPE = Recipe(feedback="kolen_pollack", twin="linear")


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(1, 4, 3), nn.ELU()),
        nn.Sequential(nn.Conv2d(4, 6, 3, stride=2), nn.Tanh()),
        nn.Sequential(nn.Flatten(), nn.Linear(24, 5)),
    )


def test_the_difference_of_the_weights_decays_as_predicted_and_updates_align() -> None:
    learner = Learner(network(), RECIPE).double()
    rate, decay, steps = 0.1, 0.2, 60
    optimizer = torch.optim.SGD(learner.optimizer_parameters(), lr=rate, weight_decay=decay)

    def differences() -> list[float]:
        found = []
        for pair in learner.network.trained:
            assert isinstance(pair.linear, LinearPart)
            weight = pair.block[pair.linear.position].weight  # type: ignore[index]
            found.append(float((weight - pair.linear.map.transposed).detach().norm()))
        return found

    start = differences()
    x, y = torch.randn(16, 1, 8, 8).double(), torch.randint(5, (16,))
    for _ in range(steps):
        learner.backward(F.cross_entropy(learner(x), y))
        optimizer.step()
        optimizer.zero_grad()
    for now, before in zip(differences(), start, strict=True):
        assert abs(now / before - (1 - rate * decay) ** steps) < 1e-6
    assert float(feedback_angles(learner.network.trained[-1])[0]) < 45


def test_weights_that_blocks_share_give_all_their_gradient() -> None:
    shared = nn.Linear(5, 5)
    learner = Learner(nn.Sequential(nn.Linear(4, 5), nn.Tanh(), shared, nn.Tanh(), shared, nn.Linear(5, 3)), RECIPE)
    learner.backward(F.cross_entropy(learner(torch.randn(6, 4)), torch.randint(3, (6,))))
    assert shared.weight.grad is not None
    for pair in learner.network.pairs[1:3]:
        assert isinstance(pair.linear, LinearPart)
        gradient = pair.linear.map.map.weight.grad
        assert gradient is not None
        assert torch.equal(gradient, shared.weight.grad.t())


def test_layers_of_the_users_own_learn_by_the_loss() -> None:
    class Odd(nn.Linear):
        pass

    learner = Learner(nn.Sequential(nn.Linear(4, 5), nn.Tanh(), Odd(5, 5), nn.Linear(5, 3)), RECIPE)
    assert "kolen_pollack" not in explain(learner.network, RECIPE)[1]
    assert len(learner._mirrored) == 1


def test_its_state_is_its_own() -> None:
    by_a_loss = Learner(network(), Recipe(twin="linear"))
    with pytest.raises(UserError, match="feedback learning kolen_pollack"):
        by_a_loss.load_state_dict(Learner(network(), RECIPE).state_dict())


def test_it_is_named_and_leaves_other_pairs_to_the_loss() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4)), nn.Linear(4, 3))
    learner = Learner(model, RECIPE)
    lines = explain(learner.network, RECIPE)
    assert "autograd" in lines[1]
    assert lines[2].endswith("kolen_pollack")
    assert len(learner.optimizer_parameters()) == len(learner.network.forward_parameters()) + 1
