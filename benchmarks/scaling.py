"""How the time of a step grows with batch, width, depth and threads, beside strict backprop.

    python benchmarks/scaling.py --json runs/scaling.json --picture runs/scaling.png
    python benchmarks/scaling.py --axes width --width 0.5 1 2 --modes amortised_dtp closed_form

The network is SimpleVGG 32-32-64-64-128 at batch 128; one axis varies at a time. Width multiplies the channels (4
gives the full-size network), depth is the number of 3x3 convolutions before each of the five poolings. L-DRL modes make
20 updates a block. All points of an axis are timed interleaved; the tables show medians.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator
from rich.console import Console
from rich.table import Table
from torch import nn

from cases import CLASSES, IMAGE, MODES, STRICT, change, make_learner, random_batch, step_of
from targetprop import DTP
from timing import Step, add_repeats, measure, medians, parser, positive, prepare, title, write_record

CHANNELS = (32, 32, 64, 64, 128)
Point = tuple[float, str]
"""Value on the axis, and mode."""


def vgg(width: float, depth: int) -> nn.Sequential:
    """SimpleVGG with `width` times the channels and `depth` convolutions before each pooling."""
    torch.manual_seed(0)
    blocks: list[nn.Module] = []
    before = IMAGE[0]
    for channels in CHANNELS:
        after = max(1, round(width * channels))
        for number in range(depth):
            pool = [nn.MaxPool2d(2)] if number == depth - 1 else []
            blocks.append(nn.Sequential(nn.Conv2d(before, after, 3, padding=1), nn.ELU(), *pool))
            before = after
    return nn.Sequential(*blocks, nn.Sequential(nn.Flatten(), nn.Linear(before, CLASSES)))


def make_step(mode: str, device: torch.device, batch: int, width: float = 1.0, depth: int = 1) -> Step:
    """A step by one mode."""
    algorithm = None if mode == STRICT else change(DTP, mode)
    return step_of(make_learner(vgg(width, depth), mode, algorithm, device), *random_batch(batch, device))


def with_threads(threads: int, step: Step) -> Step:
    """The step with this number of threads."""

    def run() -> None:
        torch.set_num_threads(threads)
        step()

    return run


def axes_of(device: torch.device, batch: int) -> dict[str, Callable[[float, str], Step]]:
    """For each axis, how to make the step at a value of it by a mode."""
    return {
        "batch": lambda value, mode: make_step(mode, device, int(value)),
        "width": lambda value, mode: make_step(mode, device, batch, width=value),
        "depth": lambda value, mode: make_step(mode, device, batch, depth=int(value)),
        "threads": lambda value, mode: with_threads(int(value), make_step(mode, device, batch)),
    }


def table_of(heading: str, axis: str, middle: dict[Point, float], modes: Sequence[str]) -> Table:
    """Milliseconds of each mode along the axis, and their ratios to strict backprop."""
    ratios = [mode for mode in modes if mode != STRICT]
    table = Table(axis, *(f"{mode}, ms" for mode in modes), *(f"{mode} x strict" for mode in ratios), title=heading)
    for value in dict.fromkeys(value for value, _ in middle):
        times = [f"{1000 * middle[value, mode]:.1f}" for mode in modes]
        table.add_row(f"{value:g}", *times, *(f"{middle[value, m] / middle[value, STRICT]:.2f}" for m in ratios))
    return table


def draw(path: Path, results: dict[str, dict[Point, float]], modes: Sequence[str]) -> None:
    """Times above, ratios to strict backprop below; one column an axis."""
    figure = Figure(figsize=(3.4 * len(results), 5.6), layout="constrained")
    panels = figure.subplots(2, len(results), squeeze=False, sharex="col", sharey="row")
    for column, (axis, middle) in enumerate(results.items()):
        values = list(dict.fromkeys(value for value, _ in middle))
        above, below = panels[0][column], panels[1][column]
        for number, mode in enumerate(modes):
            style = {"marker": "o", "markersize": 4, "color": f"C{number}", "label": mode}
            above.plot(values, [1000 * middle[value, mode] for value in values], **style)
            below.plot(values, [middle[value, mode] / middle[value, STRICT] for value in values], **style)
        above.set_yscale("log")
        above.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        above.yaxis.set_major_formatter("{x:g}")
        below.set_xlabel(axis)
        for panel in (above, below):
            _tidy(panel, values)
    panels[1][0].set_ylim(bottom=0)
    panels[0][0].set_ylabel("time of a step (ms)")
    panels[1][0].set_ylabel("times strict backprop")
    panels[0][0].legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)


def _tidy(panel: Axes, values: Sequence[float]) -> None:
    panel.set_xscale("log", base=2)
    panel.set_xticks(values, [f"{value:g}" for value in values], minor=False)
    panel.minorticks_off()
    panel.grid(alpha=0.25)
    panel.spines[["top", "right"]].set_visible(False)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and draw."""
    made = parser(__doc__)
    made.add_argument("--axes", nargs="+", choices=("batch", "width", "depth", "threads"))
    made.add_argument("--modes", nargs="+", choices=MODES, default=["amortised_dtp"])
    made.add_argument("--batch", nargs="+", type=positive, default=[16, 32, 64, 128, 256])
    made.add_argument("--width", nargs="+", type=float, default=[0.5, 1, 2, 4])
    made.add_argument("--depth", nargs="+", type=positive, default=[1, 2, 4])
    cores = os.cpu_count() or 1
    powers = [2**n for n in range(cores.bit_length())]
    made.add_argument("--thread-counts", nargs="+", type=positive, default=powers, help="of the axis threads")
    made.add_argument("--base-batch", type=positive, default=128, help="of the other axes")
    made.add_argument("--picture", type=Path)
    add_repeats(made, repeats=15, seconds=20.0)
    options = made.parse_args(arguments)
    device = prepare(options)
    Console().print(title("SimpleVGG 32-32-64-64-128", options))
    values = {
        "batch": options.batch, "width": options.width, "depth": options.depth, "threads": options.thread_counts
    }  # fmt: skip
    modes = [STRICT, *options.modes]
    results: dict[str, dict[Point, float]] = {}
    seconds: dict[str, list[dict[str, object]]] = {}
    for axis in options.axes or values:
        make = axes_of(device, options.base_batch)[axis]
        steps = {(float(value), mode): make(value, mode) for value in values[axis] for mode in modes}
        times = measure(steps, device, options.repeats, options.seconds)
        torch.set_num_threads(options.threads)
        results[axis] = medians(times)
        seconds[axis] = [{"value": value, "mode": mode, "seconds": each} for (value, mode), each in times.items()]
        Console().print(table_of(f"Over {axis}", axis, results[axis], modes))
    if options.picture:
        draw(options.picture, results, modes)
    write_record(options, "scaling", {"axes": seconds})


if __name__ == "__main__":
    main()
