"""Small fully connected networks and batches for tests that write a rule's equations down once more."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn


def tanh_network(sizes: Sequence[int]) -> nn.Sequential:
    """Linear layers with tanh between them, in float64, always the same."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for inputs, units in itertools.pairwise(sizes):
        layers += [nn.Linear(inputs, units), nn.Tanh()]
    return nn.Sequential(*layers[:-1]).double()


def random_batches(sizes: Sequence[int], steps: int, samples: int) -> list[tuple[Tensor, Tensor]]:
    """Inputs in float64 and labels for such a network, always the same."""
    torch.manual_seed(1)
    return [(torch.randn(samples, sizes[0]).double(), torch.randint(sizes[-1], (samples,))) for _ in range(steps)]
