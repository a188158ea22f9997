"""The command `targetprop figure NAME`."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from rich.console import Console

from targetprop.app.lock import owned
from targetprop.app.waiting import set_wait_policy
from targetprop.compare.comparison import cores
from targetprop.published import ernoult, runs, toy
from targetprop.published.comparisons import PlanTable
from targetprop.published.experiment import Experiment, Means, write_table
from targetprop.published.numbers import COUNTER_CURRENT
from targetprop.utils.errors import UserError, unknown
from targetprop.utils.files import whole_file

HELP = """Compute a published figure or table, and write its numbers (CSV) and its picture (PNG and SVG).

    targetprop figure                      # what there is
    targetprop figure ernoult_4.2 --data-dir data
    targetprop figure ernoult_4.2 --quick  # only to see that it works

The same command goes on where one was stopped. docs/published.md says what each shows."""

_MEULEMANS = toy.PAPER
_SHIBUYA = "Shibuya et al. 2023, https://arxiv.org/abs/2212.10352"

EXPERIMENTS: Mapping[str, Experiment] = {
    "ernoult_4.2": ernoult.FeedbackAngles("Feedback weights turn to forward weights, LeNet", ernoult.LENET),
    "ernoult_4.2_vgg": ernoult.FeedbackAngles("Feedback weights turn to forward weights, VGG", ernoult.VGG),
    "ernoult_4.3": ernoult.UpdateAngles("Updates turn to backprop's, LeNet", ernoult.LENET),
    "ernoult_4.3_vgg": ernoult.UpdateAngles("Updates turn to backprop's, VGG", ernoult.VGG),
    "meulemans_null_space": toy.NullSpace(),
    "meulemans_output_space": toy.OutputSpace(),
    "meulemans_angles_mnist": runs.RunTable(
        "Angles of updates while they train, MNIST", _MEULEMANS, runs.meulemans(("mnist",)), (42,), measured=80
    ),
    "meulemans_angles_fashion_mnist": runs.RunTable(
        "The same, Fashion-MNIST", _MEULEMANS, runs.meulemans(("fashion_mnist",)), (42,), measured=80
    ),
    "meulemans_angles_cifar10": runs.RunTable(
        "The same, CIFAR-10", _MEULEMANS, runs.meulemans(("cifar10",)), (42,), measured=30
    ),
    "meulemans_table": runs.RunTable("Test accuracies with published settings", _MEULEMANS, runs.meulemans(runs.DATA)),
    "shibuya_table": runs.RunTable("FW-DTP and DTP with published settings", _SHIBUYA, runs.shibuya()),
    "shibuya_comparison": PlanTable("FW-DTP against DTP, rates searched alike", _SHIBUYA, "fixed_weights"),
    "counter_current": PlanTable(
        "Rules of its table, rates searched alike",
        "Kao and Hariharan 2024, https://arxiv.org/abs/2409.19841",
        "counter_current",
        COUNTER_CURRENT,
    ),
}
"""By name."""


def main(arguments: Sequence[str]) -> None:
    """Do what the command says."""
    set_wait_policy(os.environ)  # of the runs
    options = parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # which leaves as good a state as Ctrl-C
    console = Console(highlight=False)
    try:
        if options.name is None:
            for name, each in EXPERIMENTS.items():
                console.print(f"{name:32}{each.title} ({each.paper})", soft_wrap=True, markup=False)
            return
        figure(options, console)
    except UserError as error:
        sys.exit(f"Error: {error}")
    except KeyboardInterrupt:
        sys.exit("Stopped. All that had ended is kept; the same command goes on.")


def figure(options: argparse.Namespace, console: Console) -> None:
    """Compute what is missing of an experiment; write its table and its picture."""
    if options.name not in EXPERIMENTS:
        raise unknown("figure", options.name, EXPERIMENTS)
    experiment = EXPERIMENTS[options.name]
    folder = options.folder or Path("runs", "figure", options.name + ("_quick" if options.quick else ""))
    seeds = None if options.seeds is None else tuple(options.seeds)
    jobs = options.jobs or cores()
    with owned(folder):
        means = Means(folder, options.data_dir, options.quick, seeds, jobs, options.threads, console)
        rows = experiment.rows(means)
        write_table(folder / f"{options.name}.csv", rows)
        drawn = experiment.draw(rows)
        drawn.suptitle(f"{experiment.title}\n{experiment.paper}", fontsize="medium")
        for ending in ("png", "svg"):
            with whole_file(folder / f"{options.name}.{ending}") as partial:
                drawn.savefig(partial, dpi=130, format=ending)
    console.print(f"{len(rows)} rows: {folder / options.name}.csv, .png and .svg", soft_wrap=True)


def parser() -> argparse.ArgumentParser:
    """Of what stands behind `targetprop figure`."""
    made = argparse.ArgumentParser(
        prog="targetprop figure", description=HELP, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("name", nargs="?", help="of the experiment; without one, all of them are listed")
    default = Path(os.environ.get("DATA_DIR", "data"))
    made.add_argument("--data-dir", type=Path, default=default, help="directory that holds the data sets")
    made.add_argument("--folder", type=Path, help="of what is written; runs/figure/NAME if not given")
    made.add_argument("--seeds", nargs="+", type=_least(0), help="instead of the published ones")
    made.add_argument("--quick", action="store_true", help="as small as it gets, on the digits: to see that it works")
    made.add_argument("--jobs", type=_least(1), help="runs at a time; if not given, as many as there are cores")
    made.add_argument("--threads", type=_least(1), default=1, help="of each run")
    return made


def _least(bound: int) -> Callable[[str], int]:
    """What reads whole numbers from a bound on."""

    def whole(text: str) -> int:
        value = int(text)
        if value < bound:
            raise argparse.ArgumentTypeError(f"expected {bound} or more, got {value}")
        return value

    return whole
