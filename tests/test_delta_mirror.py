"""The delta mirror: where its feedback settles, what it costs, and that it is repeatable."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from omegaconf import OmegaConf
from torch import Tensor, nn

import targetprop
from targetprop import (
    DELTA_MIRROR,
    DTP,
    Algorithm,
    DifferenceTargets,
    Fixed,
    Learner,
    OptimizerSpec,
    PairedNetwork,
    UserError,
    explain,
)
from targetprop.feedback.budget import HEAD_SHARE, Allocation, MapShape, allocate, backprop_cost, map_shape, warm_up
from targetprop.feedback.delta import delta_rule
from targetprop.feedback.responses import EVERY, GOOD, LEAST, MOST, POOR, ResponseLearning
from targetprop.layers.base import FeedbackLayer, LayerRule, Style, register
from targetprop.layers.conv import ConvolutionFeedback
from targetprop.layers.linear import DenseFeedback
from targetprop.measure.alignment import angle, backprop_gradients, block_gradients, feedback_angles
from targetprop.models import lenet, mlp, norm_vgg, simple_vgg
from targetprop.network.feedback_map import FeedbackMap
from targetprop.network.linear_feedback import LinearPart
from targetprop.noise import NoiseKey

CONF = Path(targetprop.__file__).parent / "app" / "conf"

NETWORKS: dict[str, Callable[[], nn.Sequential]] = {
    "vgg": lambda: simple_vgg((3, 16, 16), 5, (6, 8, 8), "elu"),
    "vgg relu": lambda: simple_vgg((3, 16, 16), 5, (6, 8, 8), "relu"),
    "lenet": lambda: lenet((3, 16, 16), 5, (4, 6), 20, "tanh"),
    "norm": lambda: norm_vgg((3, 16, 16), 5, (6, 8, 8)),
    "norm elu": lambda: norm_vgg((3, 16, 16), 5, (6, 8, 8), "elu"),
    "mlp gelu": lambda: mlp((3, 16, 16), 5, (30, 20), "gelu"),
    "strided": lambda: nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.ELU()),
        nn.Sequential(nn.Conv2d(4, 8, (3, 2), stride=2, padding="valid", groups=2), nn.LeakyReLU()),
        nn.Sequential(nn.Conv2d(8, 6, 2, padding="same"), nn.BatchNorm2d(6), nn.Tanh(), nn.AvgPool2d(2)),
        nn.Sequential(nn.Flatten(), nn.Linear(12, 5)),
    ),
}


def forward_weight(part: FeedbackMap) -> Tensor:
    """The forward layer's weight in the shape of the feedback's."""
    weight = part.layer.get_parameter("weight").detach()
    return weight.t() if weight.dim() == 2 else weight


def mirror(learner: Learner) -> ResponseLearning:
    """What learns the learner's feedback."""
    assert isinstance(learner.learning, ResponseLearning)
    return learner.learning


def linear_part(learner: Learner, block: int = 1) -> LinearPart:
    part = learner.network.pairs[block].linear
    assert part is not None
    return part


def recording(learner: Learner) -> list[tuple[NoiseKey, torch.Size]]:
    """From now on, all that the learner draws."""
    draw, drawn = learner.noise, list[tuple[NoiseKey, torch.Size]]()

    def recorded(key: NoiseKey, like: Tensor) -> Tensor:
        drawn.append((key, like.shape))
        return draw(key, like)

    learner.noise = recorded
    return drawn


def white_rows(drawn: list[tuple[NoiseKey, torch.Size]]) -> list[int]:
    """How many samples of white noise each block got in its draws."""
    return [shape[0] for key, shape in drawn if key.kind == "white"]


def batch(count: int = 32) -> tuple[Tensor, Tensor]:
    return torch.randn(count, 3, 16, 16), torch.randint(5, (count,))


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.filterwarnings("ignore:Using padding=.same.")
def test_the_first_batch_already_aligns_feedback_and_updates(name: str) -> None:
    learner = Learner(NETWORKS[name](), DELTA_MIRROR)
    x, y = batch()
    step = learner.backward(F.cross_entropy(learner(x), y))
    assert float(step.feedback_losses.max()) < 0.02
    for pair in learner.network.trained:
        assert float(feedback_angles(pair)[0]) < 5
    gradients = backprop_gradients(learner.network, x, y, F.cross_entropy)
    for update, gradient in zip(block_gradients(learner.network), gradients, strict=True):
        assert float(angle(update, gradient)) < 8


