"""Results, gathered from the records of a comparison."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from targetprop.app.score import ACCURACY, Score
from targetprop.compare.contest import Contest
from targetprop.compare.frozen import Choice, Frozen, fresh_trials
from targetprop.compare.plan import Plan
from targetprop.compare.probe import Probe
from targetprop.compare.records import Record, deciding, find
from targetprop.compare.results import Board, Cost, Mean, Results, Row, RunResult
from targetprop.compare.stats import interval, paired, tost
from targetprop.version import __version__

MIRRORED: Mapping[str, str] = {"worse": "better", "better": "worse"}
"""Verdicts on differences of a score of which less is better."""
SHARE = 0.95
"""Of what the reference ends with in validation: the level whose price is told where the plan names none.

Of scores of which less is better, the level is what it ends with over this share.
"""


def gather(
    plan: Plan,
    contests: Sequence[Contest],
    frozen: Mapping[str, Frozen],
    probes: Mapping[str, Probe],
    folder: Path,
    left_out: Mapping[str, Mapping[str, str]],
) -> Results:
    """What the records say so far.

    Args:
        folder: of the records.
        left_out: by contest, rules without a row, and why.
    """
    boards = [
        board(plan, contest, frozen[contest.name], probes[contest.task.name], folder, left_out.get(contest.name, {}))
        for contest in contests
        if contest.name in frozen
    ]
    machine = next(iter(probes.values())).machine if probes else {}
    return Results(plan.question, now(), __version__, machine, plan.as_dict(), boards)


def now() -> str:
    """In words that sort."""
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime())


def board(
    plan: Plan, contest: Contest, frozen: Frozen, probe: Probe, folder: Path, left_out: Mapping[str, str]
) -> Board:
    """A contest as a table."""
    runs: dict[str, list[RunResult]] = {rule: [] for rule in contest.rules if rule in frozen.rules}
    records: dict[str, list[Record]] = {rule: [] for rule in runs}
    failed = dict.fromkeys(runs, 0)
    for trial in fresh_trials(plan, contest, frozen):
        record = find(folder, trial)
        if record is None:
            failed[trial.rule] += 1
            continue
        records[trial.rule].append(record)
        runs[trial.rule].append(run_of(record, contest, trial.file))
    level = plan.level or level_of(runs.get(plan.reference, []), contest.score)
    reference = tests_of(runs.get(plan.reference, []))
    rows = [
        row(
            rule,
            frozen.rules[rule],
            probe,
            contest.steps,
            runs[rule],
            records[rule],
            level,
            failed[rule],
            difference_of(tests_of(runs[rule]), reference) if rule != plan.reference else None,
            contest.score,
        )
        for rule in runs
    ]
    return Board(
        contest.title,
        plan.reference,
        level,
        contest.steps,
        protocol_of(plan, contest, frozen),
        verdict_of(plan, runs, contest.score),
        dict(left_out),
        rows,
        contest.score,
    )


def row(
    rule: str,
    choice: Choice,
    probe: Probe,
    steps: int,
    runs: list[RunResult],
    records: Sequence[Record],
    level: float | None,
    failed: int,
    difference: Mean | None,
    score: Score,
) -> Row:
    """What a table says of a rule."""
    facts = probe.rules[rule]
    sound = [record for record in records if not record["diverged"]]
    epochs = reached(runs, level, score)
    cost = Cost(
        "interleaved",
        facts.step,
        facts.ratio,
        None if epochs is None else epochs * steps * facts.step,
        *(mean_cost(sound, key) for key in ("host_bytes", "gpu_bytes", "joules")),
    )
    return Row(
        rule,
        facts.source,
        facts.needs,
        choice.rate,
        choice.at_an_edge,
        sum(run.diverged for run in runs),
        failed,
        mean_of([run.test for run in runs if run.test is not None]),
        difference,
        cost,
        mean_angles([record["angles"] for record in sound]),
        {f"{rate:g}": values for rate, values in choice.validation.items()},
        records[0]["command"] if records else "",
        next((record["config"] for record in sound if "config" in record), {}),
        runs,
    )


def run_of(record: Record, contest: Contest, path: str) -> RunResult:
    """A run as a table has it."""
    diverged = record["diverged"]
    return RunResult(
        record["seed"],
        diverged,
        contest.chance if diverged else record["test"],
        None if diverged else record["validation"],
        record.get("epoch_seconds", []),
        record.get("wall_seconds"),
        record.get("epochs", {}).get(f"val/{contest.score.name}", []),
        record["command"],
        record["commit"],
        path,
    )


def mean_of(values: Sequence[float]) -> Mean | None:
    """Mean, spread and interval; None of no values."""
    if not values:
        return None
    if len(values) == 1:
        return Mean(1, values[0], None, None)
    return Mean(len(values), fmean(values), stdev(values), interval(values).half)


def difference_of(tests: Mapping[int, float], reference: Mapping[int, float]) -> Mean | None:
    """The first minus the second, paired by seed; None of fewer than two pairs."""
    differences = list(paired(tests, reference).values())
    return mean_of(differences) if len(differences) > 1 else None


def tests_of(runs: Sequence[RunResult]) -> dict[int, float]:
    """Test scores by seed."""
    return {run.seed: run.test for run in runs if run.test is not None}


def mean_cost(records: Sequence[Record], key: str) -> float | None:
    """Of what runs took, the mean over those that know it."""
    known = [record["cost"][key] for record in records if record.get("cost", {}).get(key) is not None]
    return fmean(known) if known else None


def mean_angles(runs: Sequence[Mapping[Any, Mapping[str, float]]]) -> dict[str, dict[str, float]]:
    """By block and epoch, means over the runs that measured them; epochs are texts, which JSON's keys are."""
    by_block: dict[str, dict[str, list[float]]] = {}
    for by_epoch in runs:
        for epoch, angles in by_epoch.items():
            for block, angle in angles.items():
                by_block.setdefault(block, {}).setdefault(str(epoch), []).append(angle)
    return {block: {epoch: fmean(values) for epoch, values in epochs.items()} for block, epochs in by_block.items()}


