"""Counter-current learning, beside its equations in plain torch, and as a learner among the others."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from targetprop import OptimizerSpec, UserError
from targetprop.learners.counter_current import CounterCurrent, CounterCurrentLearner
from targetprop.models import mlp

SIZES, STEPS = (6, 9, 8, 4), 5
RULES = {
    "published": CounterCurrent(),
    "not clipped": CounterCurrent(scale=0.01, clip=1e6),
    "momentum": CounterCurrent(b_optim=OptimizerSpec("sgd", lr=0.3, momentum=0.9)),
}


def network(bias: bool = False) -> nn.Sequential:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for inputs, units in itertools.pairwise(SIZES):
        layers += [nn.Linear(inputs, units, bias), nn.ELU()]
    return nn.Sequential(*layers[:-1]).double()


def batches() -> list[tuple[Tensor, Tensor]]:
    torch.manual_seed(1)
    return [(torch.randn(7, SIZES[0]).double(), torch.randint(SIZES[-1], (7,))) for _ in range(STEPS)]


def learner_of(rule: CounterCurrent, bias: bool = False) -> CounterCurrentLearner:
    torch.manual_seed(2)
    return rule.start(network(bias)).double()


def losses(rule: CounterCurrent, up: list[Tensor], down: list[Tensor], x: Tensor, y: Tensor) -> Tensor:
    """All of them, summed: the equations with their stop-gradients, V_l of shape (n_{l-1}, n_l)."""
    a, c = [x], [torch.eye(SIZES[-1]).double()]
    for number, w in enumerate(up):
        z = a[-1].detach() @ w.T
        a.append(z if number == len(up) - 1 else F.elu(z))
    for number in range(len(down) - 1, -1, -1):
        z = c[0].detach() @ down[number].T
        c.insert(0, F.elu(z) if number else z)
    total = F.cross_entropy(a[-1], y)
    for n, above, below in zip(SIZES, a[:-1], c[:-1], strict=False):
        total = total + rule.scale * 256 / n * F.mse_loss(above @ below.T, F.one_hot(y, SIZES[-1]).double())
    return total


def step(learner: CounterCurrentLearner, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor) -> None:
    learner.backward(F.cross_entropy(learner(x), y), labels=y)
    optimizer.step()
    optimizer.zero_grad()


def down_weights(learner: CounterCurrentLearner) -> list[Tensor]:
    return [p.detach() for p in learner.network.feedback_parameters()]


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_every_weight_is_as_by_its_equations(rule: CounterCurrent) -> None:
    learner = learner_of(rule)
    optimizer = torch.optim.SGD(learner.optimizer_parameters(), lr=1.0)
    up = [p.detach().clone().requires_grad_() for p in learner.network.forward_parameters()]
    down = [p.clone().requires_grad_() for p in down_weights(learner)]
    assert [tuple(p.shape) for p in down] == list(itertools.pairwise(SIZES))
    both = [torch.optim.SGD(up, lr=1.0), torch.optim.SGD(down, rule.b_optim.lr, rule.b_optim.momentum)]  # type: ignore[arg-type]
    for x, y in batches():
        step(learner, optimizer, x, y)
        losses(rule, up, down, x, y).backward()
        for each, parameters in zip(both, (up, down), strict=True):
            torch.nn.utils.clip_grad_norm_(parameters, rule.clip)
            each.step()
            each.zero_grad()
        mine = [*learner.network.forward_parameters(), *down_weights(learner)]
        for one, other in zip(mine, [*up, *down], strict=True):
            torch.testing.assert_close(one.detach(), other.detach(), rtol=1e-9, atol=1e-11)
    assert not torch.allclose(up[0].detach(), next(network().parameters()).detach(), atol=1e-2)


def test_a_bias_learns_with_the_weights_that_it_stands_beside() -> None:
    learner = learner_of(CounterCurrent(scale=0.01, clip=1e6), bias=True)
    (x, y), *_ = batches()
    learner.backward(F.cross_entropy(learner(x), y), labels=y)
    weight, bias = learner.network.forward_parameters()[:2]
    assert weight.grad is not None
    assert bias.grad is not None
    assert float(bias.grad.abs().max()) > 0


def test_gradients_of_either_direction_have_the_norm_clip_at_most() -> None:
    learner = learner_of(CounterCurrent(scale=50.0, clip=0.5))
    before = down_weights(learner)[0].clone(), down_weights(learner)[1].clone(), down_weights(learner)[2].clone()
    (x, y), *_ = batches()
    learner.backward(F.cross_entropy(learner(x), y), labels=y)
    up = torch.cat([p.grad.flatten() for p in learner.network.forward_parameters() if p.grad is not None])
    moved = torch.cat([(now - then).flatten() for now, then in zip(down_weights(learner), before, strict=True)])
    assert float(up.norm()) == pytest.approx(0.5, rel=1e-4)
    assert float(moved.norm()) == pytest.approx(0.5, rel=1e-4)  # at the rate 1


def test_activations_of_both_directions_come_to_meet() -> None:
    """What its losses ask for: a hidden layer is most similar to what comes down from the right class."""
    learner = learner_of(CounterCurrent(b_optim=OptimizerSpec("sgd", lr=0.05)))
    optimizer = torch.optim.SGD(learner.optimizer_parameters(), lr=0.05)
    torch.manual_seed(5)
    centres = 2 * torch.randn(SIZES[-1], SIZES[0]).double()
    y = torch.randint(SIZES[-1], (200,))
    x = centres[y] + 0.3 * torch.randn(200, SIZES[0]).double()
    for _ in range(400):
        step(learner, optimizer, x, y)
    c = learner._counter_current(torch.eye(SIZES[-1]).double())
    hidden = x
    for pair, down in zip(learner.network.pairs[:-1], c[1:], strict=True):
        hidden = pair.block(hidden)
        assert float(((hidden @ down.T).argmax(1) == y).double().mean()) > 0.95
    assert float((learner(x).argmax(1) == y).double().mean()) > 0.95


def test_no_error_crosses_a_block() -> None:
    """Only the output block is told of the loss."""
    (x, y), *_ = batches()
    gradients = []
    for factor in (1.0, 100.0):
        learner = learner_of(CounterCurrent(clip=1e6))
        learner.backward(factor * F.cross_entropy(learner(x), y), labels=y)
        gradients.append([p.grad for p in learner.network.forward_parameters()])
    for one, other in list(zip(*gradients, strict=True))[:-1]:
        assert one is not None
        torch.testing.assert_close(one, other)
    assert gradients[0][-1] is not None
    torch.testing.assert_close(100 * gradients[0][-1], gradients[1][-1])


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_it_goes_on_from_a_state_as_if_nothing_had_been(momentum: float) -> None:
    rule = CounterCurrent(b_optim=OptimizerSpec("sgd", lr=0.3, momentum=momentum))
    whole, other = learner_of(rule), rule.start(network()).double()
    rate = torch.optim.SGD(whole.optimizer_parameters(), lr=0.5)
    for x, y in batches():
        step(whole, rate, x, y)
    state = copy.deepcopy(whole.state_dict())
    other.load_state_dict(state)
    for x, y in batches():
        step(whole, rate, x, y)
        step(other, torch.optim.SGD(other.optimizer_parameters(), lr=0.5), x, y)
    for one, two in zip(whole.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, two)
    assert all(torch.equal(state[key], copied) for key, copied in state.items() if isinstance(copied, Tensor))


def test_its_rate_is_its_own_again_where_a_state_brought_another() -> None:
    first = CounterCurrent(b_optim=OptimizerSpec("sgd", lr=0.3)).start(network())
    second = CounterCurrent(b_optim=OptimizerSpec("sgd", lr=0.1)).start(network())
    second.load_state_dict(first.state_dict())
    assert second.optimizer.param_groups[0]["lr"] == 0.3
    second.use_own_numbers()
    assert second.optimizer.param_groups[0]["lr"] == 0.1


def test_a_state_of_another_rule_is_refused() -> None:
    learner = learner_of(CounterCurrent())
    state = learner.state_dict()
    state["_extra_state"] = {"rule": "another"}
    with pytest.raises(UserError, match="the state is of another; this learner is of counter-current learning"):
        learner.load_state_dict(state)


@pytest.mark.parametrize("key", ["scale", "clip"])
@pytest.mark.parametrize("value", [0, -1, float("nan"), True, "1", None])
def test_bad_numbers_are_refused_by_key(key: str, value: object) -> None:
    with pytest.raises(UserError, match=f"^{key}: expected a number above 0, got "):
        CounterCurrent().with_numbers(**{key: value})


def test_what_it_has_no_number_of_is_answered_with_the_nearest() -> None:
    with pytest.raises(UserError, match=r"^sclae: there is no such setting\. Did you mean 'scale'\?"):
        CounterCurrent().with_numbers(sclae=1)
    with pytest.raises(UserError, match=r"^b_optim\.lr: expected one number"):
        CounterCurrent(b_optim=OptimizerSpec(lr=[0.1, 0.2]))


@pytest.mark.parametrize("labels", [None, torch.zeros(7), torch.zeros(7, 4).long(), torch.zeros(3).long()])
def test_it_needs_labels(labels: Tensor | None) -> None:
    learner = learner_of(CounterCurrent())
    (x, y), *_ = batches()
    with pytest.raises(UserError, match=r"^labels: counter-current learning needs the labels"):
        learner.backward(F.cross_entropy(learner(x), y), labels=labels)


def test_images_are_flattened_and_other_activations_are_those_of_the_layer_below() -> None:
    torch.manual_seed(0)
    learner = CounterCurrent().start(mlp((1, 4, 4), 3, (5, 6), "tanh"))
    x, y = torch.randn(4, 1, 4, 4), torch.tensor([0, 1, 2, 0])
    found = learner.backward(F.cross_entropy(learner(x), y), labels=y, keep=True)
    assert [tuple(each.shape) for each in found.outputs] == [(4, 5), (4, 6), (4, 3)]
    assert (len(found.feedback_losses), len(found.local_losses)) == (3, 3)
    counter_current = learner._counter_current(torch.eye(3))
    assert [tuple(each.shape) for each in counter_current] == [(3, 16), (3, 5), (3, 6)]
    v = learner.network.feedback_parameters()
    torch.testing.assert_close(counter_current[2], v[2].T.tanh())
    torch.testing.assert_close(counter_current[0], counter_current[1] @ v[0].T)
