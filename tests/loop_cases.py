"""What tests of other people's loops share: a network, batches, and the plain loop to compare with."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from targetprop import ALGORITHMS, Learner

Batch = tuple[Tensor, Tensor]
RULES = ["dtp", "amortised_dtp", "delta_mirror", "kolen_pollack", "lee_dtp"]
SGD: dict[str, Any] = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}


def mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(20, 16), nn.ELU(), nn.Linear(16, 12), nn.Tanh(), nn.Linear(12, 10))


class Branched(nn.Module):
    """Convolutions with a path beside one, and normalisation."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.norm, self.last = nn.BatchNorm2d(6), nn.Linear(6, 10)

    def forward(self, x: Tensor) -> Tensor:
        h = F.elu(self.first(x))
        return self.last(F.elu(self.norm(self.second(h)) + h).mean((2, 3)))


def batches(count: int = 6, samples: int = 8) -> list[Batch]:
    return [(torch.randn(samples, 20), torch.randint(10, (samples,))) for _ in range(count)]


def learner_of(base: nn.Module, name: str) -> Learner:
    """With few iterations, and the same first weights of the feedback whenever it is made."""
    algorithm = ALGORITHMS[name]
    if "feedback_training_iterations" in algorithm.numbers:
        algorithm = algorithm.with_numbers(feedback_training_iterations=2)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return Learner(copy.deepcopy(base), algorithm)


def weights(module: nn.Module) -> Tensor:
    """All of them, those of the feedback too."""
    return torch.cat([p.detach().flatten() for p in module.parameters()])


def plain_loop(
    learner: Learner, data: Sequence[Batch], *, every: int = 1, model: Callable[[Tensor], Tensor] | None = None
) -> Tensor:
    """Weights after a step for each so many batches, by `learner.backward`."""
    optimizer = torch.optim.SGD(learner.optimizer_parameters(), **SGD)
    for number, (x, y) in enumerate(data, start=1):
        learner.backward(F.cross_entropy((model or learner)(x), y) / every)
        if number % every == 0:
            optimizer.step()
            optimizer.zero_grad()
    return weights(learner)
