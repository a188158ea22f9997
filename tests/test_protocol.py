"""Comparisons with rules fixed beforehand: their numbers, their plans, their choices, and their runs."""

from __future__ import annotations

import json
import math
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st

import compare
from protocol import choice, trials
from protocol.plan import Plan, load
from protocol.stats import Interval, interval, paired, student, student_cdf, tost, verdict_of
from targetprop.app.overrides import check_overrides
from targetprop.utils.errors import UserError

ROOT = Path(__file__).parents[1]
PLANS = ROOT / "benchmarks" / "plans"
PLAN = """
question: Is it so?
settings: [trainer.max_epochs=1, trainer.gpus=0, callbacks.alignment.every_n_steps=5]
chance: 0.1
methods:
  backprop: {settings: [model=backprop], beta: null, minutes: 1}
  mirror: {settings: [model=delta_mirror], beta: 0.7, minutes: 1}
  fixed: {settings: [model=fixed_dtp], beta: 0.7, minutes: 1}
rates: [0.01, 0.02, 0.04, 0.08, 0.16]
most_rates: 7
weight_decay: 1e-4
final_rate: 1e-5
seeds:
  search: [1, 2]
  primary: [11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22]
  descriptive: [11, 12, 13, 14, 15]
primary: {method: mirror, reference: backprop, margin: 0.5}
"""


def made_plan(folder: Path, old: str = "", new: str = "") -> Path:
    """A plan, with one piece of it replaced."""
    assert old in PLAN
    path = folder / "made.yaml"
    path.write_text(PLAN.replace(old, new) if old else PLAN)
    return path


# Statistics.


@pytest.mark.parametrize(
    ("freedom", "share", "quantile"),
    [
        (1, 0.975, 12.7062), (4, 0.975, 2.7764), (20, 0.975, 2.0860), (60, 0.975, 2.0003),
        (1, 0.95, 6.3138), (2, 0.95, 2.9200), (11, 0.95, 1.7959), (12, 0.95, 1.7823), (120, 0.95, 1.6577),
    ],
)  # fmt: skip
def test_quantiles_are_those_of_printed_tables(freedom: int, share: float, quantile: float) -> None:
    assert student(freedom, share) == pytest.approx(quantile, abs=5e-5)


@given(st.integers(1, 200), st.floats(-30, 30))
def test_shares_of_student_are_those_of_scipy(freedom: int, t: float) -> None:
    assert student_cdf(t, freedom) == pytest.approx(float(scipy.stats.t.cdf(t, freedom)), abs=1e-12)


@given(st.integers(1, 100), st.floats(0.5, 0.999))
def test_quantile_and_share_are_inverse(freedom: int, share: float) -> None:
    assert student_cdf(student(freedom, share), freedom) == pytest.approx(share, abs=1e-9)


def test_interval_of_a_mean() -> None:
    assert interval([1.0, 2.0, 3.0]) == pytest.approx((2, 4.3027 / math.sqrt(3)), abs=1e-4)
    assert (interval([1.0, 1.0]).low, interval([1.0, 1.0]).high) == (1, 1)


DIFFERENCES = st.lists(st.floats(-3, 3).map(lambda value: round(value, 3)), min_size=3, max_size=20)


@given(DIFFERENCES.filter(lambda values: len(set(values)) > 1), st.floats(0.1, 2))
def test_two_one_sided_tests_are_those_of_scipy(differences: list[float], margin: float) -> None:
    test = tost(differences, margin)
    above = scipy.stats.ttest_1samp(differences, -margin, alternative="greater")
    below = scipy.stats.ttest_1samp(differences, margin, alternative="less")
    assert (test.p_above, test.p_below) == pytest.approx((above.pvalue, below.pvalue), abs=1e-9)
    if abs(max(test.p_above, test.p_below) - 0.05) > 1e-9:
        assert (test.verdict == "equivalent") == (test.p_above < 0.05 and test.p_below < 0.05)


