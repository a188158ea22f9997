"""A newcomer's way through the README and the tutorial, word for word, with the seconds of every step.

    python tests/newcomer.py --torch torch==2.13.0 --data data --json runs/newcomer.json --markdown runs/newcomer.md

Clones this repository's last commit into a new folder, makes a new virtual environment, and does what the pages say in
the order printed: runs their commands, runs their Python, the blocks of a page one after the other in one session, and
writes the files that they show. What takes long or needs what is not here is shortened, replaced or left out by
`OTHERWISE`, and the table says so. The exit code is 1 if a step failed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

from pages import ROOT, blocks
from rich.console import Console
from rich.table import Table

PAGES = ("README.md", "docs/tutorial/digits.md", "docs/tutorial/own_network.md", "docs/tutorial/own_rule.md")
SHORT = "trainer.max_epochs=1 trainer.limit_train_batches=1 trainer.limit_val_batches=1 trainer.limit_test_batches=1"
SHORTER = "trainer.max_epochs=2 trainer.limit_train_batches=2"


class Otherwise(NamedTuple):
    """Commands that are not run as printed.

    Attributes:
        part: of such a command.
        why: for the table.
        instead: what is run; None if nothing is.
    """

    part: str
    why: str
    instead: str | None = None


AS_PRINTED = Otherwise("", "", "{command}")
OTHERWISE = (
    Otherwise("datamodule=imagenet32", "needs ImageNet 32x32, and so an account"),
    Otherwise("reproduce=imagenet32", "needs ImageNet 32x32, and so an account"),
    Otherwise("pytest", "the tests take a quarter of an hour: .ci/run"),
    Otherwise("properdocs serve", "built: to serve does not end", "properdocs build -f mkdocs.yml --strict"),
    Otherwise("datamodule=cifar10", "shortened to one batch", f"{{command}} {SHORT}"),
    Otherwise("--path CIFAR-10", "shortened to one batch", f"{{command}} {SHORT}"),
    Otherwise("targetprop compare", "shortened to two epochs of two batches", f"{{command}} --set {SHORTER}"),
)

EXAMPLES = """
import numpy, targetprop.data.digits
from PIL import Image
digits = targetprop.data.digits.load().test.pixels.numpy()
numpy.save("digits.npy", digits[:5])
Image.fromarray(digits[0, 0]).save("seven.png")
"""
"""Makes the images that the README shows to a trained network, which a reader has."""

SESSION = """
import json, sys, traceback
answers, sys.stdout = sys.stdout, sys.stderr
names = {"__name__": "__main__"}
for line in sys.stdin:
    code = 0
    try:
        exec(compile(json.loads(line), "block", "exec"), names)
    except BaseException:
        traceback.print_exc()
        code = 1
    print(code, file=answers, flush=True)