@pytest.mark.parametrize(
    ("name", "style"),
    [*((name, "linear") for name in ("vgg", "vgg relu", "norm", "mlp gelu")), ("vgg", "matched"), ("lenet", "matched"),
     ("norm elu", "matched"), ("norm", "matched")],
)  # fmt: skip
def test_with_forward_weights_as_feedback_small_targets_give_backprop(name: str, style: Style) -> None:
    learner = Learner(NETWORKS[name](), Algorithm(DifferenceTargets(beta=1e-4), Fixed(style=style))).double()
    for pair in learner.network.trained:
        part = pair.linear
        assert isinstance(part, LinearPart)
        part.map.weight.data = forward_weight(part).clone()
    x, y = batch()
    x = x.double()
    learner.backward(F.cross_entropy(learner(x), y))
    gradients = backprop_gradients(learner.network, x, y, F.cross_entropy)
    for update, gradient in zip(block_gradients(learner.network), gradients, strict=True):
        assert (update / 1e-4 - gradient).norm() < 1e-3 * gradient.norm()


def test_feedback_comes_within_five_degrees_of_long_exact_training() -> None:
    """Forward weights fixed, linear feedback: the optimum of L-DRL, by long training, is where the rule settles."""
    torch.manual_seed(4)
    model = nn.Sequential(nn.Linear(6, 8), nn.Sequential(nn.Linear(8, 7), nn.Identity()), nn.Linear(7, 3))
    exact = Learner(model, DTP.with_numbers(noise=0.1, feedback_training_iterations=50))
    mirrored = Learner(model, DELTA_MIRROR)
    for _ in range(20):
        x, y = torch.randn(64, 6), torch.randint(3, (64,))
        for learner in (exact, mirrored):
            learner.backward(F.cross_entropy(learner(x), y))
    for slow, fast in zip(exact.network.trained, mirrored.network.trained, strict=True):
        weights = [pair.linear.map.weight.detach() for pair in (slow, fast)]  # type: ignore[union-attr]
        assert float(angle(*weights)) < 5


def part_of(model: nn.Sequential) -> LinearPart:
    part = PairedNetwork.of(model, "linear").pairs[1].linear
    assert isinstance(part, LinearPart)
    return part


@torch.no_grad()
def test_the_rule_rests_at_the_forward_weights_and_shrinks_the_error_as_predicted() -> None:
    torch.manual_seed(3)
    part = part_of(nn.Sequential(nn.Linear(9, 40), nn.Linear(40, 30)))
    weight, forward = part.map.weight, forward_weight(part)
    weight.copy_(forward)
    allocation = given(20, 3, torch.tensor(1 / (20 + 40)), 20)
    assert float(delta_rule(part, torch.randn(20, 40), torch.randn(3, 40), allocation)) < 1e-12
    torch.testing.assert_close(weight, forward)
    left, shrunk = [], []
    for _ in range(200):
        weight.zero_()
        left.append(delta_rule(part, torch.randn(20, 40), torch.zeros(1, 40), allocation))
        shrunk.append((forward - weight).square().sum() / forward.square().sum())
    assert float(torch.stack(left).mean()) == pytest.approx(1, abs=0.02)
    assert float(torch.stack(shrunk).mean()) == pytest.approx(40 / 60, abs=0.02)  # d / (n + d)


def given(rows: int, mixtures: int, step: Tensor, equations: float) -> Allocation:
    """An allocation for the delta rule, which asks for no counts."""
    return Allocation(rows, mixtures, counts=torch.tensor(rows), step=step, equations=equations)