@given(DIFFERENCES, st.floats(0.1, 2))
def test_verdicts_of_swapped_methods_mirror_each_other(differences: list[float], margin: float) -> None:
    swapped = {"worse": "better", "better": "worse"}
    verdict = tost(differences, margin).verdict
    assert tost([-value for value in differences], margin).verdict == swapped.get(verdict, verdict)


@pytest.mark.parametrize(
    ("middle", "half", "verdict"),
    [
        (0.1, 0.3, "equivalent"), (-0.2, 0.1, "equivalent"), (0.1, 0.5, "undecided"), (-0.4, 0.2, "undecided"),
        (-0.9, 0.3, "worse"), (0.9, 0.3, "better"), (0.0, 0.5, "undecided"),
    ],
)  # fmt: skip
def test_verdict_is_read_from_the_interval(middle: float, half: float, verdict: str) -> None:
    assert verdict_of(Interval(middle, half), margin=0.5) == verdict


def test_differences_without_spread() -> None:
    assert tost([0.2, 0.2, 0.2], 0.5).verdict == "equivalent"
    assert tost([-0.7, -0.7], 0.5).verdict == "worse"
    assert tost([0.5, 0.5], 0.5).verdict == "undecided"


def test_pairs_are_the_seeds_that_both_have() -> None:
    assert paired({1: 2.0, 3: 5.0, 4: 1.0}, {3: 4.0, 1: 2.5}) == {1: -0.5, 3: 1.0}


# Plans.


@pytest.mark.parametrize("nesterov", [False, True])
def test_effective_rates_give_the_step_of_the_gradient_itself(tmp_path: Path, nesterov: bool) -> None:
    plan, beta, steps = load(made_plan(tmp_path)), 0.7, 30
    generator = torch.Generator().manual_seed(1)
    gradients = torch.randn(steps, 5, dtype=torch.float64, generator=generator)
    weights = []
    for name, scale in (("backprop", 1.0), ("mirror", beta)):
        numbers = dict(each.split("=") for each in plan.settings_of(name, 0.08))
        weight = torch.ones(5, dtype=torch.float64, requires_grad=True)
        lr, decay = (float(numbers[f"model.hparams.f_optim.{key}"]) for key in ("lr", "weight_decay"))
        optimizer = torch.optim.SGD([weight], lr, 0.9, weight_decay=decay, nesterov=nesterov)
        eta_min = float(numbers["scheduler.eta_min"])
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps, eta_min)
        for gradient in gradients:
            weight.grad = scale * gradient
            optimizer.step()
            schedule.step()
        weights.append(weight.detach())
    torch.testing.assert_close(*weights, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("settings: [model=fixed_dtp], beta", "settings: [model=fixed_dtp], betta", r"methods.fixed.betta.*'beta'"),
        ("method: mirror", "method: mirrow", r"primary.method.*'mirrow'.*'mirror'"),
        ("reference: backprop", "reference: mirror", "primary.reference.*another method"),
        (", 0.08, 0.16]", "]", "rates: expected 5 or more"),
        ("0.08, 0.16", "0.16, 0.08", "rates.*rising"),
        ("search: [1, 2]", "search: [1, 11]", r"seeds.primary: expected fresh seeds.*\[11\]"),
        ("search: [1, 2]", "search: [1]", "seeds.search.*2 or more"),
        (", 21, 22]", "]", "seeds.primary.*12 or more"),
        ("[11, 12, 13, 14, 15]", "[11, 12, 13, 14, 14]", "seeds.descriptive.*different"),
        ("most_rates: 7", "most_rates: 4", "most_rates.*5 or more"),
        ("margin: 0.5", "margin: 0", "primary.margin.*above 0"),
        ("final_rate: 1e-5\n", "", "final_rate: expected a value"),
        ("question:", "questions:", "questions.*'question'"),
        ("question: Is it so?", "question: [", "cannot be read"),
    ],
)
def test_mistakes_in_a_plan_are_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load(made_plan(tmp_path, old, new))


