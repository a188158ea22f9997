"""Time of one training step by each mode, beside two backprop yardsticks.

    python benchmarks/step_time.py --network full --threads 2
    python benchmarks/step_time.py --network small --modes amortised_dtp closed_form --repeats 30

All modes are timed in one run, interleaved, on one batch of random images; the table shows medians, and ratios to
both yardsticks, backprop by textbook autograd and the strict one, with pooling before the activation (the two differ
for networks that pool after an increasing activation, in windows that do not overlap), and to L-DRL by
autograd where that is among the modes. `--json FILE` keeps it.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from cases import MODES, NETWORKS, STRICT, TEXTBOOK, YARDSTICKS, learner_of, random_batch, step_of
from timing import add_clock, add_memory, add_repeats, measure, medians, parser, positive, prepare, title, write_record


def table_of(heading: str, times: dict[str, list[float]]) -> Table:
    """Medians, and their ratios to both yardsticks and to L-DRL by autograd."""
    middle = medians(times)
    compared = {"x strict": STRICT, "x textbook": TEXTBOOK, "x L-DRL autograd": "autograd"}
    compared = {label: name for label, name in compared.items() if name in middle}
    table = Table("step", "median, ms", *compared, "repeats", title=heading)
    for name, seconds in middle.items():
        ratios = [f"{seconds / middle[other]:.2f}" for other in compared.values()]
        table.add_row(name, f"{1000 * seconds:.1f}", *ratios, str(len(times[name])))
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    made = parser(__doc__)
    made.add_argument("--network", choices=NETWORKS, default="full")
    made.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    made.add_argument("--batch", type=positive, default=128)
    add_repeats(made, repeats=20, seconds=40.0)
    add_clock(made)
    add_memory(made)
    options = made.parse_args(arguments)
    device = prepare(options)
    x, y = random_batch(options.batch, device)
    learners = {mode: learner_of(options.network, mode, device) for mode in (*YARDSTICKS, *options.modes)}
    steps = {mode: step_of(learner, x, y) for mode, learner in learners.items()}
    times = measure(steps, device, options.repeats, options.seconds, options.clock)
    Console().print(table_of(title(f"{options.network}, batch {options.batch}", options), times))
    write_record(options, "step_time", {"medians": medians(times), "seconds": times})


if __name__ == "__main__":
    main()
