"""The table of a suite counts what its file of outcomes says."""

from __future__ import annotations

import json
from pathlib import Path

from .table import aligned, read, side_by_side

VERDICTS = [("kills", "survived"), ("kills", "not applicable"), ("clocks", "wrong"), ("clocks", "hung")]


def test_cases_are_counted_by_class_and_verdict(tmp_path: Path) -> None:
    lines = [{"seed": 0, "commit": "abc"}, *({"class": name, "verdict": verdict} for name, verdict in VERDICTS)]
    path = tmp_path / "outcomes.jsonl"
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines) + '{"class": "clo')  # ended while writing
    commit, outcomes = read(path)
    assert commit == "abc"
    assert [line.split() for line in aligned(outcomes).splitlines()[1:]] == [
        ["kills", "1", "1", "0", "0", "1"], ["clocks", "2", "0", "1", "1", "0"], ["all", "3", "1", "1", "1", "1"]
    ]  # fmt: skip
    table = side_by_side({"abc": outcomes, "older": outcomes[:2]}).splitlines()
    assert table[2:] == [
        "| `kills` | 1, 1, 0, 0, 1 | 1, 1, 0, 0, 1 |",
        "| `clocks` | 2, 0, 1, 1, 0 | 0, 0, 0, 0, 0 |",
        "| `all` | 3, 1, 1, 1, 1 | 1, 1, 0, 0, 1 |",
    ]