def test_a_method_that_the_command_line_refuses_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"methods\.fixed.*model"):
        load(made_plan(tmp_path, "model=fixed_dtp", "model=fixed_dpt")).check_methods()
    with pytest.raises(UserError, match=r"f_optim\.type.*sgd"):
        load(made_plan(tmp_path, "model=fixed_dtp", "model=fixed_dtp, model.hparams.f_optim.type=adam")).check_methods()


@pytest.mark.parametrize("name", ["cifar10_small", "cifar10_small_tenth"])
def test_committed_plans_fit_the_models(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    plan = load(PLANS / f"{name}.yaml")
    plan.check_methods()
    config = check_overrides(list(plan.settings_of(list(plan.methods)[-1], 0.07)))
    assert config.model.hparams.f_optim.lr == pytest.approx(0.1)
    assert list(config.network.hparams.channels) == [32, 32, 64, 64, 128]
    compare.main(["plan", str(PLANS / f"{name}.yaml"), "--jobs", "2"])
    assert "in all, 2 at a time" in capsys.readouterr().out


# Choices.


def test_best_rate_has_the_highest_mean_and_of_equal_ones_is_the_lowest() -> None:
    assert choice.best_rate({0.1: [0.5, 0.6], 0.2: [0.9, 0.1], 0.4: [0.55, 0.55]}) == 0.1


def test_grid_grows_at_the_edges_where_a_best_rate_lies() -> None:
    rates = (0.01, 0.02, 0.08)
    assert choice.extended(rates, [0.02], most=9) == rates
    assert choice.extended(rates, [0.02, 0.08], most=9) == (*rates, 0.32)
    assert choice.extended(rates, [0.01, 0.08], most=9) == (0.005, *rates, 0.32)
    assert choice.extended(rates, [0.01, 0.08], most=4) == (0.005, *rates)


@given(st.floats(0.001, 1.0), st.floats(0.001, 1.0))
def test_grid_of_a_complete_search_has_every_best_rate_inside_or_is_full(first: float, second: float) -> None:
    """Whatever the best rates are."""
    plan = load(PLANS / "cifar10_small.yaml")
    peaks = dict(zip(plan.methods, (first, second, 0.04, 0.04, 0.04, 0.04), strict=True))

    def look(name: str, rate: float, seed: int) -> float:
        return -abs(math.log(rate / peaks[name]))

    rates = choice.grid(plan, look)
    table = choice.table_of(plan, rates, look)
    assert table is not None
    assert list(rates) == sorted(rates)
    assert set(plan.rates) <= set(rates)
    best = {choice.best_rate(each) for each in table.values()}
    assert len(rates) == plan.most_rates or not best & {rates[0], rates[-1]}
    assert {len(each) for each in table.values()} == {len(rates)}  # as many trials for every method


def test_grid_does_not_grow_before_the_search_is_complete(tmp_path: Path) -> None:
    plan = load(made_plan(tmp_path))
    assert choice.grid(plan, lambda name, rate, seed: None if (name, seed) == ("fixed", 2) else rate) == plan.rates
    assert len(choice.grid(plan, lambda name, rate, seed: rate)) == plan.most_rates


# The commands, with runs that are made up.


OFFSETS = {"backprop": 0.0, "mirror": -0.001, "fixed": -0.2}


class MadeUp:
    """Stands for a run: best at a rate of .08, with a little noise by seed, and diverged at the highest rates."""

    ended = True

    def __init__(self, trial: trials.Trial, threads: int, data: Path | None) -> None:
        self.trial = trial

    def result(self) -> dict[str, Any]:
        trial = self.trial
        noise = random.Random(f"{trial.method} {trial.seed}").gauss(0, 0.001)
        accuracy = 0.7 + OFFSETS[trial.method] + noise - 0.02 * abs(math.log2(trial.rate / 0.08))
        facts = {"method": trial.method, "rate": trial.rate, "seed": trial.seed, "overrides": trial.overrides}
        facts |= {"commit": "abc", "machine": {"cpu": "a"}, "wall_seconds": 60.0, "diverged": trial.rate > 0.1}
        test = accuracy if trial.phase == "fresh" else None
        epochs = {"val/accuracy": [accuracy / 2, accuracy]}
        angles = {1: {"block1": 9.0}, 2: {"block1": 7.0}} if trial.method != "backprop" else {}
        ended = {"validation": accuracy, "test": test, "epoch_seconds": [1.0, 2.0], "epochs": epochs, "angles": angles}
        return facts if facts["diverged"] else {**facts, **ended}

    def close(self) -> None:
        pass


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Runs a command with the made-up runs."""
    monkeypatch.setattr(trials, "Running", MadeUp)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    return lambda command, path, *options: compare.main([command, str(path), *options])


def test_search_choice_fresh_runs_and_report(
    tmp_path: Path, commands: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    path = made_plan(tmp_path)
    commands("search", path)
    commands("freeze", path)
    frozen = choice.read_frozen(choice.frozen_path(path), load(path))
    assert frozen.chosen == dict.fromkeys(OFFSETS, 0.08)
    assert len(frozen.diverged) == 6
    assert frozen.validation["backprop"][0.16] == [0.1, 0.1]
    commands("run", path)
    capsys.readouterr()
    written = {kind: tmp_path / f"report.{kind}" for kind in ("json", "md", "png")}
    options = ("--json", written["json"], "--markdown", written["md"], "--picture", written["png"])
    commands("report", path, *map(str, options))
    assert "Verdict: equivalent." in " ".join(capsys.readouterr().out.split())
    record = json.loads(written["json"].read_text())
    backprop, mirror, fixed = record["rows"]
    assert (backprop["n"], mirror["n"], fixed["n"]) == (12, 12, 5)
    assert fixed["difference"][0] == pytest.approx(-20, abs=0.5)
    assert mirror["angles"] == {"block1": 7}
    assert record["equivalence"]["mean"] == pytest.approx(fmean(record["differences"].values()))
    assert len(record["runs"]) == 29
    assert str(tmp_path) not in written["json"].read_text()
    assert written["md"].read_text().count("\n| ") == 4
    assert written["png"].stat().st_size > 10000


def test_commands_refuse_what_would_bend_the_plan(tmp_path: Path, commands: Callable[..., None]) -> None:
    path = made_plan(tmp_path)
    with pytest.raises(SystemExit, match="30 runs of the search are missing"):
        commands("freeze", path)
    with pytest.raises(SystemExit, match="`freeze` writes it"):
        commands("run", path)
    commands("search", path)
    commands("freeze", path)
    with pytest.raises(SystemExit, match="29 of 29 fresh runs are missing"):
        commands("report", path)
    made_plan(tmp_path, "margin: 0.5", "margin: 5")
    for command in ("run", "report"):
        with pytest.raises(SystemExit, match="plan has changed"):
            commands(command, path)
    with pytest.raises(SystemExit, match="another choice"):
        commands("freeze", path)
    made_plan(tmp_path, "weight_decay: 1e-4", "weight_decay: 1e-3")
    with pytest.raises(SystemExit, match="other settings"):
        commands("search", path)


def test_search_goes_on_where_it_was_and_grows_the_grid(
    tmp_path: Path, commands: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, folder = made_plan(tmp_path, "0.04, 0.08, 0.16", "0.04, 0.05, 0.08"), tmp_path / "records"
    options = ("--records", str(folder))

    def stop(trial: trials.Trial, *_: Any) -> MadeUp:
        if trial.seed == 2:
            raise KeyboardInterrupt
        return MadeUp(trial, 1, None)

    monkeypatch.setattr(trials, "Running", stop)
    with pytest.raises(SystemExit, match="the same command goes on"):
        commands("search", path, *options)
    kept = {file: file.stat().st_mtime_ns for file in folder.glob("search/*")}
    assert len(kept) == 15
    monkeypatch.setattr(trials, "Running", MadeUp)
    commands("search", path, *options)
    assert kept.items() <= {file: file.stat().st_mtime_ns for file in folder.glob("search/*")}.items()
    assert len(list(folder.glob("search/*_rate_0.128_*"))) == 6  # .08 x .08 / .05: tried by every method
    commands("freeze", path, *options)
    assert load(path).rates[-1] == choice.read_frozen(choice.frozen_path(path), load(path)).chosen["mirror"] == 0.08


# Real runs on the digits.


def real(trial: trials.Trial) -> trials.Running:
    """A run that has ended."""
    (run,) = trials.run_all([trial], jobs=1, threads=1, data=None)
    return run


def short(plan: Plan, *more: str, rate: float = 0.04) -> trials.Trial:
    settings = (*plan.settings_of("mirror", rate), "trainer.limit_train_batches=6", *more)
    return trials.Trial("search", "mirror", rate, 3, settings)


def test_a_run_leaves_a_record(tmp_path: Path) -> None:
    plan, kept = load(made_plan(tmp_path)), []
    trial = short(plan)
    for run in trials.run_all([trial], jobs=2, threads=1, data=None):
        kept.append(trials.keep(run, tmp_path))
    record = trials.find(tmp_path, trial)
    assert record is not None
    assert record == json.loads(json.dumps(kept[0]))
    assert record["command"].startswith("python main.py model=delta_mirror ")
    assert record["test"] is None  # which a search never sees
    assert 0 <= record["validation"] <= 1
    assert list(record["angles"]["1"]) == ["block1", "block2", "block3"]
    assert not run.output.exists()
    assert str(tmp_path) not in json.dumps(record)


def test_runs_that_diverge_are_kept_and_runs_that_fail_are_not(tmp_path: Path) -> None:
    plan = load(made_plan(tmp_path))
    runs = [short(plan, rate=1e6), short(plan, "model.hparams.budget=-1")]
    with pytest.raises(UserError, match=r"1 of 2 runs failed.*budget"):
        trials.keep_all(plan, tmp_path, runs, jobs=2, threads=1, data=None)
    records = list(tmp_path.glob("search/*.json"))
    assert [json.loads(path.read_text())["diverged"] for path in records] == [True]


def is_alive(process: str) -> bool:
    """Whether it still runs; one that has ended may wait for its parent to look."""
    try:
        return Path("/proc", process, "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_an_interrupt_ends_the_runs_and_leaves_whole_records_only(tmp_path: Path) -> None:
    path = made_plan(tmp_path, "trainer.max_epochs=1", "trainer.max_epochs=10000")
    command = [sys.executable, str(ROOT / "benchmarks" / "compare.py"), "search", str(path), "--jobs", "2"]
    search = subprocess.Popen([*command, "--records", str(tmp_path / "kept")], stderr=subprocess.PIPE, text=True)
    children = Path(f"/proc/{search.pid}/task/{search.pid}/children")
    if not children.parent.exists():
        search.kill()
        pytest.skip("reads Linux's /proc")
    while len(started := children.read_text().split()) < 2:
        time.sleep(0.05)
    search.send_signal(signal.SIGINT)
    _, said = search.communicate(timeout=30)
    assert "the same command goes on" in said
    deadline = time.monotonic() + 20
    while any(map(is_alive, started)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert not list((tmp_path / "kept").glob("*/*"))


@pytest.mark.slow
def test_a_whole_comparison_on_the_digits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = made_plan(tmp_path, "  fixed: {settings: [model=fixed_dtp], beta: 0.7, minutes: 1}\n", "")
    for command in ("search", "freeze", "run", "report"):
        more = ("--jobs", "2") if command in ("search", "run") else ()
        compare.main([command, str(path), "--records", str(tmp_path / "records"), *more])
    assert "Verdict: " in capsys.readouterr().out
