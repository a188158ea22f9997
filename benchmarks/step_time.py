"""Time of one training step by each mode, beside two backprop yardsticks.

    python benchmarks/step_time.py --network full --threads 2
    python benchmarks/step_time.py --network small --modes amortised expected --repeats 30

All modes are timed in one run, interleaved, on one batch of random images; the table shows medians, and ratios to
both yardsticks: textbook autograd, and the strict one, with pooling before the activation. `--json FILE` keeps it.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from targetprop import AMORTISED_DTP, Learner, OptimizerSpec, Pair, Recipe, Trace
from targetprop.backprop import Backprop
from targetprop.networks import simple_vgg
from targetprop.rules import Draw

CHANNELS = {"full": (128, 128, 256, 256, 512), "small": (32, 32, 64, 64, 128)}
PUBLISHED = Recipe(
    feedback_training_iterations=[20, 30, 35, 55, 20],
    noise=[0.4, 0.4, 0.2, 0.2, 0.08],
    b_optim=OptimizerSpec("sgd", [1e-4, 3.5e-4, 8e-3, 8e-3, 0.18], momentum=0.9),
)


def uncached_l_drl(pair: Pair, trace: Trace, draw: Draw) -> Tensor:
    """L-DRL as published code computes it: two encoder and three decoder passes an iteration, nothing kept."""
    eps, eta = draw("input", trace.x), draw("output", trace.y)
    with torch.no_grad():
        y, context = pair.encode(trace.x)
        noisy, noisy_context = pair.encode(trace.x + eps)
    clean = pair.decode(y, context)
    response = pair.decode(noisy, noisy_context) - clean
    output_response = pair.decode(y + eta, context) - clean
    return (output_response.square().sum() - 2 * (eps * response).sum()) / len(eps)


RECIPES = {
    "published": replace(PUBLISHED, feedback_loss=uncached_l_drl),
    "textbook": replace(PUBLISHED, feedback="textbook"),
    "exact": PUBLISHED,
    "expected": replace(PUBLISHED, feedback="expected"),
    "amortised": AMORTISED_DTP,
    "no feedback learning": Recipe(feedback_loss=None),
}


def step_of(learner: nn.Module, network: nn.Sequential, x: Tensor, y: Tensor) -> Callable[[], None]:
    """One whole training step: forward, backward, optimiser. The forward rate is zero: weights stay where they are."""
    optimizer = torch.optim.SGD(network.parameters(), lr=0.0, momentum=0.9, weight_decay=1e-4)

    def step() -> None:
        loss = F.cross_entropy(learner(x), y)
        learner.backward(loss) if isinstance(learner, (Learner, Backprop)) else loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def steps(channels: tuple[int, ...], modes: list[str], batch: int) -> dict[str, Callable[[], None]]:
    """The steps to time: both yardsticks, then the modes, all on one batch."""
    x = torch.randn(batch, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    y = torch.randint(10, (batch,))
    made: dict[str, Callable[[], None]] = {}
    for name in ("backprop, textbook", "backprop, strict", *modes):
        torch.manual_seed(0)
        network = simple_vgg((3, 32, 32), 10, channels)
        if name == "backprop, textbook":
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            learner: nn.Module = network
        elif name == "backprop, strict":
            learner = Backprop(network)
        else:
            learner = Learner(network, RECIPES[name])
        made[name] = step_of(learner, network, x, y)
    return made


def measure(steps: dict[str, Callable[[], None]], repeats: int, seconds: float) -> dict[str, list[float]]:
    """Seconds of each step, interleaved; a step that has taken `seconds` in all is not repeated further."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        step()  # warm-up, and the amortised mode's first batch
    for _ in range(repeats):
        for name, step in steps.items():
            if sum(times[name]) < seconds or len(times[name]) < 2:
                start = time.perf_counter()
                step()
                times[name].append(time.perf_counter() - start)
    return times


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=CHANNELS, default="full")
    parser.add_argument("--modes", nargs="+", choices=RECIPES, default=list(RECIPES))
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=40.0, help="longest total time of one mode")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    times = measure(steps(CHANNELS[options.network], options.modes, options.batch), options.repeats, options.seconds)
    medians = {name: statistics.median(values) for name, values in times.items()}

    title = f"SimpleVGG {options.network}, batch {options.batch}, {options.threads} threads, torch {torch.__version__}"
    table = Table("step", "median, ms", "times strict", "times textbook", "repeats", title=title)
    for name, median in medians.items():
        ratios = [f"{median / medians[f'backprop, {kind}']:.2f}" for kind in ("strict", "textbook")]
        table.add_row(name, f"{1000 * median:.1f}", *ratios, str(len(times[name])))
    Console().print(table)
    if options.json:
        record = {"machine": platform.processor() or platform.machine(), "title": title, "seconds": times}
        options.json.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
