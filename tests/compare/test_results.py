"""results.json: what is written is read again, and what does not fit the schema is refused by its place."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from compare_helpers import Commands, made_plan

from targetprop.compare import leaderboard, results
from targetprop.compare.results import Results
from targetprop.utils.errors import UserError


@pytest.fixture
def made(commands: Commands) -> Results:
    assert commands("compare", str(made_plan(commands.folder)), "--folder", "made") == 0
    return results.read(commands.folder / "made" / "results.json")


def test_what_is_written_is_read_again(made: Results, tmp_path: Path) -> None:
    results.write(made, tmp_path / "again.json")
    assert results.read(tmp_path / "again.json") == made


def test_the_schema_is_one_and_says_what_every_key_is() -> None:
    jsonschema.Draft202012Validator.check_schema(results.schema())
    parts = [results.schema(), *results.schema()["$defs"].values()]
    for part in parts:
        assert part["description"]
        optional = {"score"} & set(part["properties"])  # which files of comparisons by accuracy may lack
        assert set(part["required"]) == set(part["properties"]) - optional
        for key, each in part["properties"].items():
            assert each.get("description") or "$ref" in each or "anyOf" in each, key


Change = Callable[[dict[str, Any]], Any]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda given: given.update(version=2), "it has version 2, and this edition reads version 1"),
        (lambda given: given.pop("boards"), "all of it: 'boards' is a required property"),
        (lambda given: given["boards"][0]["rows"][0].update(tset=1), r"boards\[0\].rows\[0\].tset.*'test'"),
        (
            lambda given: given["boards"][0]["rows"][1]["runs"][0].update(test=3),
            r"rows\[1\].runs\[0\].test: 3 is greater",
        ),
        (lambda given: given["boards"][0]["rows"][1]["cost"].update(measured="guessed"), "cost.measured: 'guessed'"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(made: Results, tmp_path: Path, change: Change, message: str) -> None:
    given = json.loads(json.dumps(results.as_json(made)))
    change(given)
    path = tmp_path / "bad.json"
    path.write_text(json.dumps(given))
    with pytest.raises(UserError, match=message) as error:
        results.read(path)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("text", ["{", "[]", "3"])
def test_other_files_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(UserError, match=r"a\.json"):
        results.read(tmp_path / "a.json")
    with pytest.raises(UserError, match=r"none\.json: cannot be read"):
        results.read(tmp_path / "none.json")


# The leaderboard.


def test_rows_of_the_same_protocol_stand_in_one_table(made: Results) -> None:
    joined, refused = leaderboard.join({"a.json": made, "b.json": copy.deepcopy(made)})
    assert not refused
    whole, tenth = joined.boards
    assert (len(whole.rows), len(tenth.rows)) == (6, 4)
    means = [row.test.mean for row in whole.rows if row.test]
    assert means == sorted(means, reverse=True)
    assert {row.rule for row in tenth.rows} == {"backprop", "dtp", "backprop (b.json)", "dtp (b.json)"}
    assert len(made.boards[0].rows) == 3  # whose own are not touched


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda protocol: protocol.update(seeds=[1]), r"seeds: \[11, 12, 13\] against \[1\]"),
        (lambda protocol: protocol["datamodule"].update(batch_size=64), "datamodule.batch_size: 128 against 64"),
        (lambda protocol: protocol["trainer"].pop("max_epochs"), "trainer.max_epochs: 2 against nothing"),
        (lambda protocol: protocol.update(rates=[0.1]), "rates: .* against"),
    ],
)
def test_rows_of_another_protocol_are_refused_with_what_differs(made: Results, change: Change, message: str) -> None:
    other = copy.deepcopy(made)
    protocol = other.boards[0].protocol
    assert isinstance(protocol, dict)
    change(protocol)
    joined, refused = leaderboard.join({"a.json": made, "b.json": other})
    assert len(refused) == 3
    assert all(line.startswith("b.json: ") for line in refused)
    assert re.search(message, refused[0])
    assert [len(board.rows) for board in joined.boards] == [3, 4]


def test_the_command_says_what_it_refuses(
    made: Results, commands: Commands, capsys: pytest.CaptureFixture[str]
) -> None:
    given = json.loads(json.dumps(results.as_json(made)))
    given["boards"][0]["protocol"]["optimizer"]["momentum"] = 0.5
    (commands.folder / "other.json").write_text(json.dumps(given))
    paths = ["made/results.json", "other.json"]
    assert commands("leaderboard", *paths, "--markdown", "board.md", "--page", "board.html") == 1
    said = capsys.readouterr().out
    assert "optimizer.momentum: 0.9 against 0.5" in said
    assert (commands.folder / "board.md").read_text().count("dtp (other.json)") == 1
    assert "<h2>digits, tiny_vgg</h2>" in (commands.folder / "board.html").read_text()
    assert commands("leaderboard", "made/results.json") == 0
