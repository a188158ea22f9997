"""Targets through time against the equations of their papers, written down step by step by autograd."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from targetprop import OptimizerSpec, UserError
from targetprop.learners import named
from targetprop.learners.through_time import ThroughTimeLearner
from targetprop.learners.tpri import TPRILearner
from targetprop.learners.tptt import TPTTLearner
from targetprop.models import rnn
from targetprop.noise import GaussianNoise, NoiseKey

NAMES = ("tptt", "tpri", "tpri_linearized")
BATCH, TIME, FEATURES, WIDTH, OUT = 4, 6, 3, 5, 2


def network(places: int | None = None, vocabulary: int | None = None) -> nn.Sequential:
    torch.manual_seed(0)
    shape = (TIME,) if vocabulary else (TIME, FEATURES)
    net = rnn(shape, OUT, width=WIDTH, places=places, vocabulary=vocabulary).double()
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.1 * torch.randn_like(p))  # no orthogonal weights, no biases of 0
    return net


def batch(places: int | None = None, vocabulary: int | None = None) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    x = torch.randn(BATCH, TIME, FEATURES).double()
    if vocabulary:
        x = torch.randint(vocabulary, (BATCH, TIME))
    return x, torch.randn(BATCH, *([TIME] if places else []), OUT).double()


def started(name: str, net: nn.Sequential, **numbers: Any) -> ThroughTimeLearner:
    torch.manual_seed(3)
    learner = named(name).with_numbers(**numbers).start(net, seed=7)
    assert isinstance(learner, ThroughTimeLearner)
    return learner.double()


def gradients(net: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}


def by_the_papers(
    name: str, learner: ThroughTimeLearner, net: nn.Sequential, x: Tensor, y: Tensor, step: float, places: int | None
) -> dict[str, Tensor]:
    """The gradients of all local losses, one step of time after the other, by the inverse as it is now."""
    copied: Any = copy.deepcopy(net)
    layer, head = copied
    read = layer.read(x)

    def forward(t: int, state: Tensor) -> Tensor:
        return torch.tanh(
            F.linear(read[:, t], layer.input.weight, layer.input.bias) + F.linear(state, layer.recurrent.weight)
        )

    states = [torch.zeros(BATCH, WIDTH).double()]
    for t in range(TIME):
        states.append(forward(t, states[-1]).detach().requires_grad_())
    outputs = [head(state) for state in states[1:]]
    loss = F.mse_loss(torch.stack(outputs, 1), y) if places else F.mse_loss(outputs[-1], y)
    errors = torch.autograd.grad(BATCH * loss, states[1:], allow_unused=True, retain_graph=True)
    head.zero_grad()
    loss.backward()
    whole: dict[str, Tensor] = {f"head.{key}": p.grad for key, p in head.named_parameters()}

    def inverse(t: int, state: Tensor) -> Tensor:
        if name == "tptt":
            assert isinstance(learner, TPTTLearner)
            return torch.tanh(F.linear(read[:, t], layer.input.weight) + learner.inverse(state))
        u = layer.recurrent.weight
        assert isinstance(learner, TPRILearner)
        most = 1 - learner.rule.margin
        before = torch.atanh(state.clamp(-most, most)) - F.linear(read[:, t], layer.input.weight, layer.input.bias)
        normal = u.T @ u + learner.rule.regularization * torch.eye(WIDTH).double()
        return torch.linalg.solve(normal, u.T @ before.T).T

    targets: list[Tensor] = []
    for t in range(TIME, 0, -1):
        state = states[t].detach()
        target = state
        if targets:
            above = states[t + 1].detach()
            if name == "tpri_linearized":
                down = torch.func.jvp(lambda s, t=t: inverse(t, s), (above,), (targets[0] - above,))[1]
                target = target + down
            else:
                target = target + inverse(t, targets[0]) - inverse(t, above)
        own = errors[t - 1]
        targets.insert(0, (target if own is None else target - step * own).detach())
    total = torch.zeros(()).double()
    for t in range(TIME):
        total = total + 0.5 * (forward(t, states[t].detach()) - targets[t]).square().sum() / BATCH
    layer.zero_grad()
    total.backward()
    return whole | {f"recurrence.{key}": p.grad for key, p in layer.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("vocabulary", [None, 6])
@pytest.mark.parametrize("places", [None, TIME])
@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_those_of_the_papers(name: str, places: int | None, vocabulary: int | None) -> None:
    net, (x, y) = network(places, vocabulary), batch(places, vocabulary)
    learner = started(name, net, step=0.3)
    learner.backward(F.mse_loss(learner(x), y))
    made = gradients(net)
    expected = by_the_papers(name, learner, net, x, y, 0.3, places)
    assert set(made) == set(expected)
    assert len(made) == (6 if vocabulary else 5)
    for key, value in made.items():
        torch.testing.assert_close(value, expected[key], rtol=1e-9, atol=1e-12)


def test_the_inverse_follows_its_loss_at_states_with_noise() -> None:
    net, (x, y) = network(), batch()
    learner = started("tptt", net, noise=0.2, b_optim=OptimizerSpec(lr=1e-3))
    assert isinstance(learner, TPTTLearner)
    before = {key: p.detach().clone() for key, p in learner.inverse.named_parameters()}
    layer: Any = net[0]
    states = [torch.zeros(BATCH, WIDTH).double()]
    driven = layer.input(x).detach()
    for t in range(TIME):
        states.append(torch.tanh(driven[:, t] + layer.recurrent(states[-1])).detach())
    kept = torch.stack(states[1:-1], 1)
    noisy = kept + 0.2 * GaussianNoise(7)(NoiseKey(0, 0, 0, "input"), kept)
    loss = torch.zeros(()).double()
    for t in range(1, TIME):
        after = torch.tanh(driven[:, t] + layer.recurrent(noisy[:, t - 1])).detach()
        back = torch.tanh(F.linear(x[:, t], layer.input.weight).detach() + learner.inverse(after))
        loss = loss + (back - noisy[:, t - 1]).square().sum() / BATCH
    expected = torch.autograd.grad(loss, list(learner.inverse.parameters()))
    learner.backward(F.mse_loss(learner(x), y))
    for (key, p), gradient in zip(learner.inverse.named_parameters(), expected, strict=True):
        torch.testing.assert_close(p.detach(), before[key] - 1e-3 * gradient)
    torch.testing.assert_close(learner.inverse_loss, loss.detach())


def test_a_target_is_hit_by_the_one_below_where_the_inverse_is_exact() -> None:
    net, (x, y) = network(), batch()
    learner = started("tpri", net, regularization=0.0, step=1e-3, margin=1e-9)
    step = learner.backward(F.mse_loss(learner(x), y), keep=True)
    targets = step.targets[0]
    layer: Any = net[0]
    hit = torch.tanh(layer.input(x)[:, 1:] + layer.recurrent(targets[:, :-1]))
    torch.testing.assert_close(hit, targets[:, 1:], rtol=1e-6, atol=1e-8)
    assert (targets - step.outputs[0]).abs().max() > 1e-4


def test_the_difference_is_no_linear_function_of_the_error_and_the_jacobian_is() -> None:
    def update(name: str, step: float) -> Tensor:
        net, (x, y) = network(), batch()
        learner = started(name, net, step=step)
        learner.backward(F.mse_loss(learner(x), y))
        return gradients(net)["recurrence.recurrent.weight"] / step

    for name, linear in (("tpri", False), ("tptt", False), ("tpri_linearized", True)):
        change = (update(name, 0.5) - update(name, 0.005)).norm() / update(name, 0.5).norm()
        assert (change < 1e-10) == linear, name
        assert linear or change > 1e-3, name


def test_the_last_block_gets_the_gradients_of_backprop() -> None:
    for name in NAMES:
        net, (x, y) = network(), batch()
        learner = started(name, net)
        learner.backward(F.mse_loss(learner(x), y))
        made = gradients(net)
        net.zero_grad()
        F.mse_loss(net(x), y).backward()
        torch.testing.assert_close(made["head.weight"], gradients(net)["head.weight"])


def test_outputs_are_those_of_the_network_and_copies_wait_for_nothing() -> None:
    net, (x, y) = network(TIME), batch(TIME)
    learner = started("tptt", net)
    torch.testing.assert_close(learner(x), net(x))
    torch.testing.assert_close(learner.eval()(x), net(x))
    learner.train()
    loss = F.mse_loss(learner(x), y)
    again = pickle.loads(pickle.dumps(copy.deepcopy(learner)))
    with pytest.raises(UserError, match="call the learner on a batch first"):
        again.backward(loss)


def test_a_state_holds_all_that_goes_on() -> None:
    def steps(learner: ThroughTimeLearner, count: int) -> None:
        optimizer = torch.optim.SGD(learner.optimizer_parameters(), lr=0.1)
        x, y = batch()
        for _ in range(count):
            learner.backward(F.mse_loss(learner(x), y))
            optimizer.step()
            optimizer.zero_grad()

    whole, first, second = (started("tptt", network(), noise=0.3) for _ in range(3))
    steps(whole, 4)
    steps(first, 2)
    second.load_state_dict(first.state_dict())
    steps(second, 2)
    for mine, other in zip(whole.parameters(), second.parameters(), strict=True):
        assert torch.equal(mine, other)


@pytest.mark.parametrize("name", NAMES)
def test_other_networks_are_refused_by_what_they_are(name: str) -> None:
    gated = rnn((TIME, FEATURES), OUT, width=WIDTH, cell="gru")
    for given, got in (
        (gated, "Gated and Linear"),
        (nn.Sequential(nn.Linear(2, 2)), "Linear"),
        (nn.Linear(2, 2), "Linear"),
    ):
        with pytest.raises(UserError, match=f"^network: expected a recurrent layer of tanh units.* got {got}: use"):
            named(name).start(given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "numbers", "message"),
    [
        ("tptt", {"step": 0}, "^step: expected a number above 0, got 0"),
        ("tptt", {"noise": -1}, "^noise: expected a number, 0 or more"),
        ("tpri", {"regularization": -1}, "^regularization: "),
        ("tpri_linearized", {"margin": 1.0}, r"^margin: expected a number in \(0, 1\)"),
        ("tpri", {"noise": 0.1}, "^noise: there is no such setting"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(name: str, numbers: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        named(name).with_numbers(**numbers)


@pytest.mark.parametrize(
    ("name", "numbers", "left"),
    [
        ("tptt", {"noise": 0.05}, 0.2),
        ("tpri", {"regularization": 0.01}, 0.6),
        ("tpri_linearized", {"regularization": 0.1}, 0.8),
    ],
)
def test_it_learns_what_only_the_past_tells(name: str, numbers: dict[str, float], left: float) -> None:
    torch.manual_seed(0)
    x = torch.rand(400, 8, 1)
    y = x[:, 1] - x[:, 4]
    torch.manual_seed(0)
    net = rnn((8, 1), 1, width=20)
    learner = named(name).with_numbers(step=0.5, **numbers).start(net)
    optimizer = torch.optim.Adam(learner.optimizer_parameters(), lr=3e-3)
    for _ in range(400):
        learner.backward(F.mse_loss(learner(x), y))
        optimizer.step()
        optimizer.zero_grad()
    assert F.mse_loss(net(x), y) < left * y.var()