class OddConv(nn.Conv2d):
    """A convolution of the user's own, of which nothing but its response is known."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)


@register(OddConv)
class OddRule(LayerRule[OddConv]):
    any_memory_order = True

    def feedback(self, layer: OddConv, style: Style) -> FeedbackLayer:
        return ConvolutionFeedback(layer)


class Watched(nn.Conv2d):
    """A convolution with a hook, which might change what it computes."""

    def __init__(self, *args: int, **options: object) -> None:
        super().__init__(*args, **options)  # type: ignore[arg-type]
        self.register_forward_hook(lambda module, inputs, y: None)


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("groups", [1, 2])
def test_both_ways_to_a_change_give_the_same(groups: int, order: torch.memory_format, dtype: torch.dtype) -> None:
    """Rows of zeros, from which nothing is learned, make it many patches: another way is cheaper then."""
    changes = []
    for zeros in (0, 200):
        torch.manual_seed(9)
        conv = nn.Conv2d(4, 6, (3, 2), stride=2, padding=1, groups=groups)
        part = part_of(nn.Sequential(nn.Conv2d(2, 4, 1), conv).to(dtype))
        part.map.weight.data = part.map.weight.data.contiguous(memory_format=order)
        white, shaped = torch.randn(6, 4, 2, 1, dtype=dtype), torch.randn(3, 4, 2, 1, dtype=dtype)
        white = torch.cat((white, white.new_zeros(zeros, 4, 2, 1)))
        delta_rule(part, white, shaped, given(6, 3, torch.tensor(0.02, dtype=dtype), 1))
        changes.append(part.map.weight.detach().clone())
    tolerance = 1e-4 if dtype == torch.float32 else 1e-10
    torch.testing.assert_close(*changes, rtol=tolerance, atol=tolerance)


@torch.no_grad()
@pytest.mark.parametrize("other", [OddConv, Watched])
@pytest.mark.parametrize("groups", [1, 2])
def test_known_layers_take_one_product_for_what_others_measure(groups: int, other: type[nn.Conv2d]) -> None:
    torch.manual_seed(8)
    changes = []
    for kind in (nn.Conv2d, other):
        torch.manual_seed(9)
        conv = kind(4, 6, (3, 2), stride=2, padding=1, dilation=(1, 2), groups=groups)
        part = part_of(nn.Sequential(nn.Conv2d(2, 4, 1), conv))
        assert part.known == (kind is nn.Conv2d)
        weight = part.map.weight
        weight.copy_(torch.linspace(-1, 1, weight.numel()).view_as(weight))
        eps = torch.randn(3, 4, 7, 8)
        delta_rule(part, eps, 2 * eps[:2], given(3, 2, torch.tensor(0.01), 1))
        changes.append(weight.clone())
    torch.testing.assert_close(*changes)


class Wrapped(nn.Module):
    """A layer of the user's own whose feedback is known, but without a weight by that name."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(40, 30)

    def forward(self, x: Tensor) -> Tensor:
        return 2 * self.inner(x)


@register(Wrapped)
class WrappedRule(LayerRule[Wrapped]):
    def feedback(self, layer: Wrapped, style: Style) -> FeedbackLayer:
        return DenseFeedback(layer.inner)


@torch.no_grad()
def test_the_share_left_over_of_a_layer_of_the_users_own_is_measured() -> None:
    wrapped = Wrapped()
    part = part_of(nn.Sequential(nn.Linear(9, 40), wrapped))
    allocation, eps = given(200, 1, torch.tensor(1 / 240), 1), torch.randn(200, 40)
    shaped = 100 * torch.randn(3, 40)  # does not count
    part.map.weight.zero_()
    assert float(delta_rule(part, eps, shaped, allocation)) == pytest.approx(1)
    part.map.transposed.copy_(2 * wrapped.inner.weight)
    assert float(delta_rule(part, eps, shaped, allocation)) < 1e-9


def test_norms_without_running_statistics_can_be_planned_for() -> None:
    norm = nn.BatchNorm1d(5, track_running_stats=False)
    learner = Learner(nn.Sequential(nn.Linear(4, 5), norm, nn.Tanh(), nn.Linear(5, 3)), DELTA_MIRROR)
    step = learner.backward(F.cross_entropy(learner(torch.randn(6, 4)), torch.randint(3, (6,))))
    assert float(step.feedback_losses.max()) < 0.01


