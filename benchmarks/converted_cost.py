"""Step time and memory of a network that was converted from a module, beside the same layers as a Sequential.

    python benchmarks/converted_cost.py             a small VGG and an MLP, on this machine's threads
    python benchmarks/converted_cost.py --steps 40

Both learners have the same weights and train on the same batches by amortised DTP; their steps are interleaved, so that
other work on the machine meets both alike, and medians are compared. Memory is the peak of Python's own and torch's
allocations within a step, by the profiler, which counts instead of measuring: it is the same every time.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from targetprop import AMORTISED_DTP, Learner

IMAGE, CLASSES = (3, 32, 32), 10


class VGG(nn.Module):
    """Layers as attributes, functions between them, as most modules are written."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 32, 64, 128)
        self.convs = nn.ModuleList([nn.Conv2d(a, b, 3, padding=1) for a, b in itertools.pairwise(widths)])
        self.fc = nn.Linear(128 * 16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        for conv in self.convs:
            x = F.max_pool2d(F.elu(conv(x)), 2)
        return self.fc(torch.flatten(x, 1))

    def in_sequence(self) -> nn.Sequential:
        """The same layers, the same weights."""
        parts = [each for conv in self.convs for each in (conv, nn.ELU(), nn.MaxPool2d(2))]
        return nn.Sequential(*parts, nn.Flatten(), self.fc)


class MLP(nn.Module):
    """The same for dense layers."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2, self.fc3 = nn.Linear(3072, 512), nn.Linear(512, 512), nn.Linear(512, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.fc1(x.flatten(1)))
        return self.fc3(torch.tanh(self.fc2(x)))

    def in_sequence(self) -> nn.Sequential:
        """The same layers, the same weights."""
        return nn.Sequential(nn.Flatten(), self.fc1, nn.Tanh(), self.fc2, nn.Tanh(), self.fc3)


def step(learner: Learner, x: Tensor, y: Tensor) -> None:
    """One training step, without an optimiser."""
    learner.zero_grad()
    learner.backward(F.cross_entropy(learner(x), y))


def milliseconds(work: Callable[[], None]) -> float:
    """How long it takes, once."""
    start = time.perf_counter()
    work()
    return 1e3 * (time.perf_counter() - start)


def peak_memory(work: Callable[[], None]) -> float:
    """Most that torch held of what it allocated within it, MB."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        work()
    held = most = 0
    assert seen.profiler is not None
    for event in seen.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    return most / 1e6


def compare(make: type[VGG] | type[MLP], steps: int, batch: int) -> tuple[list[float], list[float]]:
    """Median time of a step and its peak memory, as a Sequential and converted."""
    learners = []
    for convert in (False, True):
        torch.manual_seed(0)
        module = make()
        learners.append(Learner(module if convert else module.in_sequence(), AMORTISED_DTP))
    x, y = torch.randn(batch, *IMAGE), torch.randint(CLASSES, (batch,))
    times: list[list[float]] = [[], []]
    for number in range(steps + 3):
        for which in (0, 1) if number % 2 else (1, 0):
            times[which].append(milliseconds(lambda which=which: step(learners[which], x, y)))  # type: ignore[misc]
    memory = [peak_memory(lambda each=each: step(each, x, y)) for each in learners]  # type: ignore[misc]
    return [statistics.median(each[3:]) for each in times], memory


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--batch", type=int, default=128)
    args = parser.parse_args()
    table = Table("network", "Sequential, ms", "converted, ms", "ratio", "Sequential, MB", "converted, MB", "ratio")
    for make in (VGG, MLP):
        times, memory = compare(make, args.steps, args.batch)
        ratios = times[1] / times[0], memory[1] / memory[0]
        numbers = [*times, ratios[0], *memory, ratios[1]]
        table.add_row(make.__name__, *(f"{each:.3g}" for each in numbers))
    Console().print(table)


if __name__ == "__main__":
    main()
