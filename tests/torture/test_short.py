"""The short form of the suite, as CI runs it, and what the long form relies on."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from . import __main__ as suite
from .case import Bench, Outcome
from .child import SUITE
from .configurations import composed, kind_of, leaves
from .project import Project


class Planted:
    """A class of faults whose cases come out as they are told."""

    name = "planted"
    full = short = 4

    def __init__(self) -> None:
        self.tried: list[int] = []

    def run(self, bench: Bench, number: int, chance: random.Random) -> Outcome:
        self.tried.append(number)
        if number == 3:
            raise RuntimeError("the suite's own mistake")
        complaints = ([], ["another weight"], ["hung: it had to be ended after 60 s"])[number]
        return Outcome(f"case {chance.random()}", complaints)


class NoServer:
    """In place of what forks runs."""

    def __init__(self, *arguments: object) -> None:
        pass

    def close(self) -> None:
        pass


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> Planted:
    made = Planted()
    monkeypatch.setattr(suite, "FAULTS", {"planted": made})
    monkeypatch.setattr(suite, "Server", NoServer)
    return made


def test_what_was_tried_is_counted_and_not_tried_again(
    planted: Planted, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--seed", "5", "--jobs", "1", "--out", str(tmp_path / "out.jsonl")]
    assert suite.main([*arguments, "--limit", "2"]) == 1
    assert suite.main(arguments) == 1
    assert planted.tried == [0, 1, 2, 3]
    printed = capsys.readouterr().out
    assert printed.splitlines()[-3].split() == ["all", "4", "1", "2", "1", "0"]
    assert "repeat: python -m tests.torture --seed 5 --only planted --number 1" in printed
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [each["verdict"] for each in lines[1:]] == ["survived", "wrong", "hung", "wrong"]


def test_a_case_that_was_cut_off_is_tried_again(planted: Planted, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    arguments = ["--seed", "5", "--jobs", "1", "--out", str(out), "--limit", "2"]
    suite.main(arguments)
    out.write_text(out.read_text()[:-20])
    suite.main(arguments)
    assert planted.tried == [0, 1, 1]
    suite.main(arguments)
    assert planted.tried == [0, 1, 1]


def test_outcomes_of_another_seed_are_not_mixed_in(planted: Planted, tmp_path: Path) -> None:
    arguments = ["--jobs", "1", "--out", str(tmp_path / "out.jsonl"), "--limit", "1"]
    suite.main([*arguments, "--seed", "5"])
    with pytest.raises(SystemExit, match="seed"):
        suite.main([*arguments, "--seed", "6"])


@pytest.mark.parametrize("choices", [(), ("model=lee_dtp",), ("trainer=layer_parallel", "scheduler=one_cycle")])
def test_something_is_known_of_every_key(choices: tuple[str, ...]) -> None:
    for key in leaves(composed(Project(SUITE), choices)):
        kind = kind_of(key)
        assert kind.invalid or kind.open, key


def test_the_short_suite_finds_nothing_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    failed = suite.main(["--short", "--seed", "14", "--out", str(tmp_path / "outcomes.jsonl")])
    assert not failed, capsys.readouterr().out