def test_what_is_watched_moves_to_the_device_of_the_network() -> None:
    learner = Learner(NETWORKS["vgg"](), DELTA_MIRROR)
    learning = mirror(learner)
    learning.load_state_dict({"efforts": [1.0] * 3, "left": torch.zeros(3)})
    learning.between_steps(1, torch.zeros(3, device="meta"))
    assert learning.state_dict()["left"].device.type == "meta"


@torch.no_grad()
@pytest.mark.parametrize("zeros", [0, 600], ids=["few patches", "many"])
def test_shaped_noise_takes_every_units_best_step_after_that_of_white_noise(zeros: int) -> None:
    """By both ways: rows of zeros, from which nothing is learned, make it many patches."""
    torch.manual_seed(11)
    part = part_of(nn.Sequential(nn.Linear(9, 400), nn.Linear(400, 300)).double())
    forward, transposed, step = part.layer.get_parameter("weight"), part.map.transposed, 1 / 600
    transposed.zero_()
    white, shaped = torch.randn(200, 400).double(), (torch.randn(400) + torch.randn(3, 400) / 10).double()
    padded = torch.cat((white, white.new_zeros(zeros, 400)))
    share = delta_rule(part, padded, shaped, given(200, 3, torch.tensor(step).double(), 200))
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
    learner = Learner(net, DELTA_MIRROR)
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
    delta_rule(part, torch.zeros(1, 3, 6, 6), eps, given(1, 2, torch.tensor(0.01), 1))
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
    learner = Learner(NETWORKS["vgg"](), DELTA_MIRROR, seed=7)
    optimizer = torch.optim.SGD(learner.network.forward_parameters(), lr=0.05)
    batches = [batch() for _ in range(4)]

    def run(learner: Learner, optimizer: torch.optim.Optimizer, batches: list[tuple[Tensor, Tensor]]) -> None:
        for x, y in batches:
            learner.backward(F.cross_entropy(learner(x), y))
            optimizer.step()
            optimizer.zero_grad()

    run(learner, optimizer, batches[:2])
    resumed = Learner(NETWORKS["vgg"](), DELTA_MIRROR, seed=7)
    resumed.load_state_dict(learner.state_dict())
    run(learner, optimizer, batches[2:])
    run(resumed, torch.optim.SGD(resumed.network.forward_parameters(), lr=0.05), batches[2:])
    for name, value in learner.network.state_dict().items():
        assert torch.equal(value, resumed.network.state_dict()[name]), name


def test_effort_follows_the_residual_and_is_in_the_state() -> None:
    """With forward weights at rest feedback settles and its noise gets scarce; when they jump, it comes back."""
    torch.manual_seed(10)
    learner = Learner(NETWORKS["vgg"](), DELTA_MIRROR)
    x, y = batch()

    def steps(count: int) -> None:
        for _ in range(count):
            learner.backward(F.cross_entropy(learner(x), y))

    steps(3 * EVERY + 1)
    assert mirror(learner).efforts == [LEAST] * 3
    for parameter in learner.network.forward_parameters():
        parameter.data.normal_(std=0.1)
    steps(EVERY)
    assert max(mirror(learner).efforts) > LEAST
    resumed = Learner(NETWORKS["vgg"](), DELTA_MIRROR)
    resumed.load_state_dict(learner.state_dict())
    assert mirror(resumed).efforts == mirror(learner).efforts


def test_a_run_resumed_between_two_decisions_decides_alike() -> None:
    model = nn.Sequential(nn.Linear(4, 9), nn.ELU(), nn.Linear(9, 3))
    learner, resumed = Learner(copy.deepcopy(model), DELTA_MIRROR), Learner(model, DELTA_MIRROR)
    whole, again = mirror(learner), mirror(resumed)
    left = torch.tensor([2 * POOR])
    for step in range(1, EVERY + 1):
        seen = left if step < EVERY // 2 + 3 else 0 * left
        whole.between_steps(step, seen)
        if step == EVERY // 2:
            again.load_state_dict(whole.state_dict())
        if step > EVERY // 2:
            again.between_steps(step, seen)
    assert whole.efforts == again.efforts == [2.0]
    assert whole.state_dict()["left"] is None


def test_effort_is_decided_from_the_mean_residual() -> None:
    learning = mirror(Learner(nn.Sequential(nn.Linear(4, 9), nn.ELU(), nn.Linear(9, 3)), DELTA_MIRROR))
    for step in range(1, EVERY + 1):
        learning.between_steps(step, torch.tensor([(POOR + GOOD) / 2]))
    assert learning.efforts == [1.0]


