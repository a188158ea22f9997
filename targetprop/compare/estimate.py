"""How long a comparison takes, before it starts: from the measured steps of each rule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rich.table import Table

from targetprop.compare.contest import Contest
from targetprop.compare.plan import Plan
from targetprop.compare.probe import Probe

AROUND = 1.5
"""Processor's seconds of a run beside its start, steps and evaluations: first looks at the rule, files, curves."""
PER_STEP = 0.002
"""Processor's seconds that the training loop takes for a step beside the rule: data, metrics, the trainer itself."""


@dataclass(frozen=True)
class Estimate:
    """Of a rule in a contest.

    Attributes:
        seconds: of the processor, for one run.
        search, most: runs of the search, with the rates of the plan and with as many as the grid may grow to.
        fresh: runs that are reported.
    """

    contest: str
    rule: str
    ratio: float
    seconds: float
    search: int
    most: int
    fresh: int

    @property
    def hours(self) -> float:
        """Core-hours, if the grid does not grow."""
        return (self.search + self.fresh) * self.seconds / 3600

    @property
    def most_hours(self) -> float:
        """Core-hours, if it grows as far as it may."""
        return (self.most + self.fresh) * self.seconds / 3600


def seconds_of_a_run(probe: Probe, contest: Contest, rule: str) -> float:
    """Processor's seconds of a run: start, steps, epochs of the feedback alone, validations, test."""
    facts = probe.rules[rule]
    steps = contest.steps * (probe.epochs * (facts.processor + PER_STEP) + facts.feedback)
    return AROUND + probe.startup + steps + probe.epochs * probe.evaluation + probe.test


def estimates(plan: Plan, contests: list[Contest], probes: Mapping[str, Probe]) -> list[Estimate]:
    """Of every rule in every contest."""
    made = []
    for contest in contests:
        probe = probes[contest.task.name]
        for rule in contest.rules:
            seeds, seconds = len(plan.search.seeds), seconds_of_a_run(probe, contest, rule)
            runs = (
                seeds * len(plan.search.rates),
                seeds * plan.search.most_rates,
                len(plan.fresh_seeds(rule, contest.rules)),
            )
            made.append(Estimate(contest.title, rule, probe.rules[rule].ratio, seconds, *runs))
    return made


def table_of(made: list[Estimate]) -> Table:
    """A row for each, and the sum."""
    table = Table(title="Core-hours, from measured steps", title_justify="left")
    for heading in ("contest", "rule"):
        table.add_column(heading)
    for heading in ("step, x reference", "s a run", "runs: search", "fresh", "core-hours", "at most"):
        table.add_column(heading, justify="right")
    shown = ""
    for each in made:
        runs = (f"{each.search} to {each.most}" if each.most > each.search else str(each.search), str(each.fresh))
        numbers = (f"{each.ratio:.2f}", f"{each.seconds:.0f}", *runs, f"{each.hours:.2f}", f"{each.most_hours:.2f}")
        table.add_row("" if each.contest == shown else each.contest, each.rule, *numbers)
        shown = each.contest
    return table


def sentence(made: list[Estimate], jobs: int) -> str:
    """The sum in words."""
    hours, most = sum(each.hours for each in made), sum(each.most_hours for each in made)
    runs = sum(each.search + each.fresh for each in made)
    return (
        f"Estimate: {hours:.2f} core-hours for {runs} runs, {most:.2f} if every grid grows as far as it may; "
        f"{jobs} at a time: {hours / jobs:.2f} to {most / jobs:.2f} hours."
    )
