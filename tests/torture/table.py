"""What came of a suite as a table; of several suites side by side: python -m tests.torture.table FILE [FILE ...]."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

VERDICTS = ("survived", "wrong", "hung", "not applicable")
COLUMNS = ("tried", *VERDICTS)
Outcomes = Sequence[Mapping[str, Any]]


def counts(outcomes: Outcomes, name: str) -> list[int]:
    """How many cases of a class, or of "all", were tried, and what came of them."""
    found = [each["verdict"] for each in outcomes if name in (each["class"], "all")]
    by_verdict = [found.count(each) for each in VERDICTS]
    return [len(found) - by_verdict[-1], *by_verdict]


def classes(outcomes: Outcomes) -> list[str]:
    """The classes that were tried, in their order, and "all"."""
    return [*dict.fromkeys(each["class"] for each in outcomes), "all"]


def aligned(outcomes: Outcomes) -> str:
    """The table for a terminal."""
    rows = [("class", *COLUMNS), *((name, *map(str, counts(outcomes, name))) for name in classes(outcomes))]
    return "\n".join(f"{row[0]:22}" + "".join(f"{cell:>16}" for cell in row[1:]) for row in rows)


def side_by_side(suites: Mapping[str, Outcomes]) -> str:
    """The tables of several suites as one of Markdown, by the commit that each tried."""
    header = ["class", *(f"{commit}: {', '.join(COLUMNS)}" for commit in suites)]
    lines = [f"| {' | '.join(header)} |", "|---" * len(header) + "|"]
    for name in dict.fromkeys(name for outcomes in suites.values() for name in classes(outcomes)[:-1]):
        lines.append(_line(name, suites))
    return "\n".join([*lines, _line("all", suites)])


def _line(name: str, suites: Mapping[str, Outcomes]) -> str:
    cells = [", ".join(map(str, counts(outcomes, name))) for outcomes in suites.values()]
    return f"| `{name}` | {' | '.join(cells)} |"


def read(path: Path) -> tuple[str, Outcomes]:
    """The commit and the outcomes in a file of them."""
    first, *lines = path.read_text().splitlines()
    return str(json.loads(first)["commit"]), [json.loads(line) for line in lines if line.endswith("}")]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    print(side_by_side(dict(read(path) for path in parser.parse_args().files)))


if __name__ == "__main__":
    main()
