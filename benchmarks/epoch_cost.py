"""What amortised DTP costs beside strict backprop over whole epochs of training, and in which part of a step.

    DATA_DIR=data python benchmarks/epoch_cost.py --networks small full --threads 2 --json runs/epoch_cost.json
    DATA_DIR=data python benchmarks/epoch_cost.py --networks tiny --batches 20 --processes 1 --threads 1

Both train networks of their own, as configured, on the same batches of CIFAR-10: weights move, feedback learns from
measured responses on its default budget, and effort adapts. They take turns, a stretch of steps each, in one process,
so that what disturbs the machine disturbs both; what is timed is forward pass, backward pass and optimiser, and nothing
is measured in between. The very first step, which loads libraries and brings feedback up from zero, is
reported by itself. Threads wait, and freed memory is kept, as in runs of the command line, for both alike. The time
of a step is the mean over all epochs of a process, and the table shows medians over processes.

Behind that, both train on for a few steps, timed part by part; clocks within a step make it a little slower.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any, TypeVar
from unittest.mock import patch

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from cases import (
    NETWORKS,
    STRICT,
    build_network,
    cifar_loader,
    learn,
    make_learner,
    make_optimizer,
)
from targetprop import AMORTISED_DTP, Learner, UserError, local
from targetprop.app.overrides import check_overrides
from targetprop.app.waiting import WAITING, set_wait_policy
from targetprop.data import cifar10
from targetprop.data.loader import BatchLoader
from timing import add_memory, parser, positive, prepare, seconds_of, synchronize, title, write_record

AMORTISED = "amortised_dtp"
REST = "loss and the rest"
Batches = Sequence[tuple[Tensor, Tensor]]
Result = TypeVar("Result")
Row = dict[str, Any]


@dataclass
class Trainee:
    """A learner, and what it took.

    Attributes:
        first_step: seconds.
        loss: of the latest step.
        epochs: for each epoch, seconds and number of steps.
    """

    learner: nn.Module
    optimizer: torch.optim.Optimizer
    first_step: float = 0.0
    loss: Tensor = field(default_factory=lambda: torch.tensor(float("nan")))
    epochs: list[tuple[float, int]] = field(default_factory=list)

    def train(self, batches: Batches) -> None:
        """A step on each batch."""
        for x, y in batches:
            self.loss = learn(self.learner, x, y)
            self.optimizer.step()
            self.optimizer.zero_grad()

    @property
    def step_seconds(self) -> float:
        """The mean over all epochs."""
        seconds, steps = (sum(each) for each in zip(*self.epochs, strict=True))
        return seconds / steps


def trainees_of(network: str, device: torch.device) -> dict[str, Trainee]:
    """Strict backprop and amortised DTP, from the same weights, with updates of the same size."""
    rate = check_overrides([f"model={AMORTISED}", f"network={NETWORKS[network][0]}"]).model.hparams.f_optim.lr
    rates = {STRICT: rate * AMORTISED_DTP.numbers["beta"], AMORTISED: rate}
    learners = {mode: make_learner(build_network(network), mode, AMORTISED_DTP, device) for mode in rates}
    return {mode: Trainee(learner, make_optimizer(learner, rates[mode])) for mode, learner in learners.items()}


def stretches(loader: BatchLoader, batches: int | None, length: int) -> Iterator[Batches]:
    """The batches of an epoch, or as many of them, some at a time; they are made before the clock starts."""
    left = islice(loader, batches)
    while stretch := list(islice(left, length)):
        yield stretch


def measured(network: str, options: argparse.Namespace) -> Row:
    """What one process finds."""
    device = prepare(options)
    try:
        images = cifar10.load(os.environ.get("DATA_DIR", "data"), download=False).train.to(device)
    except UserError as error:
        sys.exit(f"Error: {error}")
    loader = cifar_loader(images, options.batch)
    trainees = trainees_of(network, device)
    for each in trainees.values():
        each.first_step = seconds_of(lambda each=each: each.train(list(islice(loader, 1))), device)  # type: ignore[misc]
    for _ in range(options.epochs):
        train_epoch(list(trainees.values()), stretches(loader, options.batches, options.stretch), device)
    profiled = list(islice(chain.from_iterable(stretches(loader, None, options.stretch)), options.profiled))
    amortised = trainees[AMORTISED].learner
    assert isinstance(amortised, Learner)
    return {
        "step_seconds": {name: each.step_seconds for name, each in trainees.items()},
        "epoch_ratios": epoch_ratios(trainees),
        "first_step": {name: each.first_step for name, each in trainees.items()},
        "losses": {name: float(each.loss) for name, each in trainees.items()},
        "efforts": list(amortised.plan),  # type: ignore[call-overload]
        "parts": {name: parts_of(each, profiled, device) for name, each in trainees.items()},
        "waiting": {name: os.environ[name] for name in WAITING if name in os.environ},
    }


def train_epoch(trainees: Sequence[Trainee], epoch: Iterator[Batches], device: torch.device) -> None:
    """Stretch by stretch, each time another one first."""
    seconds, steps = [0.0] * len(trainees), 0
    for number, stretch in enumerate(epoch):
        steps += len(stretch)
        for place in range(len(trainees)):
            turn = (place + number) % len(trainees)
            seconds[turn] += seconds_of(lambda turn=turn: trainees[turn].train(stretch), device)  # type: ignore[misc]  # noqa: B023
    for trainee, each in zip(trainees, seconds, strict=True):
        trainee.epochs.append((each, steps))


def epoch_ratios(trainees: Mapping[str, Trainee]) -> list[float]:
    """Amortised DTP over backprop, epoch by epoch."""
    pairs = zip(trainees[AMORTISED].epochs, trainees[STRICT].epochs, strict=True)
    return [amortised / strict for (amortised, _), (strict, _) in pairs]


# Part by part.


class Clocks:
    """Seconds spent in each part; what a part calls that has a clock of its own counts there alone."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, float] = {}

    def on(self, part: str, function: Callable[..., Result]) -> Callable[..., Result]:
        """The function, timed."""

        def timed(*arguments: Any, **options: Any) -> Result:
            synchronize(self.device)
            start = time.perf_counter()
            result = function(*arguments, **options)
            synchronize(self.device)
            self.seconds[part] = self.seconds.get(part, 0.0) + time.perf_counter() - start
            return result

        return timed


