"""What fresh runs say: a table for all methods, and the verdict of the primary comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from rich.table import Column
from rich.table import Table as RichTable

from protocol.choice import Frozen, fresh_trials
from protocol.plan import Plan
from protocol.stats import Equivalence, Interval, interval, paired, tost
from protocol.trials import Record, find, missing
from targetprop.utils.errors import UserError

HEADINGS = ("method", "rate", "n", "test, %", "sd", "95 %", "minus {reference}, 95 %", "diverged", "training, s")


@dataclass(frozen=True)
class Row:
    """A method: test accuracies in %, and differences to the reference in points.

    Attributes:
        within: 95 % interval of the mean.
        difference: of the mean difference to the reference, paired by seed, the 95 % interval; None of itself.
        seconds: of training, mean over runs that did not diverge; None if all did.
        angles: to backprop, by block, mean over the last epoch and over runs.
    """

    method: str
    rate: float
    n: int
    mean: float
    sd: float
    within: Interval
    difference: Interval | None
    diverged: int
    seconds: float | None
    angles: dict[str, float]


@dataclass(frozen=True)
class Report:
    """All of it, by method in the order of the plan.

    Attributes:
        tests: test accuracies in % by method and seed.
        equivalence: of the primary comparison, if there is one.
        runs: the records of the fresh runs.
    """

    plan: Plan
    frozen: Frozen
    tests: Mapping[str, Mapping[int, float]]
    rows: Sequence[Row]
    equivalence: Equivalence | None
    runs: Mapping[str, Sequence[Record]]

    @property
    def reference(self) -> str:
        return reference_of(self.plan)

    @property
    def differences(self) -> dict[int, float]:
        """Of the primary comparison, in points by seed."""
        primary = self.plan.primary
        return paired(self.tests[primary.method], self.tests[primary.reference]) if primary else {}


def reference_of(plan: Plan) -> str:
    """What the others are subtracted from: the primary reference, or the first method."""
    return plan.primary.reference if plan.primary else next(iter(plan.methods))


def make_report(plan: Plan, frozen: Frozen, folder: Path) -> Report:
    """Read all records.

    Raises:
        UserError: fresh runs are missing; nothing is reported before all of them are there.
    """
    trials = fresh_trials(plan, frozen)
    if lacking := missing(folder, trials):
        raise UserError(
            f"{len(lacking)} of {len(trials)} fresh runs are missing, the first is {lacking[0]}; `run` them."
        )
    runs: dict[str, list[Record]] = {name: [] for name in plan.methods}
    for trial in trials:
        runs[trial.method].append(find(folder, trial) or {})
    tests = {name: {run["seed"]: 100 * test_accuracy(run, plan.chance) for run in each} for name, each in runs.items()}
    reference = tests[reference_of(plan)]
    rows = [row_of(name, frozen.chosen[name], runs[name], tests[name], reference) for name in plan.methods]
    return Report(plan, frozen, tests, rows, equivalence_of(plan, tests), runs)


def test_accuracy(run: Record, chance: float) -> float:
    """That of chance, if the run diverged."""
    return chance if run["diverged"] else run["test"]


def equivalence_of(plan: Plan, tests: Mapping[str, Mapping[int, float]]) -> Equivalence | None:
    """The test of the primary comparison."""
    if plan.primary is None:
        return None
    differences = paired(tests[plan.primary.method], tests[plan.primary.reference])
    return tost(list(differences.values()), plan.primary.margin)


def row_of(
    name: str, rate: float, runs: Sequence[Record], tests: Mapping[int, float], reference: Mapping[int, float]
) -> Row:
    """What a table says of a method."""
    values = list(tests.values())
    differences = list(paired(tests, reference).values())
    sound = [run for run in runs if not run["diverged"]]
    return Row(
        name,
        rate,
        len(values),
        fmean(values),
        stdev(values),
        interval(values),
        interval(differences) if tests != reference else None,
        len(runs) - len(sound),
        fmean(sum(run["epoch_seconds"]) for run in sound) if sound else None,
        last_angles(sound),
    )


def last_angles(runs: Sequence[Record]) -> dict[str, float]:
    """By block, means over the last epoch and over the runs that measured them."""
    last = [list(run["angles"].values())[-1] for run in runs if run["angles"]]
    return {block: fmean(each[block] for each in last) for block in (last[0] if last else ())}


def verdict_line(report: Report) -> str:
    """The primary comparison in one paragraph."""
    primary, test = report.plan.primary, report.equivalence
    if primary is None or test is None:
        return "No comparison of this plan gets a verdict: all of it is descriptive."
    within, margin = test.interval, f"{test.margin:g}"
    return (
        f"{primary.method} minus {primary.reference}, {test.n} paired seeds: {test.mean:+.2f} points "
        f"(sd {test.sd:.2f}), 90 % interval {within.low:+.2f} to {within.high:+.2f}, margin {margin}. "
        f"One-sided p = {test.p_above:.3g} for above -{margin}, {test.p_below:.3g} for below {margin}. "
        f"Verdict: {test.verdict}."
    )


def headings(report: Report) -> list[str]:
    """Of the table."""
    return [heading.format(reference=report.reference) for heading in HEADINGS]


def cells(row: Row) -> list[str]:
    """A row as texts."""
    difference = f"{row.difference.middle:+.2f} +- {row.difference.half:.2f}" if row.difference else ""
    spread = f"{row.within.low:.2f} to {row.within.high:.2f}"
    diverged, seconds = str(row.diverged or ""), "" if row.seconds is None else f"{row.seconds:.0f}"
    return [
        row.method,
        f"{row.rate:g}",
        str(row.n),
        f"{row.mean:.2f}",
        f"{row.sd:.2f}",
        spread,
        difference,
        diverged,
        seconds,
    ]


def terminal_table(report: Report) -> RichTable:
    """A row for each method."""
    columns = [Column(heading, justify="left" if heading == "method" else "right") for heading in headings(report)]
    table = RichTable(*columns, title=report.plan.question)
    for row in report.rows:
        table.add_row(*cells(row))
    return table


def angle_table(report: Report) -> RichTable:
    """Of every method that has them, angles to backprop in the last epoch."""
    blocks = list(dict.fromkeys(block for row in report.rows for block in row.angles))
    columns = [Column(block, justify="right") for block in blocks]
    table = RichTable("method", *columns, title="Angle between update and backprop gradient in the last epoch, degrees")
    for row in report.rows:
        if row.angles:
            table.add_row(row.method, *(f"{row.angles[block]:.1f}" for block in blocks))
    return table


def markdown(report: Report) -> str:
    """The table and the verdict, for a README."""
    heads = headings(report)
    lines = [heads, ["---"] * len(heads), *map(cells, report.rows)]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{table}\n\n{verdict_line(report)}\n"


def as_json(report: Report) -> dict[str, Any]:
    """All of it, with the machines and commits of the runs, and the time they took one after the other."""
    runs = [run for each in report.runs.values() for run in each]
    return {
        "question": report.plan.question,
        "frozen": {**asdict(report.frozen), "validation": named_rates(report.frozen)},
        "rows": [asdict(row) for row in report.rows],
        "primary": asdict(report.plan.primary) if report.plan.primary else None,
        "equivalence": asdict(report.equivalence) if report.equivalence else None,
        "differences": report.differences,
        "commits": sorted({run["commit"] for run in runs}),
        "machines": [dict(facts) for facts in sorted({tuple(run["machine"].items()) for run in runs})],
        "wall_seconds": round(sum(run["wall_seconds"] for run in runs), 1),
        "runs": runs,
    }


def named_rates(frozen: Frozen) -> dict[str, dict[str, list[float]]]:
    """The validation table with rates as texts, which JSON's keys are."""
    return {name: {f"{rate:g}": values for rate, values in each.items()} for name, each in frozen.validation.items()}


def validation_table(frozen: Frozen) -> RichTable:
    """Mean validation accuracy by method and rate, the chosen one in bold."""
    columns = [Column(f"{rate:g}", justify="right") for rate in frozen.rates]
    table = RichTable("method", *columns, title="Validation accuracy by effective rate, %")
    for name, by_rate in frozen.validation.items():
        means = {rate: f"{100 * fmean(values):.2f}" for rate, values in by_rate.items()}
        means[frozen.chosen[name]] = f"[bold]{means[frozen.chosen[name]]}[/bold]"
        table.add_row(name, *(means[rate] for rate in frozen.rates))
    return table
