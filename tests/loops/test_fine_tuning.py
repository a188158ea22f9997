"""Training goes on from a state that was loaded, before or after the learner was made, and with another head."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from loop_cases import RULES, Branched, learner_of, mlp, weights
from torch import Tensor, nn

from targetprop import Learner, UserError

NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "vectors": (mlp, (8, 20)),
    "branches": (Branched, (8, 3, 6, 6)),
}


def step(learner: Learner, x: Tensor, y: Tensor) -> None:
    learner.zero_grad()
    learner.backward(F.cross_entropy(learner(x), y))
    torch.optim.SGD(learner.optimizer_parameters(), lr=0.05).step()


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("assign", [False, True])
@pytest.mark.parametrize("name", RULES)
def test_a_state_may_be_loaded_before_or_after_the_learner_is_made(name: str, assign: bool, network: str) -> None:
    make, shape = NETWORKS[network]
    x, y = torch.randn(shape), torch.randint(10, shape[:1])
    pretrained, base = make(), make()
    state = copy.deepcopy(pretrained.state_dict())
    before = learner_of(pretrained, name)
    after = learner_of(base, name)
    own = after.network.owners[0]
    own.load_state_dict(copy.deepcopy(state), assign=assign)
    assert own.state_dict().keys() == state.keys()
    with torch.no_grad():
        torch.testing.assert_close(after.eval()(x), pretrained.eval()(x))
    after.train()
    for _ in range(2):
        step(before, x, y)
        step(after, x, y)
    # Feedback drawn beside other forward weights is the same: it is drawn without a look at them.
    torch.testing.assert_close(weights(after), weights(before), rtol=1e-4, atol=1e-5)


def test_a_state_loaded_between_both_calls_is_noticed() -> None:
    network, x, y = mlp(), torch.randn(8, 20), torch.randint(10, (8,))
    learner = Learner(network, "amortised_dtp")
    loss = F.cross_entropy(learner(x), y)
    network.load_state_dict(mlp().state_dict())
    with pytest.raises(UserError, match="a weight was changed since the forward pass"):
        learner.backward(loss)


def other_head(network: Any) -> nn.Module:
    if isinstance(network, nn.Sequential):
        network[-1] = nn.Linear(12, 3)
    else:
        network.last = nn.Linear(6, 3)
    return network


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("name", RULES)
def test_another_head_needs_another_learner_and_then_learns(name: str, network: str) -> None:
    make, shape = NETWORKS[network]
    x, y = torch.randn(shape), torch.randint(3, shape[:1])
    learner = learner_of(make(), name)
    step(learner, x, y)
    own = other_head(learner.network.owners[0])
    with pytest.raises(UserError, match="make a new Learner of it"):
        learner(x)
    body = [p.detach().clone() for p in own.parameters()][:2]
    again = learner_of(own, name)
    assert all(torch.equal(*pair) for pair in zip(body, again.network.owners[0].parameters(), strict=False))
    before = weights(again.network.owners[0])
    step(again, x, y)
    assert again(x).shape == (8, 3)
    assert not torch.equal(before, weights(again.network.owners[0]))


def test_the_feedback_alone_learns_the_network_that_was_loaded() -> None:
    learner, x = learner_of(mlp(), "dtp"), torch.randn(8, 20)
    network = learner.network.owners[0]
    matrices = [p for p in learner.network.feedback_parameters() if p.dim() > 1]
    forward, before = weights(network), [p.clone() for p in matrices]
    for _ in range(3):
        learner.learn_feedback(x)
    assert torch.equal(forward, weights(network))
    assert not any(torch.equal(*pair) for pair in zip(before, matrices, strict=True))