"""
"""Runs blocks of Python that it is sent as lines of JSON, and answers each by an exit code."""


@dataclass(frozen=True)
class Step:
    """Something that was done, or not.

    Attributes:
        page: the page that says so.
        text: the command, or the first line of a block.
        seconds: that it took; None if it was not run.
        code: its exit code; None if it was not run.
        note: what differs from what is printed.
    """

    page: str
    text: str
    seconds: float | None
    code: int | None
    note: str = ""


class Newcomer:
    """Somebody in a folder, with an environment, who keeps a log of all that is printed."""

    def __init__(self, folder: Path, environment: dict[str, str], log: IO[str]) -> None:
        self.folder, self.environment, self.log = folder, environment, log

    def read(self, page: str) -> Iterator[Step]:
        """Do what a page of the folder says."""
        with self._start("python", "-c", SESSION, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as session:
            for block in blocks((self.folder / page).read_text()):
                if block.title:
                    block.write(self.folder)
                elif block.language == "python":
                    yield self._execute(page, session, block.text)
                elif block.language in ("", "bash"):
                    for command in block.commands:
                        yield self.run(page, " ".join(command.split()))

    def run(self, page: str, command: str) -> Step:
        """Run a command of a page, or what `OTHERWISE` has instead of it."""
        known = next((each for each in OTHERWISE if each.part in command), AS_PRINTED)
        if known.instead is None:
            return Step(page, command, None, None, f"not run: {known.why}")
        instead = known.instead.format(command=command).replace("RUN_DIR", str(self.last_run()))
        return self.shell(page, command, instead, known.why)

    def shell(self, page: str, text: str, command: str, note: str = "") -> Step:
        """Run a command by bash."""
        self._say(command)
        start = time.monotonic()
        with self._start("bash", "-c", command, stdin=subprocess.DEVNULL, stdout=self.log) as process:
            code = process.wait()
        return Step(page, text, time.monotonic() - start, code, note)

    def last_run(self) -> Path | None:
        """The folder of the run that ended last; a comparison is none, and has no checkpoints."""
        kept = self.folder.glob("runs/*/*/checkpoints")
        return max((each.parent for each in kept), key=lambda run: run.stat().st_mtime, default=None)

    def _execute(self, page: str, session: subprocess.Popen[str], code: str) -> Step:
        assert session.stdin is not None
        assert session.stdout is not None
        self._say(code)
        start = time.monotonic()
        print(json.dumps(code), file=session.stdin, flush=True)
        answer = int(session.stdout.readline() or 1)
        return Step(page, f"Python: {code.splitlines()[0]} ...", time.monotonic() - start, answer)

    def _start(self, *command: str, **streams: Any) -> subprocess.Popen[str]:
        return subprocess.Popen(command, cwd=self.folder, env=self.environment, stderr=self.log, text=True, **streams)

    def _say(self, text: str) -> None:
        print(f"\n>>> {text}", file=self.log, flush=True)


def walk(scratch: Path, options: argparse.Namespace, log: IO[str]) -> Iterator[Step]:
    """Clone, make an environment and read the pages, in an empty folder."""
    folder, binaries = scratch / "targetprop", scratch / "venv/bin"
    unset = ("PYTHONPATH", "VIRTUAL_ENV", "OMP_NUM_THREADS", "DATA_DIR")
    inherited = {name: value for name, value in os.environ.items() if name not in unset}
    outside = Newcomer(scratch, inherited, log)
    yield outside.shell("", "git clone", f"git clone --quiet {ROOT} {folder}")
    yield outside.shell("", "python -m venv", f"{options.python} -m venv venv")
    newcomer = Newcomer(folder, inherited | {"PATH": f"{binaries}:{os.environ['PATH']}"}, log)
    if options.data is not None:
        (folder / "data").symlink_to(options.data.resolve())
    if options.torch is not None:
        install = f"pip install {options.torch}"
        yield newcomer.shell("", install, install, "before the README: a wheel for the CPU")
    for page in options.pages:
        for step in newcomer.read(page):
            yield step
            if not (folder / "seven.png").exists():
                newcomer.shell("", "", f"python -c '{EXAMPLES}'")


def table_of(steps: Iterable[Step]) -> Table:
    """A row for each step."""
    table = Table("page", "step", "seconds", "exit code", "note")
    for step in steps:
        style = "red" if step.code else None
        table.add_row(*cells(step), style=style)
    return table


def cells(step: Step) -> tuple[str, ...]:
    """The columns of the table."""
    seconds = "" if step.seconds is None else f"{step.seconds:.1f}"
    return step.page, step.text, seconds, "" if step.code is None else str(step.code), step.note


def markdown_of(steps: Iterable[Step]) -> str:
    """The same table for a page."""
    rows = [[cell.replace("|", "\\|") for cell in cells(step)] for step in steps]
    lines = [f"| {page} | `{text}` | {seconds} | {code} | {note} |" for page, text, seconds, code, note in rows]
    return "\n".join(["| page | step | seconds | exit code | note |", "|---|---|---:|---:|---|", *lines]) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Walk, and print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torch", help="what pip installs first, such as torch==2.13.0")
    parser.add_argument("--data", type=Path, help="the folder of CIFAR-10; data/ of the clone becomes a link to it")
    parser.add_argument("--python", default=sys.executable, help="that makes the environment")
    parser.add_argument("--pages", nargs="+", default=PAGES, help="the first of them has to install the package")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    parser.add_argument("--log", type=Path, default=Path("runs/newcomer.log"), help="what the steps printed")
    options = parser.parse_args(arguments)
    console, steps = Console(), list[Step]()
    options.log.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch, options.log.open("w") as log:
        for step in walk(Path(scratch), options, log):
            steps.append(step)
            console.print(*cells(step), markup=False, highlight=False)
            if options.json:  # after every step, for a walk takes long
                options.json.write_text(json.dumps([asdict(step) for step in steps], indent=2) + "\n")
            if options.markdown:
                options.markdown.write_text(markdown_of(steps))
    console.print(table_of(steps))
    sys.exit(any(step.code for step in steps))


if __name__ == "__main__":
    main()
