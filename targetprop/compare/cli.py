"""The commands `targetprop compare`, `report` and `leaderboard`."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from targetprop.app.lock import owned
from targetprop.app.user_conf import offer_user_conf
from targetprop.app.waiting import set_wait_policy
from targetprop.compare import leaderboard, needed, page, plan_file, results, table
from targetprop.compare.comparison import Comparison, Means
from targetprop.compare.plan import Plan
from targetprop.compare.results import Results
from targetprop.utils.errors import UserError
from targetprop.utils.files import write_text

COMPARE = """Compare rules: the same search of rates for all, fresh seeds, measured prices, a table and a page.

    targetprop compare plans/digits.yaml --estimate
    targetprop compare plans/digits.yaml
    targetprop compare --rules backprop dtp my.module.RULE --networks tiny_vgg --data digits --seeds 1 2 3 \\
        --set trainer.max_epochs=5

The same command goes on where one was stopped. docs/compare.md says how, and why so."""
REPORT = """Make the page of runs that are there: directories of runs of `python main.py`, or a results.json."""
LEADERBOARD = """Put the rows of several results.json into one table for each task.

Rows whose protocol differs from that of the first file are refused, with what differs; the exit code is then 1."""

WIDTH = 160
"""Of tables in files."""


def main(arguments: Sequence[str]) -> None:
    """Do what the command says."""
    set_wait_policy(os.environ)  # of the runs
    offer_user_conf()
    options = parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # which leaves as good a state as Ctrl-C
    try:
        width = None if sys.stdout.isatty() else WIDTH
        code: int = options.do(options, Console(highlight=False, width=width))
    except UserError as error:
        sys.exit(f"Error: {error}")
    except KeyboardInterrupt:
        sys.exit("Stopped. All that had ended is kept; the same command goes on.")
    sys.exit(code)


def compare(options: argparse.Namespace, console: Console) -> int:
    """From a plan to its page; 1 if runs failed."""
    plan = plan_of(options)
    for package in () if options.estimate else ("altair", "vl_convert", "jinja2", "jsonschema"):
        needed.needed(package, "the page")  # rather now than after the runs
    folder = options.folder or Path("runs", "compare", plan.name)
    frozen = options.plan.with_suffix(".frozen.yaml") if options.plan else folder / "frozen.yaml"
    plan_file.check_composes(plan)
    with owned(folder):
        plan_file.save(plan, folder / "plan.yaml")
        made = Comparison(plan, Means(folder, frozen, options.jobs, options.threads, options.data_dir), console)
        made.prepare()
        if options.adopt:
            made.adopt(options.adopt)
        if options.estimate:
            return 0
        made.search()
        console.print(f"Rates are frozen in {frozen}: commit it.")
        if options.search_only:
            return said_failures(made, console)
        if options.adopt:
            made.adopt(options.adopt)  # the choices say which fresh runs are looked for
        made.fresh()
        show(made.results(), folder, console)
        return said_failures(made, console)


def plan_of(options: argparse.Namespace) -> Plan:
    """The plan of a file, with what the command line says in its place."""
    given = {} if options.plan is None else plan_file.load(options.plan).as_dict()
    for key in ("rules", "networks", "data"):
        if (names := getattr(options, key)) is not None:
            known = given.get(key) or {}
            given[key] = {name: known.get(name, []) for name in names}
    if options.seeds is not None:
        given["seeds"] = options.seeds
    if options.rates is not None:
        given["search"] = {**given.get("search", {}), "rates": options.rates, "most_rates": None}
        del given["search"]["most_rates"]
    given["settings"] = [*given.get("settings", []), *options.set]
    name = options.name or (options.plan.stem if options.plan else "compare")
    for key in plan_file.NEEDED:
        if not given.get(key):
            raise UserError("expected a plan's file, or names behind it", key=f"--{key}")
    return plan_file.read(name, given)


def said_failures(made: Comparison, console: Console) -> int:
    """Tell what failed; returns the exit code."""
    for trial, why in made.failed.items():
        console.print(f"Failed: {escape(f'{trial}: {why}')}", style="red", soft_wrap=True)
    for contest, rules in made.left_out.items():
        for rule, why in rules.items():
            console.print(f"Left out of {contest}: {escape(f'{rule}: {why}')}", style="red", soft_wrap=True)
    if made.failed:
        console.print(f"{len(made.failed)} runs failed; the same command makes them again.", style="red")
    return 1 if made.failed or any(made.left_out.values()) else 0


def report(options: argparse.Namespace, console: Console) -> int:
    """The page of what is there."""
    from targetprop.compare import existing  # here, as it looks at algorithms, which takes torch

    made = existing.read(options.runs)
    folder = options.folder or Path("runs", "report")
    folder.mkdir(parents=True, exist_ok=True)
    results.write(made, folder / "results.json")
    show(made, folder, console, options.png)
    return 0


def board(options: argparse.Namespace, console: Console) -> int:
    """One table for each task; 1 if rows were refused."""
    made, refused = leaderboard.join({str(path): results.read(path) for path in options.results})
    for each in made.boards:
        console.print(table.of(each))
    if options.markdown:
        write_text(options.markdown, table.markdown(made))
    if options.page:
        page.write(made, options.page)
        console.print(f"Page: {options.page}")
    for line in refused:
        console.print(f"Refused: {escape(line)}", style="red", soft_wrap=True)
    return 1 if refused else 0


def show(made: Results, folder: Path, console: Console, png: bool = False) -> None:
    """Print the tables; write the page, the tables for a README and, if asked for, the charts as pictures."""
    for each in made.boards:
        console.print(table.of(each))
        if each.verdict:
            console.print(escape(each.verdict), soft_wrap=True)
    write_text(folder / "table.md", table.markdown(made))
    page.write(made, folder / "page.html")
    if png:
        page.pictures(made, folder)
    console.print(f"Page: {folder / 'page.html'}")


def parser() -> argparse.ArgumentParser:
    """With a sub-command for each."""
    raw = argparse.RawDescriptionHelpFormatter
    made = argparse.ArgumentParser(prog="targetprop", formatter_class=raw)
    choices = made.add_subparsers(dest="command", required=True)
    part = choices.add_parser("compare", help=COMPARE.partition("\n")[0], description=COMPARE, formatter_class=raw)
    _add_compare(part)
    part = choices.add_parser("report", help=REPORT, description=REPORT, formatter_class=raw)
    part.set_defaults(do=report)
    part.add_argument("runs", nargs="+", type=Path, help="directories of runs, or one results.json")
    part.add_argument("--folder", type=Path, help="of page.html, table.md and results.json; runs/report if not given")
    part.add_argument("--png", action="store_true", help="the charts as pictures, too")
    part = choices.add_parser(
        "leaderboard", help=LEADERBOARD.partition("\n")[0], description=LEADERBOARD, formatter_class=raw
    )
    part.set_defaults(do=board)
    part.add_argument("results", nargs="+", type=Path, help="files of comparisons, results.json")
    part.add_argument("--markdown", type=Path, help="file for the tables")
    part.add_argument("--page", type=Path, help="file for a page")
    return made


def _add_compare(part: argparse.ArgumentParser) -> None:
    part.set_defaults(do=compare)
    part.add_argument("plan", type=Path, nargs="?", help="its file; what follows replaces what it says")
    part.add_argument("--rules", nargs="+", help="names of models, or import paths of rules of your own")
    part.add_argument("--networks", nargs="+")
    part.add_argument("--data", nargs="+", help="names of data sets")
    part.add_argument("--seeds", nargs="+", type=int, help="fresh ones, none of the search")
    part.add_argument("--rates", nargs="+", type=float, help="effective ones, to begin the search with")
    part.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="settings of all runs")
    part.add_argument("--name", help="of the comparison, if it has no file")
    part.add_argument("--folder", type=Path, help="of its records; runs/compare/NAME if not given")
    part.add_argument(
        "--jobs", type=positive, help="runs at a time; if not given, as many as there are cores, or one on a GPU"
    )
    part.add_argument("--threads", type=positive, default=1, help="of each run")
    part.add_argument("--data-dir", type=Path, help="directory that holds the data sets")
    part.add_argument("--estimate", action="store_true", help="tell how long it takes, and run nothing else")
    part.add_argument("--search-only", action="store_true", help="end once rates are frozen, to commit them first")
    part.add_argument("--adopt", type=Path, metavar="FOLDER", help="take over records of runs with the same settings")


def positive(text: str) -> int:
    """A whole number, 1 or more."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected 1 or more, got {value}")
    return value
