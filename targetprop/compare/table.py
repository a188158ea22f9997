"""Results as a table: on a terminal and for a README."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from rich.table import Table
from rich.text import Text

from targetprop.app.score import Score
from targetprop.compare.results import Board, Results, Row


class Column(NamedTuple):
    """Of a table.

    Attributes:
        meaning: in a sentence.
        text: of a row; empty where it says nothing.
        value: to sort by.
    """

    heading: str
    meaning: str
    text: Callable[[Row], str]
    value: Callable[[Row], float | None] = lambda row: None


def columns(board: Board) -> list[Column]:
    """Those that say something of some row."""
    score = board.score
    level = "" if board.level is None else level_of(score, board.level)
    made = [
        Column(
            f"test, {score.heading}",
            f"{score.title.capitalize()} on the test set, mean over seeds.",
            lambda row: "" if row.test is None else score.number(row.test.mean),
            lambda row: row.test.mean if row.test else None,
        ),
        Column(
            "sd",
            f"Standard deviation over seeds{_in_steps(score)}.",
            lambda row: "" if row.test is None or row.test.sd is None else score.number(row.test.sd),
            lambda row: row.test.sd if row.test else None,
        ),
        Column(
            f"minus {board.reference or 'the reference'}, 95 %",
            f"Mean difference of test {_several(score)}, paired by seed{_in_steps(score, ', in')}, with its 95 % "
            "interval by Student's t.",
            lambda row: "" if row.difference is None else score.difference(row.difference.mean, row.difference.half),
            lambda row: row.difference.mean if row.difference else None,
        ),
        Column("seeds", "Runs that are reported.", _count, lambda row: row.test.n if row.test else None),
        Column("diverged", "Of these, runs that diverged: they count as guessing.", _diverged),
        Column("failed", "Runs that failed otherwise, and are missing.", lambda row: str(row.failed or "")),
        Column("rate", "Effective learning rate that the search chose; * at an edge of the grid.", _rate),
        Column(
            "ms a step",
            "Of training, median: processor's time with one thread of the CPU, else time on the clock.",
            _step,
            lambda row: row.cost.step,
        ),
        Column(
            "x reference",
            "Time of a step over that of the reference, taken in turn on the same machine.",
            lambda row: "" if row.cost.ratio is None else f"{row.cost.ratio:.2f}",
            lambda row: row.cost.ratio,
        ),
        Column(
            f"s to {level}",
            f"Seconds of training steps until mean validation {score.title} is there; never: it is not reached.",
            lambda row: _to_level(row, board),
            lambda row: row.cost.to_level,
        ),
        Column("MiB", "Most memory of a run's process.", lambda row: _mebibytes(row.cost.host_bytes)),
        Column("MiB of GPU", "Most memory allocated on the GPU.", lambda row: _mebibytes(row.cost.gpu_bytes)),
        Column(
            "kJ",
            "Energy of the GPU during training.",
            _kilojoules,
        ),
        Column("transports", "What is carried where nature has no way to bring it.", _transports),
        Column(
            "global error",
            "Whether hidden blocks are told the output's error directly.",
            lambda row: _yes(row, "global_error"),
        ),
        Column("noisy phase", "Whether blocks are run on noise.", lambda row: _yes(row, "noisy_phase")),
        Column("passes", "Forward passes of a batch.", lambda row: str(row.needs["passes"]) if row.needs else ""),
    ]
    return [each for each in made if any(each.text(row) for row in board.rows)]


def of(board: Board) -> Table:
    """For a terminal; what is measured twice in other words stands on the page."""
    made = Table(title=board.title, title_justify="left")
    longest = max((len(row.rule) for row in board.rows), default=0)
    made.add_column("rule", overflow="fold", min_width=min(longest, 24))
    shown = columns(board)
    for column in shown:
        made.add_column(column.heading, justify="right", overflow="fold")
    for row in board.rows:
        made.add_row(Text(row.rule), *(column.text(row) for column in shown))
    return made


def markdown(results: Results) -> str:
    """A section for each table."""
    parts = [f"# {results.question}\n"] if results.question else []
    for board in results.boards:
        shown = columns(board)
        lines = [["rule", *(column.heading for column in shown)], ["---"] * (1 + len(shown))]
        lines += [[row.rule, *(column.text(row) for column in shown)] for row in board.rows]
        parts.append(
            f"## {board.title}\n\n" + "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines) + "\n"
        )
        if board.verdict:
            parts.append(f"{board.verdict}\n")
        parts += [f"Left out: {rule}: {why}\n" for rule, why in board.left_out.items()]
    return "\n".join(parts)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def level_of(score: Score, level: float) -> str:
    """A level as shown, roundly."""
    return f"{score.scale * level:.{max(1, score.digits - 1)}f} {score.unit}".rstrip()


def _several(score: Score) -> str:
    return "accuracies" if score.title == "accuracy" else score.title


def _in_steps(score: Score, before: str = ",") -> str:
    return f"{before} {score.steps}" if score.steps else ""


def _count(row: Row) -> str:
    return "" if row.test is None else str(row.test.n)


def _diverged(row: Row) -> str:
    return str(row.diverged or "")


def _kilojoules(row: Row) -> str:
    return f"{row.cost.joules / 1000:.2f}" if row.cost.joules else ""


def _rate(row: Row) -> str:
    return "" if row.rate is None else f"{row.rate:g}{'*' if row.at_an_edge else ''}"


def _step(row: Row) -> str:
    return "" if row.cost.step is None else f"{1000 * row.cost.step:.3g}"


def _to_level(row: Row, board: Board) -> str:
    if board.level is None or row.cost.step is None:
        return ""
    return "never" if row.cost.to_level is None else f"{row.cost.to_level:.3g}"


def _mebibytes(count: float | None) -> str:
    return "" if count is None else f"{count / 2**20:.0f}"


def _transports(row: Row) -> str:
    return "" if row.needs is None else ", ".join(row.needs["transports"]) or "nothing"


def _yes(row: Row, need: str) -> str:
    return "" if row.needs is None else "yes" if row.needs[need] else "no"
