"""A process of `compare_editions.py`: training steps by the edition of the package that PYTHONPATH names.

It reads a JSON command a line, and answers each by a line: {"make": mode, "network": name, "batch": ..., "iterations":
...} prepares steps, makes some and answers with the norm of a gradient; {"step": true} makes one and answers with its
seconds. Nothing here is imported from the other benchmarks, which are written for one edition only.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

import targetprop

FIRST = not hasattr(targetprop, "Algorithm")
"""Whether this is the first edition."""
IMAGE, CLASSES = (3, 32, 32), 10
WARM_UP = 2
CHANNELS = {"full": (128, 128, 256, 256, 512), "small": (32, 32, 64, 64, 128), "tiny": (4, 8)}
"""Of the networks: as `cases.NETWORKS` has them, by layers of torch."""


def part(first: str, second: str) -> Any:
    """A module of the package, by where it stands in the first and in the second edition."""
    return importlib.import_module(f"targetprop.{first if FIRST else second}")


def vgg(channels: tuple[int, ...]) -> nn.Sequential:
    """Blocks of convolution, ELU and pooling, then a linear one."""
    torch.manual_seed(0)
    blocks, before, size = [], IMAGE[0], IMAGE[1]
    for after in channels:
        blocks.append(nn.Sequential(nn.Conv2d(before, after, 3, padding=1), nn.ELU(), nn.MaxPool2d(2)))
        before, size = after, size // 2
    return nn.Sequential(*blocks, nn.Sequential(nn.Flatten(), nn.Linear(before * size * size, CLASSES)))


def learner_of(network: nn.Sequential, mode: str, iterations: int) -> Any:
    """What trains the network; the numbers are such that feedback on one batch stays finite for long."""
    if mode == "backprop":
        return part("backprop", "baselines.backprop").Backprop(network)
    numbers: dict[str, Any] = {
        "noise": 0.1,
        "feedback_training_iterations": iterations,
        "b_optim": targetprop.OptimizerSpec(lr=1e-4, momentum=0.9),
    }
    if mode == "delta_mirror":
        numbers = {"adaptive": False}
    if not FIRST:
        return targetprop.Learner(network, targetprop.ALGORITHMS[ALGORITHM[mode]].with_numbers(**numbers))
    recipes: Any = targetprop
    return recipes.Learner(network, replace(getattr(recipes, RECIPE[mode]), **numbers))


RECIPE = {"delta_mirror": "AMORTISED_DTP", "closed_form": "DTP"}
ALGORITHM = {"delta_mirror": "delta_mirror", "closed_form": "dtp"}
"""Names of the modes in the first and in the second edition."""


def make(network: str, mode: str, batch: int, iterations: int) -> tuple[Callable[[], None], float]:
    """A training step, and the norm of the gradient that the last step of the warm-up left.

    The forward rate is zero, so that weights stay where they are.
    """
    learner = learner_of(vgg(CHANNELS[network]), mode, iterations)
    optimizer = torch.optim.SGD(learner.network.forward_parameters(), lr=0.0, momentum=0.9, weight_decay=1e-4)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, *IMAGE, generator=generator).contiguous(memory_format=torch.channels_last)
    y = torch.randint(CLASSES, (batch,), generator=generator)

    def step() -> None:
        optimizer.zero_grad()
        learner.backward(F.cross_entropy(learner(x), y))
        optimizer.step()

    for _ in range(WARM_UP):
        step()
    gradients = [each.grad for each in learner.network.forward_parameters()]
    return step, float(torch.cat([each.flatten() for each in gradients if each is not None]).norm())


def main() -> None:
    """Answer commands until there are no more."""
    torch.set_num_threads(int(sys.argv[1]))
    part("memory", "execution.memory").keep_freed_memory()
    answer({"package": targetprop.__file__})
    step: Callable[[], None] | None = None
    for line in sys.stdin:
        command = json.loads(line)
        if "make" in command:
            step = None  # which lets go of the one before
            step, norm = make(command["network"], command["make"], command["batch"], command["iterations"])
            answer({"gradient": norm})
        elif step is not None:
            start = time.perf_counter()
            step()
            answer({"seconds": time.perf_counter() - start})


def answer(values: dict[str, Any]) -> None:
    """One line to the parent."""
    print(json.dumps(values), flush=True)


if __name__ == "__main__":
    main()