@contextmanager
def clocked(trainee: Trainee, clocks: Clocks) -> Iterator[None]:
    """A clock on every part of the trainee's step."""
    learner = trainee.learner
    places: list[tuple[str, object, str]] = [
        ("forward", learner, "forward"),
        ("optimiser", trainee.optimizer, "step"),
    ]
    if isinstance(learner, Learner):
        places += [("feedback learning", learner.learning, name) for name in ("before_sweep", "learn", "between_steps")]
        places += [("carrying targets", type(learner.algorithm.targets), "carry")]
        places += [("forward gradients", local, "add_gradients")]
    with ExitStack() as stack:
        for part, owner, name in places:
            stack.enter_context(patch.object(owner, name, clocks.on(part, getattr(owner, name))))
        yield


def parts_of(trainee: Trainee, batches: Batches, device: torch.device) -> dict[str, float]:
    """Seconds of a step, part by part."""
    clocks = Clocks(device)
    with clocked(trainee, clocks):
        whole = seconds_of(lambda: trainee.train(batches), device)
    rest = REST if isinstance(trainee.learner, Learner) else "backward, loss and the rest"
    parts = {**clocks.seconds, rest: whole - sum(clocks.seconds.values())}
    return {part: seconds / len(batches) for part, seconds in parts.items()}


# Processes.


def apart(network: str, options: argparse.Namespace, arguments: Sequence[str]) -> Row:
    """What a process of its own finds: threads wait as in runs of the command line, which torch reads at its import."""
    environment = dict(os.environ)
    set_wait_policy(environment)
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder, "found.json")
        own = ["--alone", str(found), "--networks", network]
        subprocess.run([sys.executable, __file__, *arguments, *own], env=environment, check=True)
        row: Row = json.loads(found.read_text())
        return row


def summary(network: str, found: Sequence[Row]) -> Row:
    """Medians over processes, and all that each of them found."""
    names = found[0]["step_seconds"]
    ratios = [each["step_seconds"][AMORTISED] / each["step_seconds"][STRICT] for each in found]
    return {
        "network": network,
        "step_seconds": {name: statistics.median(each["step_seconds"][name] for each in found) for name in names},
        "ratio": statistics.median(ratios),
        "ratios": ratios,
        "parts": {name: median_parts([each["parts"][name] for each in found]) for name in names},
        "processes": list(found),
    }


def median_parts(found: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Of each part, the median over processes."""
    return {part: statistics.median(each[part] for each in found) for part in found[0]}


def table_of(heading: str, rows: Sequence[Row]) -> Table:
    """A row for each network."""
    table = Table("network", f"{STRICT}, ms", f"{AMORTISED}, ms", "ratio", "from", "to", title=heading)
    for row in rows:
        times = [f"{1000 * row['step_seconds'][name]:.2f}" for name in (STRICT, AMORTISED)]
        ratios = [row["ratio"], min(row["ratios"]), max(row["ratios"])]
        table.add_row(row["network"], *times, *(f"{each:.3f}" for each in ratios))
    return table


def parts_table(rows: Sequence[Row]) -> Table:
    """Where a step spends its time."""
    table = Table("network", "step", "part", "ms", "x strict", title="Part by part")
    for row in rows:
        for name, parts in row["parts"].items():
            for part, seconds in parts.items():
                share = seconds / row["step_seconds"][STRICT]
                table.add_row(row["network"], name, part, f"{1000 * seconds:.2f}", f"{share:.3f}")
        table.add_section()
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    made = parser(__doc__)
    made.add_argument("--networks", nargs="+", choices=NETWORKS, default=["small", "full"])
    made.add_argument("--batch", type=positive, default=128)
    made.add_argument("--epochs", type=positive, default=2)
    made.add_argument("--batches", type=positive, help="of an epoch; all of them by default")
    made.add_argument("--stretch", type=positive, default=10, help="steps in turn")
    made.add_argument("--profiled", type=positive, default=40, help="steps that are timed part by part")
    made.add_argument("--processes", type=positive, default=5)
    made.add_argument("--alone", type=Path, help=argparse.SUPPRESS)
    add_memory(made)
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = made.parse_args(given)
    if options.alone:
        options.alone.write_text(json.dumps(measured(options.networks[0], options)))
        return
    prepare(options)
    rows = []
    for network in options.networks:
        rows.append(summary(network, [apart(network, options, given) for _ in range(options.processes)]))
        write_record(options, "epoch_cost", {"rows": rows})
    heading = f"{options.epochs} epochs, batch {options.batch}, {options.processes} processes"
    Console().print(table_of(title(heading, options), rows))
    Console().print(parts_table(rows))


if __name__ == "__main__":
    main()