def test_shaped_noise_teaches_feedback_along_the_activations_first() -> None:
    first = nn.Linear(4, 200)
    nn.init.normal_(first.bias, std=10)  # activations lie along it
    learner = Learner(nn.Sequential(first, nn.Linear(200, 100), nn.Linear(100, 3)), DELTA_MIRROR, seed=1)
    learner.steps = 1  # after the first batch, whose noise is plenty
    learner.backward(F.cross_entropy(learner(torch.randn(32, 4)), torch.randint(3, (32,))))
    part = linear_part(learner)
    forward, direction = forward_weight(part), first.bias.detach()
    wrong = forward - part.map.weight.detach()
    assert float(wrong.norm() / forward.norm()) > 0.9
    assert float((direction @ wrong).norm() / (direction @ forward).norm()) < 0.3


def test_another_effort_is_another_plan() -> None:
    learner = Learner(NETWORKS["vgg"](), DELTA_MIRROR.with_numbers(budget=0.5))
    learner.steps = 1
    drawn, learning = recording(learner), mirror(learner)
    rows, plans = [], []
    x, y = batch(64)
    for effort in (1.0, LEAST, 1.0):
        learning.efforts = [effort] * 3
        plans.append(learner.plan)
        drawn.clear()
        learner.backward(F.cross_entropy(learner(x), y))
        rows.append(white_rows(drawn))
    assert rows[0] == rows[2]
    assert sum(rows[1]) < sum(rows[0])
    assert plans[0] == plans[2] != plans[1]


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
        part.map.weight.zero_()
        left.append(delta_rule(part, torch.randn(4, 4, 2, 2), torch.zeros(1, 4, 2, 2), allocation))
    assert float(torch.stack(left).mean()) == pytest.approx(1, abs=0.05)


def test_narrow_maps_get_noise_enough_whatever_the_budget() -> None:
    wide, narrow = (MapShape(p, w, d, torch.ones(1, 1, 1)) for p, w, d in [(256, 147_456, 1058.0), (1, 500, 50.0)])
    _, allocation = allocate([wide, narrow], 3.0 * 128 * wide.cost, 1e-6)
    assert allocation.rows == 100  # twice as many equations as unknowns


def test_effort_stays_the_same_unless_it_is_adaptive() -> None:
    learner = Learner(NETWORKS["vgg"](), DELTA_MIRROR.with_numbers(adaptive=False))
    learner.steps = EVERY
    x, y = batch()
    learner.backward(F.cross_entropy(learner(x), y))
    assert mirror(learner).efforts == [1.0] * 3
    assert mirror(learner).state_dict()["left"] is None


def test_effort_is_halved_and_doubled_within_its_limits() -> None:
    learning = mirror(Learner(NETWORKS["vgg"](), DELTA_MIRROR))

    def decided(left: float) -> list[float]:
        learning.efforts = [LEAST, 1.0, MOST]
        for step in range(1, EVERY + 1):
            assert learning.efforts == [LEAST, 1.0, MOST]
            learning.between_steps(step, torch.full((3,), left))
        return learning.efforts

    assert decided(2 * POOR) == [2 * LEAST, 2.0, MOST]
    assert decided(GOOD / 2) == [LEAST, 0.5, MOST / 2]
    assert decided((POOR + GOOD) / 2) == [LEAST, 1.0, MOST]


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


def several_maps() -> nn.Sequential:
    """Its second block has two linear maps, with an activation between."""
    return nn.Sequential(
        nn.Sequential(nn.Linear(6, 8), nn.Tanh()),
        nn.Sequential(nn.Linear(8, 20), nn.Tanh(), nn.Linear(20, 9), nn.ELU()),
        nn.Sequential(nn.Linear(9, 5), nn.ELU()),
    )


