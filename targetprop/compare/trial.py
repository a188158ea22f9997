"""One run of a comparison."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from targetprop.compare.contest import Contest
from targetprop.compare.plan import Plan, Settings

ALWAYS = ("logger=csv", "callbacks.best=null")
"""Of every run: its metrics in a file; and the last weights are evaluated, no checkpoint is chosen."""
Phase = Literal["search", "fresh"]


@dataclass(frozen=True)
class Trial:
    """A run.

    Attributes:
        contest: name of the contest that it belongs to.
        rate: effective one.
        settings: overrides of this rule at this rate.
    """

    phase: Phase
    contest: str
    rule: str
    rate: float
    seed: int
    settings: Settings

    def __str__(self) -> str:
        return f"{self.contest}: {self.rule}, rate {self.rate:g}, seed {self.seed}"

    @property
    def overrides(self) -> list[str]:
        """All that decides its result; only fresh runs see the test set."""
        return [*self.settings, *ALWAYS, f"test={str(self.phase == 'fresh').lower()}", f"seed={self.seed}"]

    @property
    def file(self) -> str:
        """Of its record, below the folder of records."""
        return f"{self.phase}/{self.contest}/{self.rule}_rate_{self.rate:g}_seed_{self.seed}.json"


def search_trial(plan: Plan, contest: Contest, rule: str, rate: float, seed: int) -> Trial:
    """A run of the search."""
    return Trial("search", contest.name, rule, rate, seed, contest.settings(plan, rule, rate))


def search_trials(plan: Plan, contest: Contest, rules: Sequence[str], rates: Sequence[float]) -> list[Trial]:
    """All runs of the search for these rules at these rates, seed by seed."""
    return [
        search_trial(plan, contest, rule, rate, seed) for seed in plan.search.seeds for rate in rates for rule in rules
    ]
