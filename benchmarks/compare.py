"""A comparison of ways to train whose rules are fixed before it runs.

    python benchmarks/compare.py plan benchmarks/plans/cifar10_small.yaml
    python benchmarks/compare.py search benchmarks/plans/cifar10_small.yaml --data data --jobs 2 --threads 1
    python benchmarks/compare.py freeze benchmarks/plans/cifar10_small.yaml
    python benchmarks/compare.py run benchmarks/plans/cifar10_small.yaml --data data --jobs 2 --threads 1
    python benchmarks/compare.py report benchmarks/plans/cifar10_small.yaml --json FILE --markdown FILE --picture FILE

Commit the plan before `search`, and what `freeze` writes beside it before `run`. Each says more with `--help`.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Column, Table

from protocol.choice import choose, fresh_trials, frozen_path, grid, read_frozen, recorded, search_trials, write_frozen
from protocol.picture import draw
from protocol.plan import Plan, load
from protocol.report import angle_table, as_json, make_report, markdown, terminal_table, validation_table, verdict_line
from protocol.trials import Trial, duration, expected_seconds, keep_all, missing, seconds_left
from targetprop.utils.errors import UserError
from targetprop.utils.files import write_text
from timing import positive


def show_plan(plan: Plan, options: argparse.Namespace) -> None:
    """Print the plan, how many runs it makes, and how long they are expected to take."""
    rates, expected = grid(plan, recorded(plan, options.records)), expected_seconds(plan, options.records)
    runs = {name: (len(rates) * len(plan.seeds.search), len(plan.fresh_seeds(name))) for name in plan.methods}
    searched, fresh = map(sum, zip(*runs.values(), strict=True))
    seconds = sum(expected[name] * sum(each) for name, each in runs.items())
    console = Console(highlight=False)
    console.print(plan.question, style="bold")
    console.print("Every run has", " ".join(plan.settings))
    console.print(methods_table(plan, runs, expected))
    console.print(f"Effective rates {', '.join(f'{rate:g}' for rate in rates)}; at most {plan.most_rates} of them.")
    console.print(verdict_rule(plan))
    console.print(f"{searched} runs of search and {fresh} fresh ones, {searched + fresh} in all,", end=" ")
    console.print(f"{options.jobs} at a time: about {duration(seconds / options.jobs)}.")
    console.print(f"sha256 {plan.sha256}")


def methods_table(plan: Plan, runs: Mapping[str, tuple[int, int]], expected: Mapping[str, float]) -> Table:
    """A row for each method, with its runs of search and fresh seeds, and the seconds of one as minutes."""
    table = Table("method", Column("settings", overflow="fold"), "beta", "search", "fresh", "min a run")
    for name, method in plan.methods.items():
        beta = "" if method.beta is None else f"{method.beta:g}"
        table.add_row(name, "\n".join(method.settings), beta, *map(str, runs[name]), f"{expected[name] / 60:.1f}")
    return table


def verdict_rule(plan: Plan) -> str:
    """What will be judged, and what not."""
    if plan.primary is None:
        return "Everything is descriptive, with 95 % intervals; nothing gets a verdict."
    method, reference, margin = plan.primary.method, plan.primary.reference, plan.primary.margin
    return (
        f"One verdict: {method} minus {reference}, test accuracy, {len(plan.seeds.primary)} paired seeds, margin "
        f"{margin:g} points, two one-sided t tests at 5 % (90 % interval). All else is descriptive."
    )


def search(plan: Plan, options: argparse.Namespace) -> None:
    """Run what is missing of the search, without the test set; the grid grows while a best rate lies at an edge.

    A run that has ended is kept; Ctrl-C loses those in progress only, and the same command goes on.
    """
    while lacking := missing(options.records, search_trials(plan, options.records)):
        make_runs(plan, lacking, options)
    Console().print("The search is complete. Next: freeze.")


def freeze(plan: Plan, options: argparse.Namespace) -> None:
    """Choose the rates by the rule of the plan and write them beside it, to be committed.

    Refuses while runs are missing; also those of a grid that has to grow, which `search` runs.
    """
    frozen, path = choose(plan, options.records), frozen_path(options.plan)
    write_frozen(path, frozen)
    Console().print(validation_table(frozen))
    for name in frozen.at_an_edge:
        Console().print(f"{name}: its best rate lies at an edge, and the plan allows no more rates.", style="yellow")
    Console().print(f"Frozen in {path}. Commit it; next: run.")


def run(plan: Plan, options: argparse.Namespace) -> None:
    """Run what is missing of the fresh seeds, with the frozen settings, and the test set at the end of each run.

    Refuses if the plan is not the one that the settings were frozen for.
    """
    frozen = read_frozen(frozen_path(options.plan), plan)
    if lacking := missing(options.records, fresh_trials(plan, frozen)):
        make_runs(plan, lacking, options)
    Console().print("All fresh runs are there. Next: report.")


def make_runs(plan: Plan, trials: Sequence[Trial], options: argparse.Namespace) -> None:
    """Run them, after a look at what they are told."""
    plan.check_methods()
    expected = duration(seconds_left(plan, options.records, trials, options.jobs))
    Console().print(f"{len(trials)} runs, {options.jobs} at a time: about {expected}.")
    keep_all(plan, options.records, trials, options.jobs, options.threads, options.data)


def report(plan: Plan, options: argparse.Namespace) -> None:
    """Tables of all methods and the verdict, once all fresh runs are there."""
    made = make_report(plan, read_frozen(frozen_path(options.plan), plan), options.records)
    for table in (terminal_table(made), angle_table(made)):
        Console(width=160).print(table)
    Console().print(verdict_line(made))
    if options.json:
        write_text(options.json, json.dumps(as_json(made), indent=1) + "\n")
    if options.markdown:
        write_text(options.markdown, markdown(made))
    if options.picture:
        draw(made, options.picture)


COMMANDS: dict[str, Callable[[Plan, argparse.Namespace], None]] = {
    "plan": show_plan,
    "search": search,
    "freeze": freeze,
    "run": run,
    "report": report,
}


def parser() -> argparse.ArgumentParser:
    """With a sub-command for each step."""
    raw = argparse.RawDescriptionHelpFormatter
    made = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    choices = made.add_subparsers(dest="command", required=True)
    for name, command in COMMANDS.items():
        doc = (command.__doc__ or "").replace("\n    ", "\n").replace("%", "%%")
        part = choices.add_parser(name, help=doc.partition("\n")[0], description=doc, formatter_class=raw)
        part.add_argument("plan", type=Path, help="its file")
        part.add_argument("--records", type=Path, help="folder of the records; runs/compare/NAME where it is not given")
        if name in ("plan", "search", "run"):
            part.add_argument("--jobs", type=positive, default=1, help="runs at a time")
        if name in ("search", "run"):
            part.add_argument("--threads", type=positive, default=1, help="of each run")
            part.add_argument("--data", type=Path, help="directory that holds the data sets")
        if name == "report":
            for kind in ("json", "markdown", "picture"):
                part.add_argument(f"--{kind}", type=Path)
    return made


def main(arguments: Sequence[str] | None = None) -> None:
    """Do what the sub-command says."""
    options = parser().parse_args(arguments)
    options.records = options.records or Path("runs", "compare", options.plan.stem)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # which leaves as good a state as Ctrl-C
    try:
        COMMANDS[options.command](load(options.plan), options)
    except UserError as error:
        sys.exit(f"Error: {options.plan}: {error}")
    except KeyboardInterrupt:
        sys.exit("Stopped. Runs that had ended are kept; the same command goes on.")


if __name__ == "__main__":
    main()
