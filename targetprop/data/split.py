"""Holding out a random part of a data set, in which every class, if there are any, keeps its share."""

from __future__ import annotations

import torch
from torch import Tensor


def stratified_split(labels: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Divide a set in two parts in which every class keeps its share.

    Args:
        labels: int64 (N,), on the CPU.
        count: how many images are held out. Each class gives its share of them, rounded down or up.
        generator: draws which.

    Returns:
        Indices of those kept and of those held out, each ascending, disjoint, together all of range(N).
    """
    shuffled = torch.randperm(len(labels), generator=generator)
    by_class = shuffled[labels[shuffled].argsort(stable=True)]
    sizes = labels.bincount()
    rank = torch.arange(len(labels)) - (sizes.cumsum(0) - sizes)[labels[by_class]]
    held = rank < _quotas(sizes, count)[labels[by_class]]
    return by_class[~held].sort().values, by_class[held].sort().values


def random_split(total: int, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Divide range(total) in two parts at random, the second one of `count`; returned as by `stratified_split`."""
    shuffled = torch.randperm(total, generator=generator)
    return shuffled[count:].sort().values, shuffled[:count].sort().values


def _quotas(sizes: Tensor, count: int) -> Tensor:
    """How many of `count` each class gives: the largest remainders are rounded up until the sum is right."""
    total = int(sizes.sum())
    quotas = sizes * count // total
    remainders = sizes * count % total
    short = count - int(quotas.sum())
    quotas[remainders.argsort(descending=True, stable=True)[:short]] += 1
    return quotas
