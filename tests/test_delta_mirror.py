"""Amortised feedback learning: where it settles, what it costs, and that it is repeatable."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from omegaconf import OmegaConf
from torch import Tensor, nn

import targetprop
from targetprop import AMORTISED_DTP, DTP, Learner, OptimizerSpec, PairedNetwork, Recipe, UserError
from targetprop.feedback.amortised import (
    HEAD_SHARE,
    Allocation,
    MapShape,
    _add_by_matrices,
    _add_by_rows,
    allocate,
    delta_rule,
    map_shape,
    warm_up,
)
from targetprop.feedback.budget import EVERY, GOOD, LEAST, MOST, POOR, _effort, backprop_cost
from targetprop.feedback.updates import explain
from targetprop.layers.twins import LinearTwin
from targetprop.measure.alignment import angle, backprop_gradients, block_gradients, feedback_angles
from targetprop.models import lenet, mlp, norm_vgg, simple_vgg
from targetprop.network.linear_feedback import LinearPart

CONF = Path(targetprop.__file__).parent / "app" / "conf"

NETWORKS: dict[str, Callable[[], nn.Sequential]] = {
    "vgg": lambda: simple_vgg((3, 16, 16), 5, (6, 8, 8), "elu"),
    "vgg relu": lambda: simple_vgg((3, 16, 16), 5, (6, 8, 8), "relu"),
    "lenet": lambda: lenet((3, 16, 16), 5, (4, 6), 20, "tanh"),
    "norm": lambda: norm_vgg((3, 16, 16), 5, (6, 8, 8)),
    "mlp gelu": lambda: mlp((3, 16, 16), 5, (30, 20), "gelu"),
    "strided": lambda: nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.ELU()),
        nn.Sequential(nn.Conv2d(4, 8, (3, 2), stride=2, padding="valid", groups=2), nn.LeakyReLU()),
        nn.Sequential(nn.Conv2d(8, 6, 2, padding="same"), nn.BatchNorm2d(6), nn.Tanh(), nn.AvgPool2d(2)),
        nn.Sequential(nn.Flatten(), nn.Linear(12, 5)),
    ),
}


def forward_weight(part: LinearPart) -> Tensor:
    """The forward layer's weight in the shape of the feedback's."""
    weight = part.layers[part.position].weight.detach()
    assert isinstance(weight, Tensor)
    return weight.t() if weight.dim() == 2 else weight


def batch(count: int = 32) -> tuple[Tensor, Tensor]:
    return torch.randn(count, 3, 16, 16), torch.randint(5, (count,))


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.filterwarnings("ignore:Using padding=.same.")
def test_the_first_batch_already_aligns_feedback_and_updates(name: str) -> None:
    learner = Learner(NETWORKS[name](), AMORTISED_DTP)
    x, y = batch()
    step = learner.backward(F.cross_entropy(learner(x), y))
    assert float(step.feedback_losses.max()) < 0.02
    for pair in learner.network.trained:
        assert float(feedback_angles(pair)[0]) < 5
    gradients = backprop_gradients(learner.network, x, y, F.cross_entropy)
    for update, gradient in zip(block_gradients(learner.network), gradients, strict=True):
        assert float(angle(update, gradient)) < 8


@pytest.mark.parametrize("style", ["linear", "matched"])
@pytest.mark.parametrize("name", ["vgg", "vgg relu", "norm", "mlp gelu"])
def test_with_forward_weights_as_feedback_small_targets_give_backprop(name: str, style: str) -> None:
    learner = Learner(NETWORKS[name](), Recipe(twin=style, beta=1e-4, feedback_loss=None)).double()
    for pair in learner.network.trained:
        part = pair.linear
        assert isinstance(part, LinearPart)
        part.map.map.weight.data = forward_weight(part).clone()
    x, y = batch()
    x = x.double()
    learner.backward(F.cross_entropy(learner(x), y))
    gradients = backprop_gradients(learner.network, x, y, F.cross_entropy)
    for update, gradient in zip(block_gradients(learner.network), gradients, strict=True):
        assert (update / 1e-4 - gradient).norm() < 1e-3 * gradient.norm()


def test_feedback_comes_within_five_degrees_of_long_exact_training() -> None:
    """Forward weights fixed, linear twins: L-DRL's own optimum, reached by long training, is where the rule settles."""
    torch.manual_seed(4)
    model = nn.Sequential(nn.Linear(6, 8), nn.Sequential(nn.Linear(8, 7), nn.Identity()), nn.Linear(7, 3))
    exact = Learner(model, Recipe(noise=0.1, feedback_training_iterations=50))
    amortised = Learner(model, AMORTISED_DTP)
    for _ in range(20):
        x, y = torch.randn(64, 6), torch.randint(3, (64,))
        for learner in (exact, amortised):
            learner.backward(F.cross_entropy(learner(x), y))
    for slow, fast in zip(exact.network.trained, amortised.network.trained, strict=True):
        weights = [pair.linear.map.map.weight.detach() for pair in (slow, fast)]  # type: ignore[union-attr]
        assert float(angle(*weights)) < 5


