"""Frozen parts of a network never change, and all others get the gradients that they get where nothing is frozen."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import pytest
import torch
import torch.nn.functional as F
from loop_cases import RULES, Branched, learner_of, mlp
from torch import Tensor, nn

from targetprop import Learner
from targetprop.baselines.backprop import Backprop

Choice = Callable[[Sequence[nn.Parameter]], Sequence[nn.Parameter]]
PARTS: dict[str, Choice] = {
    "the first block": lambda all_: all_[:2],
    "a middle block": lambda all_: all_[2:4],
    "the last block": lambda all_: all_[-2:],
    "all but the last": lambda all_: all_[:-2],
    "all but the first": lambda all_: all_[2:],
    "biases": lambda all_: [each for each in all_ if each.dim() == 1],
    "matrices": lambda all_: [each for each in all_ if each.dim() > 1],
}


def convolutions() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ELU(), nn.MaxPool2d(2), nn.Conv2d(6, 6, 3), nn.ELU(),
        nn.Flatten(), nn.Linear(6, 10),
    )  # fmt: skip


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "vectors": (mlp, (8, 20)),
    "convolutions": (convolutions, (8, 3, 6, 6)),
    "branches": (Branched, (8, 3, 6, 6)),
}


def freeze(network: nn.Module, part: str) -> None:
    for each in PARTS[part](list(network.parameters())):
        each.requires_grad_(False)


def made(base: nn.Module, name: str) -> Learner | Backprop:
    return Backprop(copy.deepcopy(base)) if name == "backprop" else learner_of(base, name)


def gradients(network: nn.Module, learner: Learner | Backprop, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    learner.backward(F.cross_entropy(learner(x), y))
    return {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("name", [*RULES, "backprop"])
def test_frozen_weights_stay_and_all_others_learn_as_ever(name: str, when: str, part: str, network: str) -> None:
    make, shape = NETWORKS[network]
    base, x, y = make(), torch.randn(shape), torch.randint(10, shape[:1])
    free = made(base, name)
    expected = gradients(free.network.owners[0], free, x, y)
    if when == "before":
        freeze(base, part)
    learner = made(base, name)
    own = learner.network.owners[0]
    if when == "after":
        freeze(own, part)
    frozen = {name: each.clone() for name, each in own.named_parameters() if not each.requires_grad}
    optimizer = torch.optim.SGD(learner.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    found = gradients(own, learner, x, y)
    assert found.keys() == expected.keys() - frozen.keys()
    for key, each in found.items():
        scale = float(expected[key].abs().max())
        torch.testing.assert_close(each, expected[key], rtol=1e-4, atol=1e-5 * scale + 1e-8)
    before = {key: each.clone() for key, each in own.named_parameters()}
    for _ in range(2):
        optimizer.step()
        optimizer.zero_grad()
        gradients(own, learner, x, y)
    for key, each in own.named_parameters():
        assert torch.equal(each, before[key]) == (key in frozen)


@pytest.mark.parametrize("name", [*RULES, "backprop"])
def test_thawed_weights_learn(name: str) -> None:
    base, x, y = mlp(), torch.randn(8, 20), torch.randint(10, (8,))
    freeze(base, "all but the last")
    learner = made(base, name)
    own = learner.network.owners[0]
    assert len(gradients(own, learner, x, y)) == 2
    own.requires_grad_(True)
    assert len(gradients(own, learner, x, y)) == 6


def test_feedback_learns_where_forward_weights_are_frozen() -> None:
    """It has to follow what it is the feedback of, whether or not that changes."""
    base, x, y = mlp(), torch.randn(8, 20), torch.randint(10, (8,))
    freeze(base, "a middle block")
    learner = learner_of(base, "dtp")
    matrices = [p for p in learner.network.feedback_parameters() if p.dim() > 1]
    before = [p.clone() for p in matrices]
    gradients(base, learner, x, y)
    assert not any(torch.equal(*pair) for pair in zip(before, matrices, strict=True))
