"""Data sets as users write them, for runs by their import path."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

Pair = tuple[Tensor, int]


class Blobs(Dataset[Pair]):
    """Vectors around one point for each of three classes, made one by one."""

    def __init__(self, count: int, shape: tuple[int, ...], seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        centres = 2 * torch.randn(3, *shape, generator=torch.Generator().manual_seed(99))
        self.labels = torch.arange(count) % 3
        self.inputs = centres[self.labels] + torch.randn(count, *shape, generator=generator)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, number: int) -> Pair:
        return self.inputs[number], int(self.labels[number])


def vectors(count: int = 300) -> tuple[Blobs, Blobs]:
    return Blobs(count, (5,), 0), Blobs(90, (5,), 1)


def without_test() -> Blobs:
    return Blobs(300, (5,), 0)


def sequences() -> tuple[DataLoader[Pair], Blobs]:
    """Sequences of seven vectors."""
    return DataLoader(Blobs(300, (7, 4), 0), batch_size=8, shuffle=True), Blobs(90, (7, 4), 1)


def images() -> tuple[Blobs, Blobs]:
    return Blobs(300, (2, 8, 8), 0), Blobs(90, (2, 8, 8), 1)


def numbers() -> tuple[TensorDataset, TensorDataset]:
    """Sums of the halves of vectors."""
    x = torch.randn(700, 6, generator=torch.Generator().manual_seed(0))
    y = torch.stack([x[:, :3].sum(1), x[:, 3:].sum(1)], 1)
    return TensorDataset(x[:600], y[:600]), TensorDataset(x[600:], y[600:])


def one_number() -> TensorDataset:
    """A number each, without a dimension of its own."""
    x = torch.randn(700, 6, generator=torch.Generator().manual_seed(0))
    return TensorDataset(x, 1000 + x.sum(1))


class Stream(IterableDataset[Pair]):
    def __iter__(self) -> Iterator[Pair]:
        return iter([(torch.zeros(5), 0)])


def stream() -> Stream:
    return Stream()


def labels_out_of_range() -> TensorDataset:
    return TensorDataset(torch.randn(300, 5), torch.arange(300) % 3 - 1)


def failing() -> None:
    raise FileNotFoundError("data.csv")
