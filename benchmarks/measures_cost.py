"""What the measures of `targetprop.measure` cost, beside a training step by backprop.

    python benchmarks/measures_cost.py --network small --threads 1 --clock cpu

Everything is timed in one run, interleaved, on one batch of random images, for amortised DTP; the table shows medians,
and ratios to a step of textbook backprop. `gauss_newton` is timed with `--iterations` of its default 50, by which its
cost grows. `--json FILE` keeps it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, cast

import torch.nn.functional as F
from rich.console import Console
from rich.table import Table

from cases import NETWORKS, TEXTBOOK, learner_of, random_batch, step_of
from targetprop import Learner
from targetprop.measure import MEASURES
from targetprop.measure import measure as take
from timing import add_clock, add_repeats, measure, medians, parser, positive, prepare, title, write_record


def table_of(heading: str, times: dict[str, list[float]]) -> Table:
    """Medians, and their ratios to a step by backprop."""
    middle = medians(times)
    table = Table("measure", "median, ms", "backprop steps", "repeats", title=heading)
    for name, seconds in middle.items():
        ratio = f"{seconds / middle[TEXTBOOK]:.1f}"
        table.add_row(name, f"{1000 * seconds:.1f}", ratio, str(len(times[name])))
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    made = parser(__doc__)
    made.add_argument("--network", choices=NETWORKS, default="small")
    made.add_argument("--measures", nargs="+", choices=MEASURES, default=list(MEASURES))
    made.add_argument("--batch", type=positive, default=128)
    made.add_argument("--iterations", type=positive, default=2, help="of gauss_newton")
    add_repeats(made, repeats=5, seconds=30.0)
    add_clock(made)
    options = made.parse_args(arguments)
    device = prepare(options)
    x, y = random_batch(options.batch, device)
    baseline = learner_of(options.network, TEXTBOOK, device)
    learner = cast(Learner, learner_of(options.network, "amortised_dtp", device))
    learner.backward(F.cross_entropy(learner(x), y))  # feedback comes up from zero with the first batch
    steps = {TEXTBOOK: step_of(baseline, x, y)}
    for name in options.measures:
        numbers: dict[str, Any] = {name: {"iterations": options.iterations}} if name == "gauss_newton" else {}
        steps[name] = partial(take, learner, x, y, F.cross_entropy, [name], numbers)
    times = measure(steps, device, options.repeats, options.seconds, options.clock)
    Console().print(table_of(title(f"{options.network}, batch {options.batch}", options), times))
    write_record(options, "measures_cost", {"medians": medians(times), "seconds": times})


if __name__ == "__main__":
    main()
