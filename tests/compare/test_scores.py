"""Comparisons by another score than accuracy: bits per character, of which fewer are better."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from compare_helpers import PLAN, Commands, MadeUp, made_plan, made_probe

from targetprop.app.score import MEAN_SQUARED_ERROR, bits_per
from targetprop.compare import comparison, leaderboard, plan_file, results
from targetprop.compare.charts import curve_points, price_points
from targetprop.compare.gather import level_of, reached
from targetprop.compare.plan import Plan, Task
from targetprop.compare.probe import Probe
from targetprop.compare.results import RunResult
from targetprop.compare.run_folder import Run
from targetprop.compare.search import best_rate, grid
from targetprop.compare.table import columns, markdown
from targetprop.compare.trial import Trial
from targetprop.utils.errors import UserError

BITS = bits_per("character")
CHANCE = math.log2(65)


def bits(accuracy: float) -> float:
    """As far from perfect as this accuracy."""
    return 5 * (1 - accuracy)


class MadeUpBits(MadeUp):
    def result(self) -> dict[str, Any]:
        made = super().result()
        for part in ("validation", "test"):
            if made.get(part) is not None:
                made[part] = bits(made[part])
        if "epochs" in made:
            made["epochs"] = {"val/bits": [bits(each) for each in made["epochs"]["val/accuracy"]]}
        return made


def run_all(trials: Sequence[Trial], *_: Any) -> Iterator[MadeUp]:
    return (MadeUpBits(trial) for trial in trials)


def probe_of_bits(plan: Plan, task: Task, *others: Any) -> Probe:
    return replace(made_probe(plan, task, *others), chance=CHANCE, score=BITS)


@pytest.fixture
def made(commands: Commands, monkeypatch: pytest.MonkeyPatch) -> results.Results:
    monkeypatch.setattr(comparison, "run_all", run_all)
    monkeypatch.setattr(comparison, "probe", probe_of_bits)
    path = made_plan(commands.folder, "margin: 0.5", "margin: 0.05")
    assert commands("compare", str(path)) == 0
    return results.read(commands.folder / "runs/compare/made/results.json")


def test_the_fewest_bits_are_the_best(made: results.Results) -> None:
    board = made.boards[0]
    assert board.score == BITS
    by_rule = {row.rule: row for row in board.rows}
    assert {row.rate for row in board.rows} == {0.08}
    assert by_rule["backprop"].test is not None
    assert by_rule["backprop"].test.mean == pytest.approx(bits(0.7), abs=0.01)
    mirror, far = by_rule["delta_mirror"].difference, by_rule["kolen_pollack"].difference
    assert mirror is not None
    assert far is not None
    assert mirror.mean == pytest.approx(0.005, abs=0.004)
    assert far.mean == pytest.approx(1.0, abs=0.02)
    assert by_rule["backprop"].search["0.16"] == [CHANCE, CHANCE]
    assert board.level is not None
    assert board.level == pytest.approx(bits(0.7) / 0.95, abs=0.01)
    assert by_rule["backprop"].cost.to_level is not None
    assert by_rule["kolen_pollack"].cost.to_level is None


def test_what_is_told_says_bits_and_no_points(made: results.Results) -> None:
    board = made.boards[0]
    assert board.verdict is not None
    assert " bits (sd " in board.verdict
    assert board.verdict.endswith("Verdict: equivalent.")
    text = markdown(made)
    assert "test, bits" in text
    assert "%" not in text.replace("95 %", "").replace("90 %", "").replace("5 %", "")
    headings = [column.heading for column in columns(board)]
    assert f"s to {board.level:.3f} bits" in headings
    points = {point["rule"]: point for point in price_points(board)}
    assert points["backprop"]["score"] == pytest.approx(bits(0.7), abs=0.01)
    assert max(point["mean"] for point in curve_points(board)) > 2


@pytest.mark.parametrize(("offset", "verdict"), [(0.1, "worse"), (-0.1, "better")])
def test_more_bits_are_worse(commands: Commands, monkeypatch: pytest.MonkeyPatch, offset: float, verdict: str) -> None:
    class Shifted(MadeUpBits):
        def result(self) -> dict[str, Any]:
            kept = super().result()
            if self.trial.rule == "delta_mirror" and kept.get("test") is not None:
                kept["test"] += offset
            return kept

    monkeypatch.setattr(comparison, "run_all", lambda trials, *_: map(Shifted, trials))
    monkeypatch.setattr(comparison, "probe", probe_of_bits)
    assert commands("compare", str(made_plan(commands.folder, "margin: 0.5", "margin: 0.05"))) == 0
    (board, *_) = results.read(commands.folder / "runs/compare/made/results.json").boards
    assert str(board.verdict).endswith(f"Verdict: {verdict}.")


def test_a_leaderboard_has_the_fewest_bits_first(made: results.Results) -> None:
    joined, refused = leaderboard.join({"a.json": made})
    assert not refused
    means = [row.test.mean for row in joined.boards[0].rows if row.test]
    assert means == sorted(means)


def test_accuracies_are_fractions_and_bits_need_not_be(made: results.Results) -> None:
    given = results.as_json(made)
    results.check(given, "x")
    of_accuracy = copy.deepcopy(given)
    for board in of_accuracy["boards"]:
        del board["score"]  # as of files that were written when there was no other
    with pytest.raises(UserError, match=r"^x: boards\[0\]\..*: .* is greater than the maximum of 1"):
        results.check(of_accuracy, "x")
    with pytest.raises(UserError, match=r"^x: boards.*mode"):
        results.check(
            {**given, "boards": [{**given["boards"][0], "score": {**given["boards"][0]["score"], "mode": "x"}}]}, "x"
        )


def test_the_page_has_the_score(commands: Commands, made: results.Results) -> None:
    page = (commands.folder / "runs/compare/made/page.html").read_text()
    assert "Validation bits per character by epoch" in page
    assert "validation, bits" in page
    assert "test, %" not in page


def test_rates_and_levels_go_by_what_is_better() -> None:
    assert best_rate({0.1: [2.0, 3.0], 0.2: [1.0, 1.5], 0.4: [1.2, 1.3]}, BITS) == 0.2
    runs = [RunResult(1, False, 2.0, 2.0, [], None, [4.0, 3.0, 2.0], "", "", "")]
    assert level_of(runs, BITS) == pytest.approx(2.0 / 0.95, abs=1e-4)
    assert reached(runs, 3.5, BITS) == 2
    assert reached(runs, 1.0, BITS) is None
    assert reached(runs, 3.5) == 1  # were it accuracy


def test_the_grid_grows_where_the_fewest_bits_lie(tmp_path: Path) -> None:
    plan = plan_file.load(made_plan(tmp_path))
    rising = grid(plan, list(plan.rules), lambda rule, rate, seed: rate, BITS)
    assert rising[0] < plan.search.rates[0]
    assert rising[-1] == plan.search.rates[-1]


def test_a_level_is_a_fraction_of_accuracy_alone(tmp_path: Path) -> None:
    plan = plan_file.load(
        made_plan(tmp_path, "seeds: [11, 12, 13]\nverdict", "level: 1.5\nseeds: [11, 12, 13]\nverdict")
    )
    with pytest.raises(UserError, match=r"^level: expected a fraction from 0 to 1, as accuracies are, got 1.5"):
        plan_file.check_composes(plan)
    (tmp_path / "copy").mkdir()
    path = tmp_path / "copy/made.yaml"
    rules = "rules: [backprop, dtp, delta_mirror, kolen_pollack]"
    other = PLAN.replace("  digits:", "  adding:").replace("network.hparams.channels=[8,8]", "network=rnn")
    path.write_text(other.replace(rules, "rules: [backprop, delta_mirror]") + "level: 1.5\n")
    plan_file.check_composes(plan_file.load(path))


def test_a_run_tells_its_score_by_its_task() -> None:
    config = {"task": {"_target_": "targetprop.app.task.Regression", "monitor": "val/loss", "mode": "min"}}
    run = Run(1, {"mse": 0.5, "r2": 0.2}, None, [], None, config)
    assert run.score == MEAN_SQUARED_ERROR
    assert (run.of(run.validation), run.of(run.test), run.curve) == (0.5, None, [])
    assert json.dumps(run.score.mode) == '"min"'
