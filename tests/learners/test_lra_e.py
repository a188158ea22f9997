"""LRA-E, beside its equations in plain torch, and what it comes to where its numbers are small."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from targetprop import UserError
from targetprop.learners.lra_e import LRAE, LRAELearner
from targetprop.measure import block_gradients

SIZES, STEPS = (6, 9, 8, 4), 5


def network(bias: bool = True) -> nn.Sequential:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for inputs, units in itertools.pairwise(SIZES):
        layers += [nn.Linear(inputs, units, bias), nn.Tanh()]
    return nn.Sequential(*layers[:-1]).double()


def batches() -> list[tuple[Tensor, Tensor]]:
    torch.manual_seed(1)
    return [(torch.randn(7, SIZES[0]).double(), torch.randint(SIZES[-1], (7,))) for _ in range(STEPS)]


def learner_of(rule: LRAE) -> LRAELearner:
    torch.manual_seed(2)
    return rule.start(network()).double()


@pytest.mark.parametrize("rule", [LRAE(), LRAE(beta=0.7, gamma=0.3, error_std=0.5)])
def test_every_weight_is_as_by_its_equations(rule: LRAE) -> None:
    learner, rate = learner_of(rule), 0.3
    optimizer = torch.optim.SGD(learner.optimizer_parameters(), lr=rate)
    own = [p.detach().clone() for p in learner.network.forward_parameters()]
    w, b = own[::2], own[1::2]
    e_weights = [p.detach().clone() for p in learner.network.feedback_parameters()]
    assert [tuple(p.shape) for p in e_weights] == [(9, 8), (8, 4)]
    for x, y in batches():
        step = learner.backward(F.cross_entropy(learner(x), y), keep=True)
        optimizer.step()
        optimizer.zero_grad()

        z1 = x @ w[0].T + b[0]
        z2 = z1.tanh() @ w[1].T + b[1]
        z3 = z2.tanh() @ w[2].T + b[2]
        e3 = z3.softmax(1) - F.one_hot(y, 4)
        y2 = (z2 - rule.beta * e3 @ e_weights[1].T).tanh()
        e2 = z2.tanh() - y2
        y1 = (z1 - rule.beta * e2 @ e_weights[0].T).tanh()
        e1 = z1.tanh() - y1
        gradients = [e.T @ h / 7 for e, h in ((e1, x), (e2, z1.tanh()), (e3, z2.tanh()))]
        for each, target in zip(step.targets, (y1, y2, z3 - e3), strict=True):
            torch.testing.assert_close(each, target, rtol=1e-9, atol=1e-12)
        for number, (gradient, e) in enumerate(zip(gradients, (e1, e2, e3), strict=True)):
            w[number] -= rate * gradient
            b[number] -= rate * e.mean(0)
            if number:
                e_weights[number - 1] -= rate * rule.gamma * gradient.T
        mine = [*learner.network.forward_parameters(), *learner.network.feedback_parameters()]
        for one, other in zip(mine, [*own, *e_weights], strict=True):
            torch.testing.assert_close(one.detach(), other, rtol=1e-9, atol=1e-11)
    assert float((own[0] - next(network().parameters()).detach()).abs().max()) > 1e-5


def test_with_transposed_weights_and_a_small_step_updates_are_powers_of_it_times_those_of_backprop() -> None:
    beta = 1e-5
    learner, reference = learner_of(LRAE(beta=beta)), network()
    with torch.no_grad():
        for pair in learner.network.trained:
            for weight, error_weight in pair.weights():
                error_weight.copy_(weight)
    (x, y), *_ = batches()
    learner.backward(F.cross_entropy(learner(x), y))
    F.cross_entropy(reference(x), y).backward()
    expected = iter(p.grad for p in reference.parameters())
    for number, update in enumerate(block_gradients(learner.network)):
        gradient = torch.cat([g.flatten() for g in (next(expected), next(expected)) if g is not None])
        torch.testing.assert_close(
            update, beta ** (2 - number) * gradient, rtol=1e-3, atol=1e-4 * float(update.abs().max())
        )


@pytest.mark.parametrize("decay", [0.0, 0.2])
def test_with_gamma_one_error_weights_take_the_updates_of_the_transposed_weights(decay: float) -> None:
    """What decay leaves of their difference, in every step, is the same as of Kolen-Pollack's."""
    learner, rate = learner_of(LRAE(beta=0.5)), 0.3
    optimizer = torch.optim.SGD(learner.optimizer_parameters(), lr=rate, weight_decay=decay)
    for x, y in batches():
        before = [w - e for pair in learner.network.trained for w, e in pair.weights()]
        learner.backward(F.cross_entropy(learner(x), y))
        optimizer.step()
        optimizer.zero_grad()
        after = [w - e for pair in learner.network.trained for w, e in pair.weights()]
        for now, then in zip(after, before, strict=True):
            torch.testing.assert_close(now, (1 - rate * decay) * then, rtol=1e-12, atol=1e-14)


def test_error_weights_begin_with_their_standard_deviation() -> None:
    torch.manual_seed(0)
    learner = LRAE(error_std=0.3).start(nn.Sequential(nn.Linear(4, 90), nn.Tanh(), nn.Linear(90, 80), nn.Linear(80, 5)))
    for each in learner.network.feedback_parameters():
        assert float(each.std()) == pytest.approx(0.3, rel=0.1)


@pytest.mark.parametrize(
    ("key", "value"),
    [("beta", 0), ("beta", True), ("gamma", -1), ("gamma", "1"), ("error_std", 0), ("error_std", None)],
)
def test_bad_numbers_are_refused_by_key(key: str, value: object) -> None:
    with pytest.raises(UserError, match=f"^{key}: expected a number.*, got "):
        LRAE().with_numbers(**{key: value})


def test_an_output_behind_an_activation_is_refused() -> None:
    with pytest.raises(UserError, match=r"^network: LRA-E starts at a linear output"):
        LRAE().start(nn.Sequential(nn.Linear(4, 5), nn.Tanh()))


def test_it_refuses_bfloat16_in_which_its_differences_vanish() -> None:
    learner = LRAE().start(nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)))
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(UserError, match=r"^autocast: "):
        learner(torch.randn(3, 4))