def test_of_several_maps_in_a_block_each_is_learned_by_itself() -> None:
    learner = Learner(several_maps(), DELTA_MIRROR.with_numbers(beta=0.01))
    assert [line.split(": ")[1] for line in explain(learner)] == [
        "no feedback",
        "delta mirror, each of its 2 linear maps by itself",
        "delta mirror",
    ]
    x, y = torch.randn(32, 6), torch.randint(5, (32,))
    step = learner.backward(F.cross_entropy(learner(x), y))
    assert float(step.feedback_losses.max()) < 0.02
    angles = [float(each) for pair in learner.network.trained for each in feedback_angles(pair)]
    assert len(angles) == 3
    assert max(angles) < 5
    gradients = backprop_gradients(learner.network, x, y, F.cross_entropy)
    for update, gradient in zip(block_gradients(learner.network), gradients, strict=True):
        assert float(angle(update, gradient)) < 8


def test_maps_of_one_block_have_noise_of_their_own_at_the_input_of_each() -> None:
    learner = Learner(several_maps(), DELTA_MIRROR)
    learner.steps = 1
    drawn = recording(learner)
    learner.backward(F.cross_entropy(learner(torch.randn(16, 6)), torch.randint(5, (16,))))
    keys = [key for key, _ in drawn]
    assert len(keys) == len(set(keys)) == 2 * 3
    widths = {(key.block, key.iteration): shape[1] for key, shape in drawn if key.kind == "white"}
    assert widths == {(1, 0): 8, (1, 1): 20, (2, 0): 9}


def test_several_maps_of_a_block_keep_to_its_effort_and_the_mean_of_their_shares_decides() -> None:
    learner = Learner(several_maps(), DELTA_MIRROR)
    learning = mirror(learner)
    assert len(learning.efforts) == 2
    x, y = torch.randn(32, 6), torch.randint(5, (32,))
    first, second = learner.network.pairs[1].maps
    learner.backward(F.cross_entropy(learner(x), y))
    with torch.no_grad():
        first.map.weight.zero_()
    step = learner.backward(F.cross_entropy(learner(x), y))
    assert float(step.feedback_losses[0]) == pytest.approx(0.5, abs=0.2)  # of one map all is left, of the other nothing
    second.map.weight.requires_grad_(False)
    kept = second.map.weight.detach().clone()
    step = learner.backward(F.cross_entropy(learner(x), y))
    assert torch.equal(second.map.weight, kept)
    assert bool(step.feedback_losses.isfinite().all())


def test_feedback_that_is_not_made_of_linear_maps_is_refused_and_the_network_left_alone() -> None:
    class Bent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(8, 8))

        def forward(self, x: Tensor) -> Tensor:
            return x @ self.weight

    class BentFeedback(FeedbackLayer):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(8))

        def decode(self, y: Tensor, context: object) -> Tensor:
            return self.scale * y.tanh()

    @register(Bent)
    class BentRule(LayerRule[Bent]):
        def feedback(self, layer: Bent, style: Style) -> FeedbackLayer:
            return BentFeedback()

    model = nn.Sequential(nn.Linear(6, 8), Bent(), nn.Sequential(nn.Linear(8, 8), nn.ELU()))
    network = PairedNetwork.of(model, "linear")
    before = [p.detach().clone() for p in network.parameters()]
    with pytest.raises(UserError, match=r"block 2 \(Bent\): its feedback is not made of linear maps.* such as 'dtp'"):
        Learner(network, DELTA_MIRROR)
    assert all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))
    learner = Learner(model, DTP)
    learner.backward(F.cross_entropy(learner(torch.randn(9, 6)), torch.randint(8, (9,))))
    (scale,) = learner.network.pairs[1].feedback_parameters()
    assert not torch.equal(scale, torch.ones(8))


def test_feedback_of_another_style_is_refused() -> None:
    published = PairedNetwork.of(NETWORKS["vgg"]())
    with pytest.raises(UserError, match="'published' on blocks 2, 3, 4, and the algorithm needs 'linear' on 2, 3, 4"):
        Learner(published, DELTA_MIRROR)
    with pytest.raises(UserError, match="style: there is no such setting"):
        DELTA_MIRROR.with_numbers(style="published")


def test_the_published_configuration_has_the_budget_that_is_the_default() -> None:
    settings = OmegaConf.load(CONF / "model" / "delta_mirror.yaml")
    assert math.isclose(settings.hparams.budget, DELTA_MIRROR.numbers["budget"])


