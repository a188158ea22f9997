"""Rows of several comparisons in one table for each task, of those whose protocol is the same."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import partial

from targetprop.compare.gather import now
from targetprop.compare.records import differences
from targetprop.compare.results import Board, Results, Row
from targetprop.version import __version__

MOST = 5
"""Differences that are named."""


def join(files: Mapping[str, Results]) -> tuple[Results, list[str]]:
    """A table for each task, rows by their score; and why others are refused, a line for each.

    The first file that has a task sets its protocol.
    """
    boards: dict[str, Board] = {}
    refused: list[str] = []
    for path, results in files.items():
        for board in results.boards:
            first = boards.get(board.title)
            why = why_refused(first, board)
            if why:
                refused += [f"{path}: {row.rule} on {board.title}: {why}" for row in board.rows]
            elif first is None:
                boards[board.title] = replace(board, rows=list(board.rows), verdict=None)
            else:
                first.rows.extend(renamed(first.rows, board.rows, path))
    for board in boards.values():
        board.rows.sort(key=partial(_rank, board.score.sign))
    return Results("Leaderboard", now(), __version__, {}, None, list(boards.values())), refused


def _rank(sign: int, row: Row) -> float:
    """The best first, without a test last."""
    return math.inf if row.test is None else -sign * row.test.mean


def why_refused(first: Board | None, board: Board) -> str | None:
    """What differs in the protocol; None if nothing does."""
    if board.protocol is None:
        return "these are runs that no plan made, so nothing says how their rates were chosen"
    if first is None:
        return None
    assert first.protocol is not None
    found = differences(dict(first.protocol), dict(board.protocol))
    more = f", and {len(found) - MOST} more" if len(found) > MOST else ""
    return f"another protocol ({'; '.join(found[:MOST])}{more})" if found else None


def renamed(known: list[Row], rows: list[Row], path: str) -> list[Row]:
    """The rows, those whose rule is there already with the file that they are from."""
    names = {row.rule for row in known}
    return [replace(row, rule=f"{row.rule} ({path})") if row.rule in names else row for row in rows]
