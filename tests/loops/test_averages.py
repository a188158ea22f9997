"""Averages of weights (EMA, SWA) by torch's own tool, of the user's module and of the learner."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from loop_cases import RULES, Branched, batches, learner_of, mlp
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn

from targetprop import Learner, hooked

DECAY = 0.7


def images() -> list[tuple[Tensor, Tensor]]:
    return [(torch.randn(8, 3, 6, 6), torch.randint(10, (8,))) for _ in range(4)]


NETWORKS: dict[str, tuple[Callable[[], nn.Module], Callable[[], list[tuple[Tensor, Tensor]]]]] = {
    "vectors": (mlp, batches),
    "images": (Branched, images),
}


def averaged_by_hand(history: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    found = history[0]
    for state in history[1:]:
        found = {key: DECAY * found[key] + (1 - DECAY) * each for key, each in state.items()}
    return found


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("of", ["network", "learner", "hooked learner"])
@pytest.mark.parametrize("name", RULES)
def test_an_average_is_that_of_the_weights_and_training_does_not_see_it(name: str, of: str, network: str) -> None:
    make, data = NETWORKS[network]
    base, steps = make(), data()
    torch.manual_seed(2)
    learner, alone = learner_of(base, name), learner_of(base, name)
    if of == "hooked learner":
        hooked(learner)
    module = learner.network.owners[0]
    average = AveragedModel(module if of == "network" else learner, multi_avg_fn=get_ema_multi_avg_fn(DECAY))
    optimizers = [torch.optim.SGD(each.optimizer_parameters(), lr=0.02) for each in (learner, alone)]
    history: list[dict[str, Tensor]] = []
    for x, y in steps:
        for each, optimizer in zip((learner, alone), optimizers, strict=True):
            optimizer.zero_grad()
            each.backward(F.cross_entropy(each(x), y))
            optimizer.step()
        average.update_parameters(module if of == "network" else learner)
        history.append({key: p.detach().clone() for key, p in module.named_parameters()})
    reference = make()
    reference.load_state_dict({**module.state_dict(), **averaged_by_hand(history)})
    update_bn([x for x, _ in steps], average)
    update_bn([x for x, _ in steps], reference)
    with torch.no_grad():
        torch.testing.assert_close(average.eval()(steps[0][0]), reference.eval()(steps[0][0]), rtol=1e-4, atol=1e-5)
    for mine, other in zip(learner.parameters(), alone.parameters(), strict=True):
        assert torch.equal(mine, other)


def test_an_averaged_learner_is_saved_and_loaded() -> None:
    learner, ((x, y),) = learner_of(mlp(), "dtp"), batches(1)
    average = AveragedModel(learner)
    learner.backward(F.cross_entropy(learner(x), y))
    average.update_parameters(learner)
    other: Any = AveragedModel(copy.deepcopy(learner))
    other.load_state_dict(average.state_dict())
    for mine, its in zip(average.parameters(), other.parameters(), strict=True):
        assert torch.equal(mine, its)
    inside: Any = other.module
    assert isinstance(inside, Learner)
    inside.backward(F.cross_entropy(inside(x), y))
