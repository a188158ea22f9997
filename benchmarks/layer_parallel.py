"""What layer-parallel training gains: measured with two processes, and predicted for up to sixteen.

    python benchmarks/layer_parallel.py --network full --json runs/layer_parallel.json --picture runs/layer_parallel.png

1. Alone, on one thread: what each pair's feedback learning takes, and the rest of a step.
2. Between two processes of one thread each: what a broadcast and an all-reduce take, by size.
3. Measured: steps of two processes that share out the pairs, beside steps of one, feedback phase and whole step. The
   feedback phase can be as many times faster as all pairs together take longer than the largest share; one step is
   drawn, who computes what when.
4. Predicted from 1 and 2 for N processes: a step lasts as long as its longest share of the feedback, the rest, the
   broadcasts of the owners and, with D > 1 groups of P processes, the all-reduces (one for each feedback iteration and
   pair). Layer-parallel alone a step on the same batch gets faster; groups have a batch each, and their speed-up is in
   images a second, by the best D x P = N. Every process is thought to have a device of its own, as fast as one thread
   here, and the others as near as they are here.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from matplotlib import colormaps
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.multiprocessing.spawn import spawn

from cases import NETWORKS, NO_FEEDBACK, algorithm_of, learner_of, random_batch, step_of
from targetprop import FeedbackLearning, Learner, PairedNetwork, Pass
from targetprop.execution.grid import Grid
from targetprop.execution.parallel import distribute, share_out
from targetprop.execution.schedule import Wrapper
from targetprop.noise import NoiseSource
from timing import measure, medians, parser, positive, prepare, title, write_record

MODES = ("closed_form", "amortised_dtp")
SIZES = (1 << 10, 1 << 16, 1 << 20, 1 << 23)
"""Bytes that are sent to learn what sending costs."""
PROCESSES = range(1, 17)
DEVICE = torch.device("cpu")
COLOURS = {"forward": "#9a9a9a", "publish": "#dcdcdc", "sweep": "#333333", "share gradients": "#666666"}
LABELS = {"sweep": "forward updates and targets", "publish": "waiting for and publishing feedback"}
"""How a picture shows what is no feedback of a block."""
Event = tuple[int, str, float, float]
"""Process, what it does, and from when to when, in seconds."""


def median(values: Sequence[float]) -> float:
    """The middle one."""
    return sorted(values)[len(values) // 2]


class Timeline:
    """What a process did when, by a clock that all processes of a machine share."""

    def __init__(self, rank: int) -> None:
        self.rank = rank
        self.events: list[Event] = []

    @contextmanager
    def during(self, what: str) -> Iterator[None]:
        """Note what happens inside."""
        start = time.monotonic()
        yield
        self.events.append((self.rank, what, start, time.monotonic()))


class Learning(Wrapper):
    """Notes when the feedback of a block learns."""

    def __init__(self, inner: FeedbackLearning, timeline: Timeline) -> None:
        super().__init__(inner)
        self.timeline = timeline

    def learn(self, seen: Pass, block: int) -> Tensor:
        with self.timeline.during(f"feedback {block + 1}"):
            return self.inner.learn(seen, block)


class Sweep(Wrapper):
    """Notes how long a sweep lasts, and in it what comes before the first block and after the last one."""

    def __init__(self, inner: FeedbackLearning, timeline: Timeline) -> None:
        super().__init__(inner)
        self.timeline = timeline
        self.whole = ExitStack()

    def before_sweep(self, seen: Pass) -> None:
        self.whole.enter_context(self.timeline.during("sweep"))
        with self.timeline.during("publish"):
            self.inner.before_sweep(seen)

    def after_sweep(self, seen: Pass, local_losses: Tensor) -> None:
        with self.timeline.during("share gradients"):
            self.inner.after_sweep(seen, local_losses)
        self.whole.close()


def note(learner: Learner, timeline: Timeline) -> None:
    """Have a learner, distributed or not, write into a timeline what it does."""
    if isinstance(learner.learning, Wrapper):
        learner.learning.inner = Learning(learner.learning.inner, timeline)
    else:
        learner.learning = Learning(learner.learning, timeline)
    learner.learning, keep = Sweep(learner.learning, timeline), learner.keep_pass

    def keep_pass(network: PairedNetwork, x: Tensor, noise: NoiseSource, step: int) -> Pass:
        with timeline.during("forward"):
            return keep(network, x, noise, step)

    learner.keep_pass = keep_pass


def duration(events: Sequence[Event], beginning: str) -> float:
    """Seconds spent on what has such a name."""
    return sum(end - start for _, what, start, end in events if what.startswith(beginning))


def ready(network: str, mode: str, batch: int, grid: Grid | None) -> tuple[Timeline, Callable[[], object]]:
    """A training step after a first one, and the timeline that it writes."""
    learner = learner_of(network, mode, DEVICE)
    assert isinstance(learner, Learner)
    if grid is not None:
        distribute(learner, grid)
    step = step_of(learner, *random_batch(batch, DEVICE))
    step()
    timeline = Timeline(grid.column if grid else 0)
    note(learner, timeline)
    return timeline, step


def timed_steps(network: str, mode: str, batch: int, repeats: int, grid: Grid) -> dict[str, list[list[Event]]]:
    """The events of this process in steps of process 0 alone and, in turn with them, of both together."""
    steps: dict[str, list[list[Event]]] = {"alone": [], "together": []}
    made = {"alone": ready(network, mode, batch, None), "together": ready(network, mode, batch, grid)}
    for _ in range(repeats):
        for name, (timeline, step) in made.items():
            dist.barrier()
            if grid.column == 0 or name == "together":
                timeline.events = []
                with timeline.during("step"):
                    step()
                steps[name].append(timeline.events)
    return steps


def two_processes(rank: int, directory: Path, network: str, batch: int, repeats: int) -> None:
    """Costs of exchange, then steps of every mode; written by each process."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{directory}/store", timedelta(minutes=10), 2, rank)
    sizes = {size: torch.zeros(size, dtype=torch.uint8) for size in SIZES}
    floats = {size: torch.zeros(size // 4) for size in SIZES}
    grid = Grid.of_world()
    found = {
        "broadcast": medians(exchanged({size: partial(dist.broadcast, x, 0) for size, x in sizes.items()})),
        "all_reduce": medians(exchanged({size: partial(dist.all_reduce, x) for size, x in floats.items()})),
        "steps": {mode: timed_steps(network, mode, batch, repeats, grid) for mode in MODES},
    }
    (directory / f"{rank}.json").write_text(json.dumps(found))
    dist.destroy_process_group()


def exchanged(calls: dict[int, Callable[[], object]]) -> dict[int, list[float]]:
    """Seconds of collective calls, as often in both processes."""
    return measure(calls, DEVICE, 30, float("inf"))


def line(costs: dict[int, float]) -> tuple[float, float]:
    """Latency and seconds a byte: of the smallest, and between it and the largest."""
    small, large = min(costs), max(costs)
    slope = max(0.0, (costs[large] - costs[small]) / (large - small))
    return costs[small], slope


def weights_of(network: str) -> tuple[list[int], int]:
    """Bytes of each pair's feedback weights, and of the forward weights."""
    learner = learner_of(network, "closed_form", DEVICE)
    assert isinstance(learner, Learner)
    feedback = [sum(4 * p.numel() for p in pair.feedback_parameters()) for pair in learner.network.trained]
    return feedback, sum(4 * p.numel() for p in learner.network.forward_parameters())


def predict(
    pairs: list[float], rest: float, iterations: list[int], sizes: tuple[list[int], int], costs: dict[str, Any]
) -> list[dict[str, Any]]:
    """For each number of processes how many times faster than one it is: on a batch, and in images by the best grid."""
    feedback, forward = sizes
    send, reduce = line(costs["broadcast"]), line(costs["all_reduce"])

    def seconds(groups: int, columns: int) -> float:
        owners = share_out(pairs, columns)
        shares = [[n for n in range(len(pairs)) if owners[n] == column] for column in range(columns)]
        publish = sum(send[0] + send[1] * sum(feedback[n] for n in share) for share in shares) if columns > 1 else 0.0
        if columns > 1:
            publish += send[0] + send[1] * forward

        def learning(share: list[int]) -> float:
            exchange = sum(iterations[n] * (reduce[0] + reduce[1] * feedback[n]) for n in share) if groups > 1 else 0.0
            return sum(pairs[n] for n in share) + exchange

        average = reduce[0] + reduce[1] * forward if groups > 1 else 0.0
        return max(map(learning, shares)) + publish + average + rest

    alone, rows = seconds(1, 1), []
    for count in PROCESSES:
        grids = [(count // columns, columns) for columns in range(1, len(pairs) + 1) if count % columns == 0]
        groups, columns = max(grids, key=lambda grid: grid[0] / seconds(*grid))
        rows.append(
            {
                "processes": count,
                "layers_only": alone / seconds(1, min(count, len(pairs))),
                "groups": groups,
                "columns": columns,
                "images": groups * alone / seconds(groups, columns),
            }
        )
    return rows


def draw(events: Sequence[Event], path: Path, heading: str) -> None:
    """A step as bars, a row for each process."""
    start = min(begin for _, _, begin, _ in events)
    colours = colormaps["tab10"]
    figure = Figure(figsize=(10, 2.4), layout="constrained")
    axes = figure.subplots()
    shown: set[str] = set()
    # The longest first, so that what happens within it is drawn over it.
    for rank, what, begin, end in sorted(events, key=lambda event: event[2] - event[3]):
        if what == "step":
            continue
        block = int(what.split()[1]) if what.startswith("feedback") else 0
        colour = colours(block % colours.N) if block else COLOURS[what]
        label = f"feedback of block {block}" if block else LABELS.get(what, what)
        axes.barh(rank, end - begin, left=begin - start, color=colour, label=None if label in shown else label)
        shown.add(label)
    ranks = sorted({rank for rank, *_ in events})
    axes.set_yticks(ranks, [f"process {rank}" for rank in ranks])
    axes.invert_yaxis()
    axes.set_xlabel("seconds")
    axes.set_title(heading, fontsize=10)
    figure.legend(loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, predict and print."""
    made = parser(__doc__)
    made.set_defaults(threads=1)
    made.add_argument("--network", choices=NETWORKS, default="full")
    made.add_argument("--batch", type=positive, default=128)
    made.add_argument("--repeats", type=positive, default=3)
    made.add_argument("--picture", type=Path, help="file for the picture of a step")
    options = made.parse_args(arguments)
    prepare(options)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    with tempfile.TemporaryDirectory() as directory:
        given = (Path(directory), options.network, options.batch, options.repeats)
        spawn(two_processes, given, nprocs=2)
        found = [json.loads(Path(directory, f"{rank}.json").read_text()) for rank in range(2)]
    exchange = {key: {int(size): s for size, s in found[0][key].items()} for key in ("broadcast", "all_reduce")}
    rest = medians(
        measure(
            {0: step_of(learner_of(options.network, NO_FEEDBACK, DEVICE), *random_batch(options.batch, DEVICE))},
            DEVICE, max(5, options.repeats), 60.0,
        )
    )[0]  # fmt: skip
    results: dict[str, Any] = {"exchange_seconds": exchange, "rest_seconds": rest, "modes": {}}
    for mode in MODES:
        alone = found[0]["steps"][mode]["alone"]
        shared = [found[rank]["steps"][mode]["together"] for rank in range(2)]
        results["modes"][mode] = summary(options.network, mode, alone, shared, rest, exchange)
    console = Console()
    heading = title(f"{options.network}, batch {options.batch}, two processes of one thread", options)
    console.print(measured_table(heading, results))
    console.print(predicted_table(results))
    if options.picture:
        events = [event for rank in range(2) for event in found[rank]["steps"]["closed_form"]["together"][-1]]
        events = [(rank, what, start, end) for rank, what, start, end in events]
        draw(events, options.picture, f"One step of L-DRL ({options.network} network), two processes of one thread")
    write_record(options, "layer_parallel", results)


def summary(
    network: str, mode: str, alone: list[list[Event]], shared: list[Any], rest: float, exchange: dict[str, Any]
) -> dict[str, Any]:
    """Of one mode: what was measured with one process and with two, and what follows for more."""
    numbers = sorted({what for events in alone for _, what, *_ in events if what.startswith("feedback")})
    pairs = [median([duration(events, number) for events in alone]) for number in numbers]
    together = [
        max(duration(shared[rank][repeat], "feedback") for rank in range(2)) for repeat in range(len(shared[0]))
    ]
    step = [max(duration(shared[rank][repeat], "step") for rank in range(2)) for repeat in range(len(shared[0]))]
    shares = [{what for _, what, *_ in shared[rank][0] if what.startswith("feedback")} for rank in range(2)]
    largest = max(sum(pairs[numbers.index(each)] for each in share) for share in shares)
    each = algorithm_of(network, mode).numbers.get("feedback_training_iterations", 1)
    iterations = list(each) if isinstance(each, Sequence) else [each] * len(pairs)
    gain, limit = sum(pairs) / median(together), sum(pairs) / largest
    return {
        "pair_seconds": pairs,
        "shares": [sorted(share) for share in shares],
        "feedback_seconds": {"one": sum(pairs), "two": median(together)},
        "step_seconds": {"one": median([duration(events, "step") for events in alone]), "two": median(step)},
        "feedback_speedup": gain,
        "limit": limit,
        "share_of_limit": gain / limit,
        "predicted": predict(pairs, rest, iterations, weights_of(network), exchange),
    }


def measured_table(heading: str, results: dict[str, Any]) -> Table:
    """Two processes beside one."""
    columns = ("feedback", "phase", "1 process, s", "2 processes, s", "speed-up", "limit", "reached")
    table = Table(*columns, title=heading)
    for mode, row in results["modes"].items():
        feedback, step = row["feedback_seconds"], row["step_seconds"]
        table.add_row(
            mode, "feedback", f"{feedback['one']:.3f}", f"{feedback['two']:.3f}", f"{row['feedback_speedup']:.2f}",
            f"{row['limit']:.2f}", f"{100 * row['share_of_limit']:.0f} %",
        )  # fmt: skip
        table.add_row(
            "", "step", f"{step['one']:.3f}", f"{step['two']:.3f}", f"{step['one'] / step['two']:.2f}", "", ""
        )
    return table


def predicted_table(results: dict[str, Any]) -> Table:
    """Speed-ups by number of processes."""
    columns = [f"{mode}, {what}" for mode in MODES for what in ("layers only", "images/s, groups x columns")]
    table = Table("processes", *columns, title="predicted speed-up over one process")
    for number in PROCESSES:
        rows = [results["modes"][mode]["predicted"][number - 1] for mode in MODES]
        cells = [
            cell
            for row in rows
            for cell in (f"{row['layers_only']:.2f}", f"{row['images']:.1f}, {row['groups']} x {row['columns']}")
        ]
        table.add_row(str(number), *cells)
    return table


if __name__ == "__main__":
    main()