def level_of(runs: Sequence[RunResult], score: Score = ACCURACY) -> float | None:
    """The validation score whose price is told, by what the reference ends with."""
    ends = [run.curve[-1] for run in runs if run.curve]
    return round(SHARE**score.sign * fmean(ends), 4) if ends else None


def reached(runs: Sequence[RunResult], level: float | None, score: Score = ACCURACY) -> int | None:
    """The first epoch after which the mean of the curves is at the level; None if none is."""
    curves = [run.curve for run in runs if run.curve]
    if level is None or not curves or len(curves) < len(runs):  # a run that diverged never gets there
        return None
    means = map(fmean, zip(*curves, strict=False))
    return next((epoch for epoch, mean in enumerate(means, start=1) if score.reaches(mean, level)), None)


def verdict_of(plan: Plan, runs: Mapping[str, Sequence[RunResult]], score: Score = ACCURACY) -> str | None:
    """The one comparison with a verdict, in words, once all of its runs are there."""
    verdict = plan.verdict
    if verdict is None or verdict.rule not in runs:
        return None
    differences = paired(tests_of(runs[verdict.rule]), tests_of(runs[plan.reference]))
    if len(differences) < len(verdict.seeds):
        return f"No verdict: {len(verdict.seeds) - len(differences)} pairs of runs are missing."
    test = tost([score.scale * each for each in differences.values()], verdict.margin)
    margin, digits = f"{verdict.margin:g}", score.digits
    mean, low, high = (f"{each:+.{digits}f}" for each in (test.mean, test.interval.low, test.interval.high))
    return (
        f"{verdict.rule} minus {plan.reference}, {test.n} paired seeds: {mean} {score.steps or score.title} "
        f"(sd {test.sd:.{digits}f}), 90 % interval {low} to {high}, margin {margin}. Two one-sided t tests "
        f"at 5 %: p = {test.p_above:.3g} for above -{margin}, {test.p_below:.3g} for below {margin}. "
        f"Verdict: {test.verdict if score.sign > 0 else MIRRORED.get(test.verdict, test.verdict)}."
    )


def protocol_of(plan: Plan, contest: Contest, frozen: Frozen) -> dict[str, Any]:
    """All that rows of a table must share to stand beside rows of another one."""
    config = deciding(contest.settings(plan, plan.reference, plan.search.rates[0]))
    config.get("scheduler", {}).pop("eta_min", None)  # the optimiser's `final_rate` says it in effective numbers
    return {
        "task": contest.title,
        "datamodule": config["datamodule"],
        "network": config["network"],
        "trainer": config["trainer"],
        "scheduler": config.get("scheduler"),
        "loss": {key: config["model"].get(key) for key in ("loss", "label_smoothing")},
        "optimizer": asdict(plan.optimizer),
        "steps": contest.steps,
        "rates": frozen.rates,
        "search_seeds": frozen.seeds,
        "seeds": list(plan.seeds),
        "reference": plan.reference,
    }
