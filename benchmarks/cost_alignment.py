"""What feedback learning costs, and how near its updates come to backprop's gradient, during a short training.

    DATA_DIR=data python benchmarks/cost_alignment.py --json runs/cost_alignment.json --picture runs/cost_alignment.png
    python benchmarks/cost_alignment.py --budgets 0.06 0.12 --modes closed_form --steps 100

Amortised DTP with several budgets, L-DRL modes if asked, and strict backprop train networks of their own, all on
the same batches of CIFAR-10, taking turns step by step: so their times compare. Every `--every` steps the angle between
each block's update and the backprop gradient of the same weights is measured, untimed; the table has its mean over
the second half of the steps. Cost is that of a whole step in backprop steps, by multiply-adds (counted) and by median
time.
"""

from __future__ import annotations

import os
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from cases import (
    STRICT,
    VGGS,
    algorithm_of,
    build_network,
    cifar_loader,
    endless,
    forward_rate,
    learn,
    make_learner,
    make_optimizer,
)
from targetprop import Algorithm, Learner, UserError
from targetprop.data import cifar10
from targetprop.measure import angle, backprop_gradients, block_gradients
from timing import operations_of, parser, positive, prepare, seconds_of, title, write_record

Row = dict[str, Any]


@dataclass
class Trainee:
    """A learner, and what it showed.

    Attributes:
        multiply_adds: of one step, forward and backward.
        seconds: of every step that was not compared with backprop.
        losses: of every step.
        angles: in degrees, for every comparison and block.
    """

    learner: nn.Module
    optimizer: torch.optim.Optimizer
    multiply_adds: int = 0
    seconds: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    angles: list[list[float]] = field(default_factory=list)

    def block_angles(self) -> list[float]:
        """The mean over the second half of the comparisons, for every block; none of backprop."""
        return [statistics.mean(each) for each in zip(*self.angles[len(self.angles) // 2 :], strict=True)]


def make_trainees(
    network: str, budgets: Sequence[float], modes: Sequence[str], device: torch.device
) -> dict[str, Trainee]:
    """Strict backprop, amortised DTP by budget, and the modes, all with the same weights."""
    base = algorithm_of(network, "amortised_dtp")
    algorithms: dict[str, Algorithm | None] = {STRICT: None}
    algorithms |= {f"amortised_dtp {budget:g}": base.with_numbers(budget=budget) for budget in budgets}
    algorithms |= {mode: algorithm_of(network, mode) for mode in modes}
    learners = {name: make_learner(build_network(network), name, each, device) for name, each in algorithms.items()}
    return {name: Trainee(each, make_optimizer(each, forward_rate(network, name))) for name, each in learners.items()}


def train_step(trainee: Trainee, x: Tensor, y: Tensor, device: torch.device, *, compare: bool) -> None:
    """One step: timed, or compared with backprop."""

    def step() -> None:
        loss.append(learn(trainee.learner, x, y))
        if compare and isinstance(trainee.learner, Learner):
            trainee.angles.append(angles_to_backprop(trainee.learner, x, y))
        trainee.optimizer.step()
        trainee.optimizer.zero_grad()

    loss: list[Tensor] = []
    seconds = seconds_of(step, device)
    trainee.losses.append(float(loss[0]))
    if not compare:
        trainee.seconds.append(seconds)


def angles_to_backprop(learner: Learner, x: Tensor, y: Tensor) -> list[float]:
    """Degrees between every block's gradients and those that backprop would give."""
    gradients = backprop_gradients(learner.network, x, y, F.cross_entropy)
    return [float(angle(*pair)) for pair in zip(block_gradients(learner.network), gradients, strict=True)]


def count(trainee: Trainee, x: Tensor, y: Tensor) -> None:
    """Count the multiply-adds of a step; forward weights stay where they are."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # what other threads do is not counted
    trainee.multiply_adds = operations_of(lambda: learn(trainee.learner, x, y)) // 2
    torch.set_num_threads(threads)
    trainee.optimizer.zero_grad()


def summary(trainees: dict[str, Trainee]) -> list[Row]:
    """Cost in steps of strict backprop, angles and loss of every trainee."""
    strict = trainees[STRICT]
    return [
        {
            "name": name,
            "cost": each.multiply_adds / strict.multiply_adds,
            "time": statistics.median(each.seconds) / statistics.median(strict.seconds),
            "angles": each.block_angles(),
            "loss": statistics.mean(each.losses[len(each.losses) // 2 :]),
        }
        for name, each in trainees.items()
    ]


def table_of(heading: str, rows: Sequence[Row]) -> Table:
    """Cost in steps of strict backprop, and angles of blocks 1, 2, ... in degrees."""
    blocks = [str(number) for number in range(1, 1 + max(len(row["angles"]) for row in rows))]
    table = Table("", "cost", "time", *blocks, "loss", title=heading)
    for row in rows:
        angles = [f"{each:.1f}" for each in row["angles"]] or ["0"] * len(blocks)
        table.add_row(row["name"], f"{row['cost']:.3f}", f"{row['time']:.2f}", *angles, f"{row['loss']:.3f}")
    return table


def draw(path: Path, rows: Sequence[Row]) -> None:
    """Angles over cost by multiply-adds and by time: budgets joined by lines, other modes as crosses."""
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    amortised = [row for row in rows if row["name"].startswith("amortised_dtp")]
    others = [row for row in rows if row["angles"] and row not in amortised]
    for panel, key, label in zip(panels, ("cost", "time"), ("multiply-adds", "time"), strict=True):
        blocks = len((amortised + others)[0]["angles"])
        for block in range(blocks):
            color = colormaps["viridis"](block / blocks)
            points = sorted((row[key], row["angles"][block]) for row in amortised)
            panel.plot(*zip(*points, strict=True), marker="o", markersize=4, color=color, label=f"block {block + 1}")
            for row in others:
                panel.plot(row[key], row["angles"][block], marker="x", color=color)
        for row in others:
            panel.annotate(
                row["name"], (row[key], max(row["angles"])), xytext=(0, 6), textcoords="offset points", ha="right"
            )
        if others:
            panel.set_xscale("log")
            panel.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            panel.xaxis.set_major_formatter("{x:g}")
            panel.minorticks_off()
        panel.set_xlabel(f"{label} of a step, in steps of strict backprop")
        panel.set_ylim(bottom=0)
        panel.grid(alpha=0.25)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("angle of update to backprop (degrees)")
    panels[0].legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, print and draw."""
    made = parser(__doc__)
    made.add_argument("--network", choices=VGGS, default="small")
    made.add_argument("--budgets", nargs="+", type=float, default=[0.03, 0.06, 0.12, 0.24])
    made.add_argument("--modes", nargs="*", choices=("closed_form",), default=[], help="beside amortised DTP")
    made.add_argument("--batch", type=positive, default=128)
    made.add_argument("--steps", type=positive, default=400)
    made.add_argument("--every", type=positive, default=10, help="steps from one comparison with backprop to the next")
    made.add_argument("--picture", type=Path)
    options = made.parse_args(arguments)
    if options.every < 2 or options.steps < options.every:
        made.error("--every must be 2 or more, and not above --steps: some steps are compared, the others timed.")
    device = prepare(options)
    try:
        images = cifar10.load(os.environ.get("DATA_DIR", "data"), download=False).train.to(device)
    except UserError as error:
        sys.exit(f"Error: {error}")
    batches = endless(cifar_loader(images, options.batch))
    trainees = make_trainees(options.network, options.budgets, options.modes, device)
    for number, (x, y) in enumerate(islice(batches, options.steps)):
        for trainee in trainees.values():
            train_step(trainee, x, y, device, compare=number % options.every == 0)
    for trainee in trainees.values():
        count(trainee, x, y)
    rows = summary(trainees)
    heading = title(f"{options.network}, batch {options.batch}, {options.steps} steps", options)
    Console().print(table_of(heading, rows))
    if options.picture:
        draw(options.picture, rows)
    courses = {name: {"seconds": t.seconds, "losses": t.losses, "angles": t.angles} for name, t in trainees.items()}
    write_record(options, "cost_alignment", {"rows": rows, "courses": courses})


if __name__ == "__main__":
    main()
