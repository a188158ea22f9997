"""A comparison from plan to page, with made-up runs: search, choice, fresh seeds, failures, going on."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from compare_helpers import RATIOS, Commands, failing, made_plan, made_probe
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from targetprop.compare import comparison, frozen, plan_file, results
from targetprop.compare.comparison import Comparison, Means, cores
from targetprop.compare.contest import contests
from targetprop.compare.estimate import estimates, seconds_of_a_run
from targetprop.compare.gather import reached
from targetprop.compare.plan import Plan, Task
from targetprop.compare.probe import Probe
from targetprop.compare.results import RunResult
from targetprop.compare.search import best_rate, extended, grid, searched
from targetprop.compare.trial import Trial
from targetprop.utils.errors import UserError


def test_best_rate_has_the_highest_mean_and_of_equal_ones_is_the_lowest() -> None:
    assert best_rate({0.1: [0.5, 0.6], 0.2: [0.9, 0.1], 0.4: [0.55, 0.55]}) == 0.1


def test_grid_grows_at_the_edges_where_a_best_rate_lies() -> None:
    rates = (0.01, 0.02, 0.08)
    assert extended(rates, [0.02], most=9) == rates
    assert extended(rates, [0.02, 0.08], most=9) == (*rates, 0.32)
    assert extended(rates, [0.01, 0.08], most=9) == (0.005, *rates, 0.32)
    assert extended(rates, [0.01, 0.08], most=4) == (0.005, *rates)


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    return plan_file.load(made_plan(tmp_path_factory.mktemp("plan")))


@given(first=st.floats(0.001, 1.0), second=st.floats(0.001, 1.0))
def test_grid_of_a_complete_search_has_every_best_rate_inside_or_is_full(
    plan: Plan, first: float, second: float
) -> None:
    peaks = {"backprop": first, "dtp": second}

    def look(rule: str, rate: float, seed: int) -> float:
        return -abs(math.log(rate / peaks[rule]))

    rates = grid(plan, list(peaks), look)
    found = [searched(plan, rule, rates, look) or {} for rule in peaks]
    assert list(rates) == sorted(rates)
    assert set(plan.search.rates) <= set(rates)
    assert len(rates) == plan.search.most_rates or not set(map(best_rate, found)) & {rates[0], rates[-1]}
    assert [len(each) for each in found] == [len(rates)] * 2  # as many trials for every rule


def test_grid_does_not_grow_before_the_search_is_complete(plan: Plan) -> None:
    rules = list(plan.rules)
    lacks: Callable[[str, float, int], float | None] = lambda rule, rate, seed: None if seed == 2 else rate  # noqa: E731
    assert grid(plan, rules, lacks) == plan.search.rates
    assert len(grid(plan, rules, lambda rule, rate, seed: rate)) == plan.search.most_rates


def test_dear_rules_have_a_contest_of_their_own_and_stay_where_they_were_searched(plan: Plan) -> None:
    probes = {task.name: made_probe(plan, task) for task in plan.tasks}
    whole, tenth = contests(plan, probes, {})
    assert (whole.name, whole.rules, whole.steps) == (
        "digits_tiny_vgg",
        ("backprop", "delta_mirror", "kolen_pollack"),
        10,
    )
    assert (tenth.name, tenth.rules, tenth.steps) == ("digits_tiny_vgg_tenth", ("backprop", "dtp"), 1)
    (only,) = contests(plan, probes, {"digits_tiny_vgg": ["dtp"]})
    assert only.rules == ("backprop", "dtp", "delta_mirror", "kolen_pollack")


def test_estimate_counts_every_run(plan: Plan) -> None:
    probes = {task.name: made_probe(plan, task) for task in plan.tasks}
    made = {(each.contest, each.rule): each for each in estimates(plan, contests(plan, probes, {}), probes)}
    mirror = made["digits, tiny_vgg", "delta_mirror"]
    assert (mirror.search, mirror.most, mirror.fresh) == (8, 12, 12)
    assert mirror.hours == pytest.approx(20 * mirror.seconds / 3600)
    assert mirror.seconds > 5 + 2 * 10 * 0.01 * RATIOS["delta_mirror"]
    assert made["digits, tiny_vgg, a tenth of the steps", "dtp"].seconds < 10 * 0.14 * 2 + 10


def test_epochs_of_the_feedback_alone_are_estimated_too(plan: Plan) -> None:
    probe = made_probe(plan, plan.tasks[0])
    (whole, tenth) = contests(plan, {plan.tasks[0].name: probe}, {})
    slow = {rule: replace(facts, feedback=0.5) for rule, facts in probe.rules.items()}
    for contest, rule in ((whole, "delta_mirror"), (tenth, "dtp")):
        longer = seconds_of_a_run(replace(probe, rules=slow), contest, rule) - seconds_of_a_run(probe, contest, rule)
        assert longer == pytest.approx(0.5 * contest.steps)


def test_estimate_runs_nothing(commands: Commands, capsys: pytest.CaptureFixture[str]) -> None:
    assert commands("compare", str(made_plan(commands.folder)), "--estimate", "--jobs", "2") == 0
    assert "core-hours for" in capsys.readouterr().out
    assert not commands.made
    assert not (commands.folder / "made.frozen.yaml").exists()


def test_as_many_runs_as_there_are_cores_but_one_on_a_gpu(plan: Plan, tmp_path: Path) -> None:
    probe, console = made_probe(plan, plan.tasks[0]), Console(quiet=True)
    for device, jobs, expected in (("cpu", None, max(1, cores() // 2)), ("cuda", None, 1), ("cuda", 3, 3)):
        made = Comparison(plan, Means(tmp_path, tmp_path / "frozen.yaml", jobs, 2, None), console)
        made.probes["digits"] = replace(probe, machine={"device": device})
        assert made.jobs == expected


def test_from_plan_to_page(commands: Commands, capsys: pytest.CaptureFixture[str]) -> None:
    path, folder = made_plan(commands.folder), commands.folder / "runs" / "compare" / "made"
    assert commands("compare", str(path), "--search-only") == 0
    chosen = frozen.read(commands.folder / "made.frozen.yaml")["digits_tiny_vgg"].rules["delta_mirror"]
    assert (chosen.rate, chosen.at_an_edge) == (0.08, False)
    assert chosen.validation[0.16] == [0.1, 0.1]  # which diverged
    assert {trial.phase for trial in commands.made} == {"search"}
    assert all("test=false" in trial.overrides for trial in commands.made)
    commands.made.clear()
    assert commands("compare", str(path)) == 0
    assert {trial.phase for trial in commands.made} == {"fresh"}
    assert {trial.seed for trial in commands.made if trial.rule == "kolen_pollack"} == {11, 12, 13}
    said = " ".join(capsys.readouterr().out.split())
    assert "Verdict: equivalent." in said
    whole, tenth = results.read(folder / "results.json").boards
    backprop, mirror, pollack = whole.rows
    assert mirror.test is not None
    assert mirror.difference is not None
    assert pollack.difference is not None
    assert (mirror.test.n, pollack.difference.n) == (12, 3)
    assert pollack.difference.mean == pytest.approx(-0.2, abs=0.005)
    assert backprop.difference is None
    assert [row.rule for row in tenth.rows] == ["backprop", "dtp"]
    assert mirror.cost.to_level == pytest.approx(10 * 0.015 * (reached(mirror.runs, whole.level) or 0))
    assert pollack.cost.to_level is None
    assert mirror.angles["block2"]["3"] == pytest.approx(30.5, abs=0.5)
    assert (folder / "table.md").read_text().count("\n| ") == 3 + 1 + 2 + 1 + 2
    commands.made.clear()
    assert commands("compare", str(path)) == 0
    assert not commands.made  # all of it was there


def test_a_comparison_goes_on_where_it_was_stopped(commands: Commands) -> None:
    path = made_plan(commands.folder)

    def stop(trial: Trial) -> None:
        if trial.seed == 2:
            raise KeyboardInterrupt

    commands.answer = stop
    assert "the same command goes on" in commands("compare", str(path))
    first = [str(trial) for trial in commands.made[:-1]]
    commands.answer = None
    commands.made.clear()
    assert commands("compare", str(path)) == 0
    assert first
    assert not set(first) & {str(trial) for trial in commands.made if trial.phase == "search"}


def test_runs_that_fail_end_no_others_and_are_told_counted_and_made_again(
    commands: Commands, capsys: pytest.CaptureFixture[str]
) -> None:
    path, folder = made_plan(commands.folder), commands.folder / "runs" / "compare" / "made"
    commands.answer = failing("kolen_pollack", "search")
    assert commands("compare", str(path)) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "8 runs failed" in said
    assert "kolen_pollack, rate 0.02, seed 1: model: out of luck" in said
    whole, _ = results.read(folder / "results.json").boards
    assert [row.rule for row in whole.rows] == ["backprop", "delta_mirror"]
    assert whole.left_out == {"kolen_pollack": "8 runs of its search failed: model: out of luck"}
    before = frozen.read(commands.folder / "made.frozen.yaml")["digits_tiny_vgg"].rules
    commands.answer = failing("kolen_pollack", "fresh")
    assert commands("compare", str(path)) == 1
    whole, _ = results.read(folder / "results.json").boards
    assert (whole.rows[2].failed, whole.rows[2].test) == (3, None)
    after = frozen.read(commands.folder / "made.frozen.yaml")["digits_tiny_vgg"].rules
    assert list(after) == ["backprop", "delta_mirror", "kolen_pollack"]
    assert before.items() <= after.items()
    commands.answer = None
    assert commands("compare", str(path)) == 0
    whole, _ = results.read(folder / "results.json").boards
    assert whole.rows[2].failed == 0


def test_a_reference_that_fails_ends_the_comparison(commands: Commands) -> None:
    commands.answer = failing("backprop", "search")
    assert "reference has no choice of rate" in commands("compare", str(made_plan(commands.folder)))


def test_a_rule_that_is_added_is_searched_on_the_frozen_grid(commands: Commands) -> None:
    path = made_plan(commands.folder, "dtp, delta_mirror, kolen_pollack]", "delta_mirror]")
    assert commands("compare", str(path)) == 0
    kept = (commands.folder / "made.frozen.yaml").read_text()
    commands.made.clear()
    made_plan(commands.folder, "dtp, delta_mirror, kolen_pollack]", "delta_mirror, feedback_alignment]")
    assert commands("compare", str(path)) == 0
    assert {trial.rule for trial in commands.made} == {"feedback_alignment"}
    assert (commands.folder / "made.frozen.yaml").read_text().startswith(kept)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("max_epochs=2", "max_epochs=3", "other settings for backprop in digits_tiny_vgg"),
        ("seeds: [1, 2]", "seeds: [1, 3]", "chosen by other seeds"),
    ],
)
def test_a_plan_that_has_changed_since_is_refused(commands: Commands, old: str, new: str, message: str) -> None:
    assert commands("compare", str(made_plan(commands.folder)), "--search-only") == 0
    assert message in commands("compare", str(made_plan(commands.folder, old, new)))


def test_records_of_other_settings_are_refused_with_what_differs(commands: Commands) -> None:
    assert commands("compare", str(made_plan(commands.folder)), "--search-only") == 0
    (commands.folder / "made.frozen.yaml").unlink()
    said = commands("compare", str(made_plan(commands.folder, "max_epochs=2", "max_epochs=3")))
    assert "trainer.max_epochs: 2 against 3" in said


def test_records_of_the_same_configuration_are_taken_over(commands: Commands) -> None:
    path, folder = made_plan(commands.folder), commands.folder / "runs" / "compare" / "made"
    assert commands("compare", str(path)) == 0
    old = commands.folder / "old"
    for file in folder.rglob("*_seed_*.json"):  # as an earlier edition kept them: flat, settings in another order
        record = json.loads(file.read_text())
        record["overrides"] = [*record["overrides"][::-1], "trainer.threads=1"]
        target = old / f"{file.parent.parent.name}_{file.name}"
        target.parent.mkdir(exist_ok=True)
        target.write_text(json.dumps({**record, "method": record["rule"]}))
    (commands.folder / "made.frozen.yaml").unlink()
    commands.made.clear()
    assert commands("compare", str(path), "--folder", "new", "--adopt", str(old)) == 0
    assert not commands.made


def test_from_the_command_line_alone(commands: Commands) -> None:
    chosen = [
        "--rules",
        "backprop",
        "delta_mirror",
        "--networks",
        "tiny_vgg",
        "--data",
        "digits",
        "--seeds",
        "11",
        "12",
    ]
    more = ["--rates", "0.04", "0.08", "--set", "trainer.max_epochs=2", "--name", "mine"]
    assert commands("compare", *chosen, *more) == 0
    assert (commands.folder / "runs" / "compare" / "mine" / "page.html").is_file()
    assert plan_file.load(commands.folder / "runs" / "compare" / "mine" / "plan.yaml").search.rates == (0.04, 0.08)
    assert "--networks: expected" in commands("compare", "--rules", "backprop", "dtp")


def test_two_comparisons_do_not_share_a_folder(commands: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    path = made_plan(commands.folder)
    said: list[str] = []

    def again(trial: Trial) -> None:
        if not said:
            said.append(commands("compare", str(path)))

    commands.answer = again
    assert commands("compare", str(path), "--search-only") == 0
    assert "belongs to a run that is under way" in said[0]


def test_a_reference_that_cannot_be_built_is_named(commands: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise UserError("no data here", key="rules.backprop on digits_tiny_vgg")

    monkeypatch.setattr(comparison, "probe", fails)
    assert commands("compare", str(made_plan(commands.folder))).endswith("digits_tiny_vgg: no data here")


def test_rules_that_cannot_be_built_are_left_out_and_told(
    commands: Commands, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = ["dtp"]

    def breaks(plan: Plan, task: Task, *_: object) -> Probe:
        made = made_probe(plan, task)
        rules = {name: facts for name, facts in made.rules.items() if name not in broken}
        return replace(made, rules=rules, failed=dict.fromkeys(broken, "does not fit"))

    monkeypatch.setattr(comparison, "probe", breaks)
    path = made_plan(commands.folder)
    assert commands("compare", str(path), "--folder", "made") == 1
    assert "Left out of digits_tiny_vgg: dtp: does not fit" in " ".join(capsys.readouterr().out.split())
    (board,) = results.read(commands.folder / "made" / "results.json").boards
    assert board.left_out == {"dtp": "does not fit"}
    broken[:] = ["dtp", "delta_mirror", "kolen_pollack"]
    said = commands("compare", str(path), "--folder", "none")
    assert said.endswith("rules: there is nothing to compare backprop with: does not fit")


def test_a_level_is_reached_when_the_mean_is_there_and_never_where_a_run_diverged() -> None:
    def run(curve: list[float]) -> RunResult:
        return RunResult(1, not curve, 0.1, None, [], None, curve, "", "", "")

    assert reached([run([0.1, 0.5, 0.9]), run([0.1, 0.7, 0.9])], 0.6) == 2
    assert reached([run([0.1, 0.5, 0.9]), run([])], 0.6) is None
    assert reached([run([0.1, 0.5])], 0.6) is None


def test_a_file_of_choices_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "f.yaml").write_text("digits: {rates: [1]}")
    with pytest.raises(UserError, match=r"f.yaml: this is no file of choices"):
        frozen.read(tmp_path / "f.yaml")
