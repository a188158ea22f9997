"""Kolen-Pollack: feedback weights that take the forward weights' updates come to equal them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
import torch.nn.utils.prune
from torch import Tensor, nn

from targetprop import DTP, KOLEN_POLLACK, LayerRule, Learner, UserError, explain
from targetprop.layers.base import FeedbackLayer, Style, register
from targetprop.measure.alignment import feedback_angles


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(1, 4, 3), nn.ELU()),
        nn.Sequential(nn.Conv2d(4, 6, 3, stride=2), nn.Tanh()),
        nn.Sequential(nn.Flatten(), nn.Linear(24, 5)),
    )


def several_maps() -> nn.Sequential:
    """Its second block has two linear maps, with an activation between."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 4), nn.ELU()), nn.Linear(4, 3)
    )


def decayed(learner: Learner, x: Tensor, y: Tensor, rate: float, decay: float, steps: int) -> list[float]:
    """Of each map, what is left after training of the difference between its weights and those of its feedback."""
    optimizer = torch.optim.SGD(learner.optimizer_parameters(), lr=rate, weight_decay=decay)

    def differences() -> list[float]:
        return [float((w - v).norm()) for pair in learner.network.trained for w, v in pair.weights()]

    start = differences()
    for _ in range(steps):
        learner.backward(F.cross_entropy(learner(x), y))
        optimizer.step()
        optimizer.zero_grad()
    return [now / before for now, before in zip(differences(), start, strict=True)]


def test_the_difference_of_the_weights_decays_as_predicted_and_updates_align() -> None:
    learner = Learner(network(), KOLEN_POLLACK).double()
    rate, decay, steps = 0.1, 0.2, 60
    left = decayed(learner, torch.randn(16, 1, 8, 8).double(), torch.randint(5, (16,)), rate, decay, steps)
    assert len(left) == 2
    for each in left:
        assert abs(each - (1 - rate * decay) ** steps) < 1e-6
    assert float(feedback_angles(learner.network.trained[-1])[0]) < 45


def test_of_several_maps_in_a_block_each_decays_as_predicted() -> None:
    learner = Learner(several_maps(), KOLEN_POLLACK).double()
    left = decayed(learner, torch.randn(16, 4).double(), torch.randint(3, (16,)), 0.1, 0.2, 40)
    assert len(left) == 3
    for each in left:
        assert abs(each - (1 - 0.1 * 0.2) ** 40) < 1e-6


def test_weights_that_blocks_share_give_all_their_gradient() -> None:
    shared = nn.Linear(5, 5)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), shared, nn.Tanh(), shared, nn.Linear(5, 3))
    learner = Learner(model, KOLEN_POLLACK)
    learner.backward(F.cross_entropy(learner(torch.randn(6, 4)), torch.randint(3, (6,))))
    assert shared.weight.grad is not None
    for pair in learner.network.pairs[1:3]:
        assert pair.linear is not None
        gradient = pair.linear.map.weight.grad
        assert gradient is not None
        assert torch.equal(gradient, shared.weight.grad.t())