def test_a_short_batch_gets_a_plan_of_its_own_and_spoils_none() -> None:
    learner = Learner(NETWORKS["vgg"](), DELTA_MIRROR)
    drawn, rows = recording(learner), []
    for count in (5, 32, 5, 1, 32):
        x, y = batch(count)
        drawn.clear()
        step = learner.backward(F.cross_entropy(learner(x), y))
        rows.append(white_rows(drawn))
        assert bool(step.feedback_losses.isfinite().all())
        assert {key.step for key, _ in drawn} == {learner.steps - 1}
    assert rows[1] == rows[4]
    assert rows[2] != rows[1]
    for one, few, many in zip(rows[3], rows[2], rows[1], strict=True):
        assert 1 <= one <= few <= many
    assert float(step.feedback_losses.max()) < 0.01


def test_images_of_another_size_do_not_make_it_diverge() -> None:
    net = nn.Sequential(
        nn.Sequential(nn.Conv2d(1, 4, 3), nn.ELU()),
        nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ELU(), nn.AdaptiveAvgPool2d(1)),
        nn.Sequential(nn.Flatten(), nn.Linear(4, 3)),
    )
    learner = Learner(net, DELTA_MIRROR)
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
    nn.init.zeros_(silent.block.get_parameter("0.weight"))
    learner = Learner(network, DELTA_MIRROR)
    step = learner.backward(F.cross_entropy(learner(torch.randn(6, 4)), torch.randint(3, (6,))))
    assert all(torch.equal(a, b) for a, b in zip(before, frozen.feedback_parameters(), strict=True))
    assert "frozen" in explain(learner)[1]
    assert bool(step.feedback_losses.isfinite().all())


def test_states_of_another_rule_are_refused() -> None:
    mirrored = Learner(NETWORKS["vgg"](), DELTA_MIRROR)
    by_loss = Learner(NETWORKS["vgg"]())
    with pytest.raises(
        UserError,
        match=r"of DifferenceTargets and ByLoss, feedback in the style 'published'; this learner is of .* DeltaMirror",
    ):
        mirrored.load_state_dict(by_loss.state_dict())


@pytest.mark.parametrize(("activation", "bias"), [(nn.ELU, -1.5), (nn.Tanh, 1.5), (nn.GELU, 0.5)])
def test_l_drl_with_linear_feedback_settles_at_the_transposed_weights(activation: type[nn.Module], bias: float) -> None:
    """The slope is the clean pass's in noisy passes too; else, where the activation bends, the optimum is another."""
    torch.manual_seed(6)
    bent = nn.Linear(30, 4)
    nn.init.constant_(bent.bias, bias)
    model = nn.Sequential(nn.Linear(4, 30), nn.Sequential(bent, activation()), nn.Linear(4, 3))
    fast = OptimizerSpec(lr=0.5, momentum=0.9)
    algorithm = DTP.with_numbers(style="linear", noise=0.05, feedback_training_iterations=400, b_optim=fast)
    learner = Learner(model, algorithm)
    part = linear_part(learner)
    x = torch.randn(256, 4)
    for _ in range(6):
        learner.backward(F.cross_entropy(learner(x), torch.randint(3, (256,))))
    learned, forward = part.map.weight.detach(), forward_weight(part)
    assert float((learned * forward).sum() / forward.square().sum()) == pytest.approx(1, abs=0.2)


@pytest.mark.parametrize("style", ["linear", "matched"])
def test_inplace_activations_are_made_harmless_in_every_style(style: str) -> None:
    net = nn.Sequential(nn.Sequential(nn.Linear(4, 5), nn.Tanh()), nn.Sequential(nn.ELU(inplace=True), nn.Linear(5, 3)))
    learner = Learner(net, DTP.with_numbers(style=style))
    learner.backward(F.cross_entropy(learner(torch.randn(6, 4)), torch.randint(3, (6,))))


def test_warm_up_brings_even_the_slowest_weights_down() -> None:
    meets = torch.tensor([[[1.0, 4.0]]])
    allocations, times = warm_up([MapShape(4, 9, 4.0, meets)])
    assert (1 + allocations[0].rows * 1 / 4.0) ** -times <= 1e-6
