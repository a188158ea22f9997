"""Rules that are no sweep, as values and as what stands where a `Learner` does."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from targetprop import Trainable, UserError
from targetprop.learners import LEARNERS, named
from targetprop.learners.dense import DenseLearner

DENSE = ("counter_current", "lra_e")
"""Rules of fully connected blocks; those of recurrent layers have tests of their own."""
NETWORKS: dict[str, Callable[[], nn.Sequential]] = {
    "convolution": lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.ELU(), nn.Flatten(), nn.Linear(8, 3)),
    "normalised": lambda: nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.ELU(), nn.Linear(5, 3)),
    "dropout": lambda: nn.Sequential(nn.Linear(4, 5), nn.Dropout(), nn.Linear(5, 3)),
    "two in one": lambda: nn.Sequential(nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 5)), nn.Linear(5, 3)),
    "activation first": lambda: nn.Sequential(nn.ELU(), nn.Linear(4, 3)),
}


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 7), nn.ELU(), nn.Linear(7, 4))


def batch() -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.randn(9, 6), torch.randint(4, (9,))


def started(name: str, model: nn.Sequential | None = None) -> DenseLearner:
    torch.manual_seed(3)
    learner: Trainable = named(name).start(network() if model is None else model)
    assert isinstance(learner, DenseLearner)
    return learner


def train(learner: DenseLearner, steps: int = 2) -> None:
    optimizer = torch.optim.SGD(learner.optimizer_parameters(), lr=0.1)
    x, y = batch()
    for _ in range(steps):
        learner.backward(F.cross_entropy(learner(x), y), labels=y)
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("name", DENSE)
def test_a_rule_is_a_value_with_its_source_and_its_needs(name: str) -> None:
    rule = named(name)
    assert rule is LEARNERS[name]
    assert rule.with_numbers(**rule.numbers) == rule
    assert rule.source.url.startswith("https://")
    assert started(name).needs is rule.needs


def test_names_of_no_rule_are_answered_with_the_nearest() -> None:
    with pytest.raises(UserError, match=r"^rule: unknown value 'lrae'\. Did you mean 'lra_e'\?"):
        named("lrae")


@pytest.mark.parametrize("model", NETWORKS)
@pytest.mark.parametrize("name", DENSE)
def test_networks_that_their_equations_are_not_known_for_are_refused(name: str, model: str) -> None:
    with pytest.raises(UserError, match=r"^network: expected blocks of one linear layer .*, got block \d"):
        started(name, NETWORKS[model]())


@pytest.mark.parametrize("name", DENSE)
def test_outputs_are_those_of_the_network_in_training_and_in_evaluation(name: str) -> None:
    learner, (x, _) = started(name), batch()
    expected = network()(x)
    torch.testing.assert_close(learner(x), expected)
    torch.testing.assert_close(learner.eval()(x), expected)


@pytest.mark.parametrize("name", DENSE)
def test_a_gradient_by_another_way_than_backward_is_refused(name: str) -> None:
    learner, (x, y) = started(name), batch()
    with pytest.raises(UserError, match=r"use learner\.backward\(loss\)"):
        F.cross_entropy(learner(x), y).backward()


@pytest.mark.parametrize("name", DENSE)
def test_backward_wants_a_forward_pass_of_the_same_batch_and_weights(name: str) -> None:
    learner, (x, y) = started(name), batch()
    with pytest.raises(UserError, match="call the learner on a batch first"):
        learner.backward(torch.zeros(()), labels=y)
    loss = F.cross_entropy(learner(x), y)
    x.add_(1)
    with pytest.raises(UserError, match="the batch was changed"):
        learner.backward(loss, labels=y)
    loss = F.cross_entropy(learner(x), y)
    with torch.no_grad():
        learner.optimizer_parameters()[0].add_(1)
    with pytest.raises(UserError, match="a weight was changed"):
        learner.backward(loss, labels=y)
    with pytest.raises(UserError, match=r"give it x\.detach\(\)"):
        learner(x.requires_grad_())
    with pytest.raises(UserError, match=r"^input: expected a batch"):
        learner(torch.randn(6))


@pytest.mark.parametrize("name", DENSE)
def test_gradients_add_up_and_frozen_weights_get_none(name: str) -> None:
    learner, (x, y) = started(name), batch()
    frozen = learner.optimizer_parameters()[0].requires_grad_(False)
    learner.backward(F.cross_entropy(learner(x), y), labels=y)
    last = learner.network.forward_parameters()[-1]
    assert last.grad is not None
    first = last.grad.clone()
    learner.backward(F.cross_entropy(learner(x), y), labels=y)
    assert frozen.grad is None
    assert float(last.grad.norm()) > 1.5 * float(first.norm())


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda learner: pickle.loads(pickle.dumps(learner))])
@pytest.mark.parametrize("name", DENSE)
def test_a_copy_goes_on_as_the_original_and_by_itself(
    name: str, duplicate: Callable[[DenseLearner], DenseLearner]
) -> None:
    learner = started(name)
    train(learner)
    learner(batch()[0])  # which waits for its backward
    copied, before = duplicate(learner), [p.detach().clone() for p in learner.parameters()]
    train(copied)
    assert all(torch.equal(p, q) for p, q in zip(learner.parameters(), before, strict=True))
    train(learner)
    assert all(torch.equal(p, q) for p, q in zip(learner.parameters(), copied.parameters(), strict=True))


@pytest.mark.parametrize("name", DENSE)
def test_it_learns(name: str) -> None:
    learner, (x, y) = started(name), batch()

    @torch.no_grad()
    def loss() -> float:
        return float(F.cross_entropy(learner.eval()(x), y))

    before = loss()
    train(learner.train(), 300)
    assert loss() < 0.6 * before