class Odd(nn.Linear):
    """A layer of the user's own."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


def test_layers_of_the_users_own_are_refused_unless_their_feedback_has_a_matrix_for_their_own() -> None:
    def model() -> nn.Sequential:
        return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), Odd(5, 5), nn.Linear(5, 3))

    with pytest.raises(UserError, match=r"block 2 \(Odd\): layer Odd has no feedback"):
        Learner(model(), KOLEN_POLLACK)

    class Scales(FeedbackLayer):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(5))

        def decode(self, y: Tensor, context: object) -> Tensor:
            return y * self.scale

    pruned = nn.utils.prune.random_unstructured(nn.Linear(5, 5), "weight", 0.5)
    with pytest.raises(UserError, match=r"block 2 \(Linear\): Kolen-Pollack learning needs a weight matrix"):
        Learner(nn.Sequential(nn.Linear(4, 5), nn.Tanh(), pruned, nn.Linear(5, 3)), KOLEN_POLLACK)

    class OwnOdd(Odd):
        pass

    @register(OwnOdd)
    class OddRule(LayerRule[OwnOdd]):
        def feedback(self, layer: OwnOdd, style: Style) -> FeedbackLayer:
            return Scales()

    with pytest.raises(UserError, match=r"block 2 \(OwnOdd\): Kolen-Pollack learning needs a weight matrix"):
        Learner(nn.Sequential(nn.Linear(4, 5), nn.Tanh(), OwnOdd(5, 5), nn.Linear(5, 3)), KOLEN_POLLACK)


def test_layers_that_compute_what_their_parent_does_and_hooked_ones_learn_as_others() -> None:
    class Named(nn.Linear):
        """The same by another name."""

    hooked = nn.Linear(5, 5)
    hooked.register_forward_hook(lambda module, inputs, y: None)
    learner = Learner(nn.Sequential(nn.Linear(4, 5), nn.Tanh(), Named(5, 5), hooked, nn.Linear(5, 3)), KOLEN_POLLACK)
    assert [line.endswith(": Kolen-Pollack") for line in explain(learner)] == [False, True, True, True]
    learner.backward(F.cross_entropy(learner(torch.randn(9, 4)), torch.randint(3, (9,))))
    for pair in learner.network.trained:
        (each,) = pair.maps
        gradient = each.layer.get_parameter("weight").grad
        assert gradient is not None
        assert each.map.weight.grad is not None
        assert torch.equal(each.map.weight.grad, gradient.t())


def test_layers_without_weights_of_the_users_own_go_by_their_jacobian() -> None:
    class Doubled(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * x

    learner = Learner(nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 5), Doubled()), KOLEN_POLLACK)
    assert explain(learner)[1].endswith("Kolen-Pollack")
    y = torch.randn(3, 5)
    trace = learner.network.trace(torch.randn(3, 4))[1]
    (pair,) = learner.network.trained
    assert pair.linear is not None
    torch.testing.assert_close(pair.linear.features(y, trace.context), 2 * y)


def test_its_state_is_its_own() -> None:
    by_a_loss = Learner(network(), DTP.with_numbers(style="linear"))
    with pytest.raises(
        UserError, match=r"of DifferenceTargets and KolenPollack, .* this learner is of DifferenceTargets and ByLoss"
    ):
        by_a_loss.load_state_dict(Learner(network(), KOLEN_POLLACK).state_dict())


def test_it_is_named_and_learns_each_map_of_a_block_by_itself() -> None:
    learner = Learner(several_maps(), KOLEN_POLLACK)
    lines = explain(learner)
    assert lines[1].endswith(": Kolen-Pollack, each of its 2 linear maps by itself")
    assert lines[2].endswith(": Kolen-Pollack")
    assert len(learner.optimizer_parameters()) == len(learner.network.forward_parameters()) + 3
    learner.backward(F.cross_entropy(learner(torch.randn(9, 4)), torch.randint(3, (9,))))
    first, second = learner.network.pairs[1].maps
    for each, name in ((first, "0.weight"), (second, "2.weight")):
        expected = learner.network.pairs[1].block.get_parameter(name).grad
        assert expected is not None
        assert each.map.weight.grad is not None
        assert torch.equal(each.map.weight.grad, expected.t())


def test_frozen_feedback_gets_no_gradient_until_it_is_unfrozen() -> None:
    learner = Learner(several_maps(), KOLEN_POLLACK)
    x, y = torch.randn(9, 4), torch.randint(3, (9,))
    weight = learner.network.pairs[1].maps[0].map.weight
    for frozen in (True, False, True):
        weight.requires_grad_(not frozen)
        learner.zero_grad()
        learner.backward(F.cross_entropy(learner(x), y))
        assert (weight.grad is None) == frozen