def part_of(model: nn.Sequential) -> LinearPart:
    part = PairedNetwork.of(model, "linear").pairs[1].linear
    assert isinstance(part, LinearPart)
    return part


@torch.no_grad()
def test_the_rule_rests_at_the_forward_weights_and_shrinks_the_error_as_predicted() -> None:
    torch.manual_seed(3)
    part = part_of(nn.Sequential(nn.Linear(9, 40), nn.Linear(40, 30)))
    weight, forward = part.map.map.weight, forward_weight(part)
    weight.copy_(forward)
    allocation = Allocation(20, 3, torch.tensor(1 / (20 + 40)), 20)
    assert float(delta_rule(part, torch.randn(20, 40), torch.randn(3, 40), allocation)) < 1e-12
    torch.testing.assert_close(weight, forward)
    left, shrunk = [], []
    for _ in range(200):
        weight.zero_()
        left.append(delta_rule(part, torch.randn(20, 40), torch.zeros(1, 40), allocation))
        shrunk.append((forward - weight).square().sum() / forward.square().sum())
    assert float(torch.stack(left).mean()) == pytest.approx(1, abs=0.02)
    assert float(torch.stack(shrunk).mean()) == pytest.approx(40 / 60, abs=0.02)  # d / (n + d)


class OddConv(nn.Conv2d):
    """A convolution of the user's own, of which nothing but its response is known."""


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("groups", [1, 2])
def test_both_ways_to_a_change_give_the_same(groups: int, order: torch.memory_format, dtype: torch.dtype) -> None:
    changes = []
    for add in (_add_by_rows, _add_by_matrices):
        torch.manual_seed(9)
        conv = nn.Conv2d(4, 6, (3, 2), stride=2, padding=1, groups=groups)
        part = part_of(nn.Sequential(nn.Conv2d(2, 4, 1), conv).to(dtype))
        weight = part.map.map.weight
        weight.data = weight.data.contiguous(memory_format=order)
        left, weighted, residual, patches = (
            torch.randn(groups, *shape, dtype=dtype)
            for shape in ((30, 6 // groups), (30, 24 // groups), (12, 6 // groups), (12, 24 // groups))
        )
        add(part, left, weighted, residual, patches)
        changes.append(weight.clone())
    tolerance = 1e-4 if dtype == torch.float32 else 1e-10
    torch.testing.assert_close(*changes, rtol=tolerance, atol=tolerance)


@torch.no_grad()
@pytest.mark.parametrize("groups", [1, 2])
def test_known_layers_take_one_product_for_what_others_measure(groups: int) -> None:
    torch.manual_seed(8)
    changes = []
    for kind in (nn.Conv2d, OddConv):
        torch.manual_seed(9)
        conv = kind(4, 6, (3, 2), stride=2, padding=1, dilation=(1, 2), groups=groups)
        part = part_of(nn.Sequential(nn.Conv2d(2, 4, 1), conv))
        weight = part.map.map.weight
        weight.copy_(torch.linspace(-1, 1, weight.numel()).view_as(weight))
        eps = torch.randn(3, 4, 7, 8)
        delta_rule(part, eps, 2 * eps[:2], Allocation(3, 2, torch.tensor(0.01), 1))
        changes.append(weight.clone())
    torch.testing.assert_close(*changes)


class Wrapped(nn.Module):
    """A layer of the user's own with a known twin, but without a weight by that name."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(40, 30)

    def forward(self, x: Tensor) -> Tensor:
        return 2 * self.inner(x)


@torch.no_grad()
def test_the_share_left_over_of_a_layer_of_the_users_own_is_measured() -> None:
    layers = nn.Sequential(Wrapped())
    part = LinearPart(tuple(layers), (LinearTwin(layers[0].inner),), 0)  # type: ignore[arg-type]
    allocation, eps = Allocation(200, 1, torch.tensor(1 / 240), 1), torch.randn(200, 40)
    shaped = 100 * torch.randn(3, 40)  # does not count
    part.map.map.weight.zero_()
    assert float(delta_rule(part, eps, shaped, allocation)) == pytest.approx(1)
    part.map.transposed.copy_(2 * layers[0].inner.weight)  # type: ignore[union-attr, operator, arg-type]
    assert float(delta_rule(part, eps, shaped, allocation)) < 1e-9


def test_norms_without_running_statistics_can_be_planned_for() -> None:
    norm = nn.BatchNorm1d(5, track_running_stats=False)
    learner = Learner(nn.Sequential(nn.Linear(4, 5), norm, nn.Tanh(), nn.Linear(5, 3)), AMORTISED_DTP)
    step = learner.backward(F.cross_entropy(learner(torch.randn(6, 4)), torch.randint(3, (6,))))
    assert float(step.feedback_losses.max()) < 0.01


def test_what_is_watched_moves_to_the_device_of_the_network() -> None:
    learner = Learner(NETWORKS["vgg"](), AMORTISED_DTP)
    learner._amortised.load_state_dict({"efforts": [1.0] * 3, "left": torch.zeros(3)})
    learner._amortised.watch(torch.zeros(3, device="meta"), 1)
    assert learner._amortised._left is not None
    assert learner._amortised._left.device.type == "meta"


@torch.no_grad()
@pytest.mark.parametrize("add", [_add_by_rows, _add_by_matrices])
def test_shaped_noise_takes_every_units_best_step_after_that_of_white_noise(
    add: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("targetprop.feedback.amortised._add_by_rows", add)
    monkeypatch.setattr("targetprop.feedback.amortised._add_by_matrices", add)
    torch.manual_seed(11)
    part = part_of(nn.Sequential(nn.Linear(9, 40), nn.Linear(40, 30)))
    forward, transposed, step = part.layer.weight, part.map.transposed, 1 / 240
    assert isinstance(forward, Tensor)
    transposed.zero_()
    white, shaped = torch.randn(200, 40), torch.randn(40) + torch.randn(3, 40) / 10
    share = delta_rule(part, white, shaped, Allocation(200, 3, torch.tensor(step), 200))
    assert float(share) == pytest.approx(1, abs=0.05)  # white noise alone counts
    left = forward - step * forward @ white.mT @ white
    gradient = left @ shaped.mT @ shaped
    best = gradient.square().sum(1, keepdim=True) / (gradient @ shaped.mT).square().sum(1, keepdim=True)
    torch.testing.assert_close(forward - transposed, left - best * gradient)


def test_maps_with_many_equations_are_learned_at_once() -> None:
    """Of a 1x1 map a single row of noise tells all: what both kinds of noise know must not be learned twice."""
    net = nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU()),
        nn.Sequential(nn.Conv2d(4, 8, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1)),
        nn.Sequential(nn.Flatten(), nn.Linear(8, 5)),
    )
    learner = Learner(net, AMORTISED_DTP)
    x, y = batch()
    learner.backward(F.cross_entropy(learner(x.abs()), y))
    assert float(feedback_angles(learner.network.pairs[1])[0]) < 1


@torch.no_grad()
def test_shaped_noise_never_makes_its_own_residual_larger() -> None:
    torch.manual_seed(5)
    part = part_of(nn.Sequential(nn.Conv2d(2, 3, 1), nn.Conv2d(3, 4, 3, padding=1)))
    eps = torch.randn(1, 3, 1, 1) + 0.1 * torch.randn(2, 3, 6, 6)  # far from white
    forward = forward_weight(part)

    def residual() -> Tensor:
        found = part.map.forward_map
        return (found.patches(eps) @ found.matrix(forward - part.map.transposed).mT).square().sum((0, 1))

    before = residual()
    delta_rule(part, torch.zeros(1, 3, 6, 6), eps, Allocation(1, 2, torch.tensor(0.01), 1))
    assert bool((residual() < before).all())


def test_the_allocation_keeps_its_budget_and_treats_all_blocks_alike() -> None:
    shapes = [
        MapShape(positions, weights, seen, torch.ones(1, 1, 1))
        for positions, weights, seen in [(256, 147_456, 1058.0), (64, 294_912, 968.0), (16, 589_824, 1600.0)]
    ]
    backprop = 3.0 * 128 * sum(shape.cost for shape in shapes)
    for budget in (0.05, 0.12, 0.3):
        allocations = allocate(shapes, backprop, budget)
        spent = sum((2 * a.rows + 4 * a.mixtures) * s.cost for a, s in zip(allocations, shapes, strict=True))
        assert spent <= (budget + 3 * HEAD_SHARE) * backprop
        assert spent >= 0.7 * budget * backprop
        ratios = [a.rows * s.positions / s.seen for a, s in zip(allocations, shapes, strict=True)]
        assert max(ratios) < 1.7 * min(ratios)


def test_backprop_is_counted_as_three_passes_but_one_for_the_first_block() -> None:
    network = PairedNetwork.of(nn.Sequential(nn.Linear(5, 7), nn.ELU(), nn.Linear(7, 3)))
    assert backprop_cost(network, torch.randn(11, 5)) == 11 * (2 * 35 + 3 * 21)


def test_the_plan_depends_on_shapes_only_and_a_run_can_be_resumed() -> None:
    learner = Learner(NETWORKS["vgg"](), AMORTISED_DTP, seed=7)
    optimizer = torch.optim.SGD(learner.network.forward_parameters(), lr=0.05)
    batches = [batch() for _ in range(4)]

    def run(learner: Learner, optimizer: torch.optim.Optimizer, batches: list[tuple[Tensor, Tensor]]) -> None:
        for x, y in batches:
            learner.backward(F.cross_entropy(learner(x), y))
            optimizer.step()
            optimizer.zero_grad()

    run(learner, optimizer, batches[:2])
    resumed = Learner(NETWORKS["vgg"](), AMORTISED_DTP, seed=7)
    resumed.load_state_dict(learner.state_dict())
    run(learner, optimizer, batches[2:])
    run(resumed, torch.optim.SGD(resumed.network.forward_parameters(), lr=0.05), batches[2:])
    for name, value in learner.network.state_dict().items():
        assert torch.equal(value, resumed.network.state_dict()[name]), name


def test_effort_follows_the_residual_and_is_in_the_state() -> None:
    """With forward weights at rest feedback settles and its noise gets scarce; when they jump, it comes back."""
    torch.manual_seed(10)
    learner = Learner(NETWORKS["vgg"](), AMORTISED_DTP)
    x, y = batch()

    def steps(count: int) -> None:
        for _ in range(count):
            learner.backward(F.cross_entropy(learner(x), y))

    steps(3 * EVERY + 1)
    assert learner._amortised.efforts == [LEAST] * 3
    for parameter in learner.network.forward_parameters():
        parameter.data.normal_(std=0.1)
    steps(EVERY)
    assert max(learner._amortised.efforts) > LEAST
    resumed = Learner(NETWORKS["vgg"](), AMORTISED_DTP)
    resumed.load_state_dict(learner.state_dict())
    assert resumed._amortised.efforts == learner._amortised.efforts


def test_a_run_resumed_between_two_decisions_decides_alike() -> None:
    model = nn.Sequential(nn.Linear(4, 9), nn.ELU(), nn.Linear(9, 3))
    learner, resumed = Learner(copy.deepcopy(model), AMORTISED_DTP), Learner(model, AMORTISED_DTP)
    amortised, again = learner._amortised, resumed._amortised
    left = torch.tensor([2 * POOR])
    for step in range(1, EVERY + 1):
        amortised.watch(left if step < EVERY // 2 + 3 else 0 * left, step)
        if step == EVERY // 2:
            again.load_state_dict(amortised.state_dict())
        if step > EVERY // 2:
            again.watch(left if step < EVERY // 2 + 3 else 0 * left, step)
    assert amortised.efforts == again.efforts == [2.0]
    assert amortised._left is None


def test_effort_is_decided_from_the_mean_residual() -> None:
    amortised = Learner(nn.Sequential(nn.Linear(4, 9), nn.ELU(), nn.Linear(9, 3)), AMORTISED_DTP)._amortised
    for step in range(1, EVERY + 1):
        amortised.watch(torch.tensor([(POOR + GOOD) / 2]), step)
    assert amortised.efforts == [1.0]


def test_shaped_noise_teaches_feedback_along_the_activations_first() -> None:
    model = nn.Sequential(nn.Linear(4, 200), nn.Linear(200, 100), nn.Linear(100, 3))
    model[0].bias.data.normal_(std=10)  # type: ignore[union-attr, operator]  # activations lie along it
    learner = Learner(model, AMORTISED_DTP, seed=1)
    learner.steps = 1  # after the first batch, whose noise is plenty
    learner.backward(F.cross_entropy(learner(torch.randn(32, 4)), torch.randint(3, (32,))))
    part = learner.network.pairs[1].linear
    assert isinstance(part, LinearPart)
    forward, direction = forward_weight(part), model[0].bias.detach()  # type: ignore[union-attr]
    wrong = forward - part.map.map.weight.detach()
    assert float(wrong.norm() / forward.norm()) > 0.9
    assert float((direction @ wrong).norm() / (direction @ forward).norm()) < 0.3


def test_another_effort_is_another_plan() -> None:
    learner = Learner(NETWORKS["vgg"](), replace(AMORTISED_DTP, budget=0.5))
    amortised = learner._amortised
    shapes = amortised._shapes_for(batch(64)[0])
    rows = []
    for effort in (1.0, LEAST, 1.0):
        amortised.efforts = [effort] * 3
        rows.append([each.rows for each in amortised.plan(shapes)])
    assert rows[0] == rows[2]
    assert sum(rows[1]) < sum(rows[0])


@torch.no_grad()
def test_taps_at_the_border_have_equations_and_steps_of_their_own() -> None:
    part = part_of(nn.Sequential(nn.Conv2d(2, 4, 1), nn.Conv2d(4, 6, 3, padding=1)))
    shape = map_shape(part, torch.randn(1, 4, 2, 2))
    assert shape.meets.view(3, 3, 4)[:, :, 0].tolist() == [[1, 2, 1], [2, 4, 2], [1, 2, 1]]
    assert shape.seen == 16  # four taps of four channels
    ((allocation,), _) = warm_up([shape])
    assert allocation.rows == 4
    torch.testing.assert_close(allocation.step, 1 / (4 * shape.meets + 16))
    left = []
    for _ in range(300):
        part.map.map.weight.zero_()
        left.append(delta_rule(part, torch.randn(4, 4, 2, 2), torch.zeros(1, 4, 2, 2), allocation))
    assert float(torch.stack(left).mean()) == pytest.approx(1, abs=0.05)


def test_narrow_maps_get_noise_enough_whatever_the_budget() -> None:
    wide, narrow = (MapShape(p, w, d, torch.ones(1, 1, 1)) for p, w, d in [(256, 147_456, 1058.0), (1, 500, 50.0)])
    _, allocation = allocate([wide, narrow], 3.0 * 128 * wide.cost, 1e-6)
    assert allocation.rows == 100  # twice as many equations as unknowns


def test_effort_stays_the_same_unless_it_is_adaptive() -> None:
    learner = Learner(NETWORKS["vgg"](), replace(AMORTISED_DTP, adaptive=False))
    learner.steps = EVERY
    x, y = batch()
    learner.backward(F.cross_entropy(learner(x), y))
    assert learner._amortised.efforts == [1.0] * 3
    assert learner._amortised._left is None


def test_effort_is_halved_and_doubled_within_its_limits() -> None:
    assert [_effort(effort, 2 * POOR) for effort in (LEAST, 1.0, MOST)] == [2 * LEAST, 2.0, MOST]
    assert [_effort(effort, GOOD / 2) for effort in (LEAST, 1.0, MOST)] == [LEAST, 0.5, MOST / 2]
    assert _effort(1.0, (POOR + GOOD) / 2) == 1.0


def test_effort_stays_within_the_budget_and_goes_where_it_is_wanted() -> None:
    shapes = [MapShape(64, 294_912, 968.0, torch.ones(1, 1, 1)), MapShape(16, 589_824, 1600.0, torch.ones(1, 1, 1))]
    backprop = 3.0 * 256 * sum(shape.cost for shape in shapes)

    def spent(efforts: list[float]) -> list[float]:
        allocations = allocate(shapes, backprop, 0.12, efforts)
        return [(2 * a.rows + 4 * a.mixtures) * s.cost / backprop for a, s in zip(allocations, shapes, strict=True)]

    equal, low, uneven, high = spent([1.0, 1.0]), spent([0.125, 0.125]), spent([0.125, 4.0]), spent([4.0, 4.0])
    assert sum(low) < 0.3 * sum(equal)
    assert uneven[0] < 0.3 * equal[0]
    assert uneven[1] > 1.2 * equal[1]
    assert all(sum(each) < 0.12 + 2 * HEAD_SHARE for each in (equal, low, uneven, high))


def test_pairs_without_a_linear_part_learn_by_the_loss_beside_it() -> None:
    model = nn.Sequential(
        nn.Linear(6, 8),
        nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8)),
        nn.Sequential(nn.Linear(8, 8), nn.ELU()),
    )
    learner = Learner(model, AMORTISED_DTP)
    assert [line.split(": ")[1].split(",")[0] for line in explain(learner.network, AMORTISED_DTP)] == [
        "no feedback",
        "autograd",
        "amortised",
    ]
    before = [p.detach().clone() for p in learner.network.pairs[1].feedback_parameters()]
    learner.backward(F.cross_entropy(learner(torch.randn(9, 6)), torch.randint(8, (9,))))
    after = learner.network.pairs[1].feedback_parameters()
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_published_twins_are_refused() -> None:
    with pytest.raises(UserError, match="linear"):
        Recipe(feedback="amortised")
    with pytest.raises(UserError, match="Did you mean 'matched'"):
        Recipe(twin="matchd")
    assert math.isclose(DTP.budget, AMORTISED_DTP.budget)
    assert math.isclose(DTP.budget, OmegaConf.load(CONF / "feedback" / "amortised.yaml").budget)


def test_a_short_batch_gets_a_plan_of_its_own_and_spoils_none() -> None:
    learner = Learner(NETWORKS["vgg"](), AMORTISED_DTP)
    for count in (5, 32, 5, 1, 32):
        x, y = batch(count)
        step = learner.backward(F.cross_entropy(learner(x), y))
        assert bool(step.feedback_losses.isfinite().all())
    assert len(learner._amortised._shapes) == 3
    assert float(step.feedback_losses.max()) < 0.01


def test_images_of_another_size_do_not_make_it_diverge() -> None:
    net = nn.Sequential(
        nn.Sequential(nn.Conv2d(1, 4, 3), nn.ELU()),
        nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ELU(), nn.AdaptiveAvgPool2d(1)),
        nn.Sequential(nn.Flatten(), nn.Linear(4, 3)),
    )
    learner = Learner(net, AMORTISED_DTP)
    for size in (8, 40, 40, 40):
        learner.backward(F.cross_entropy(learner(torch.randn(8, 1, size, size)), torch.randint(3, (8,))))
    assert float(feedback_angles(learner.network.pairs[1])[0]) < 5


def test_frozen_feedback_stays_and_silent_maps_do_no_harm() -> None:
    network = PairedNetwork.of(
        nn.Sequential(nn.Linear(4, 5), nn.ELU(), nn.Linear(5, 5), nn.ELU(), nn.Linear(5, 3)), "linear"
    )
    frozen, silent = network.pairs[1], network.pairs[2]
    for parameter in frozen.feedback_parameters():
        parameter.requires_grad_(False)
    before = [parameter.clone() for parameter in frozen.feedback_parameters()]
    torch.nn.init.zeros_(silent.block[0].weight)  # type: ignore[index, arg-type]
    learner = Learner(network, AMORTISED_DTP)
    step = learner.backward(F.cross_entropy(learner(torch.randn(6, 4)), torch.randint(3, (6,))))
    assert all(torch.equal(a, b) for a, b in zip(before, frozen.feedback_parameters(), strict=True))
    assert "frozen" in explain(network, AMORTISED_DTP)[1]
    assert bool(step.feedback_losses.isfinite().all())


def test_states_of_another_rule_are_refused() -> None:
    amortised = Learner(NETWORKS["vgg"](), AMORTISED_DTP)
    exact = Learner(NETWORKS["vgg"]())
    with pytest.raises(UserError, match="by a loss, with published twins"):
        amortised.load_state_dict(exact.state_dict())


@pytest.mark.parametrize(("activation", "bias"), [(nn.ELU, -1.5), (nn.Tanh, 1.5), (nn.GELU, 0.5)])
def test_l_drl_with_linear_twins_settles_at_the_transposed_weights(activation: type[nn.Module], bias: float) -> None:
    """The slope is the clean pass's in noisy passes too; else, where the activation bends, the optimum is another."""
    torch.manual_seed(6)
    model = nn.Sequential(nn.Linear(4, 30), nn.Sequential(nn.Linear(30, 4), activation()), nn.Linear(4, 3))
    model[1][0].bias.data.fill_(bias)  # type: ignore[index, union-attr, operator]
    recipe = Recipe(
        twin="linear", noise=0.05, feedback_training_iterations=400, b_optim=OptimizerSpec(lr=0.5, momentum=0.9)
    )
    learner = Learner(model, recipe)
    part = learner.network.pairs[1].linear
    assert isinstance(part, LinearPart)
    x = torch.randn(256, 4)
    for _ in range(6):
        learner.backward(F.cross_entropy(learner(x), torch.randint(3, (256,))))
    learned, forward = part.map.map.weight.detach(), forward_weight(part)
    assert float((learned * forward).sum() / forward.square().sum()) == pytest.approx(1, abs=0.2)


@pytest.mark.parametrize("style", ["linear", "matched"])
def test_inplace_activations_are_made_harmless_in_every_style(style: str) -> None:
    net = nn.Sequential(nn.Sequential(nn.Linear(4, 5), nn.Tanh()), nn.Sequential(nn.ELU(inplace=True), nn.Linear(5, 3)))
    learner = Learner(net, Recipe(twin=style))
    learner.backward(F.cross_entropy(learner(torch.randn(6, 4)), torch.randint(3, (6,))))


def test_warm_up_brings_even_the_slowest_weights_down() -> None:
    meets = torch.tensor([[[1.0, 4.0]]])
    allocations, times = warm_up([MapShape(4, 9, 4.0, meets)])
    assert (1 + allocations[0].rows * 1 / 4.0) ** -times <= 1e-6
