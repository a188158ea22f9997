"""Rates, chosen on the validation split by one rule for all: the same grid, the same seeds.

Every rate is tried with every seed of the search. The best rate of a rule has the best validation score after the last
epoch (the highest accuracy, the fewest bits), mean over the seeds; of equal ones it is the lowest. While the best rate
of any rule lies at an edge, the grid grows there, for every rule, by its outermost ratio.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean

from targetprop.app.score import ACCURACY, Score
from targetprop.compare.contest import Contest
from targetprop.compare.plan import Plan
from targetprop.compare.records import find
from targetprop.compare.trial import search_trial

Look = Callable[[str, float, int], float | None]
"""Validation score of a rule, at a rate, with a seed; None if that has not been run."""
Scores = dict[float, list[float]]
"""By rate, of all seeds of the search."""


def best_rate(scores: Mapping[float, Sequence[float]], score: Score = ACCURACY) -> float:
    """The rate with the best mean; of equal ones the lowest."""
    return max(sorted(scores), key=lambda rate: score.sign * fmean(scores[rate]))


def extended(rates: Sequence[float], best: Iterable[float], most: int) -> tuple[float, ...]:
    """The rates, and one more at either end where a best one lies, by the ratio of the last two there."""
    best, grown = set(best), list(rates)
    if rates[0] in best and len(grown) < most:
        grown.insert(0, _rounded(rates[0] * rates[0] / rates[1]))
    if rates[-1] in best and len(grown) < most:
        grown.append(_rounded(rates[-1] * rates[-1] / rates[-2]))
    return tuple(grown)


def _rounded(rate: float) -> float:
    return float(f"{rate:.6g}")


def searched(plan: Plan, rule: str, rates: Sequence[float], look: Look) -> Scores | None:
    """What the search found for a rule at these rates; None while any of it is missing."""
    found: Scores = {}
    for rate in rates:
        seen = [look(rule, rate, seed) for seed in plan.search.seeds]
        found[rate] = [each for each in seen if each is not None]
        if len(found[rate]) < len(seen):
            return None
    return found


def grid(plan: Plan, rules: Sequence[str], look: Look, score: Score = ACCURACY) -> tuple[float, ...]:
    """The rates of the plan, grown as often as a search that is complete has some best rate at an edge."""
    rates = plan.search.rates
    while True:
        found = [searched(plan, rule, rates, look) for rule in rules]
        complete = [each for each in found if each is not None]
        if not complete or len(complete) < len(found):
            return rates
        best = [best_rate(each, score) for each in complete]
        grown = extended(rates, best, plan.search.most_rates)
        if grown == rates:
            return rates
        rates = grown


def recorded(plan: Plan, contest: Contest, folder: Path) -> Look:
    """Looks at the records in a folder; a run that diverged has the score of chance."""

    def look(rule: str, rate: float, seed: int) -> float | None:
        record = find(folder, search_trial(plan, contest, rule, rate, seed))
        if record is None:
            return None
        return contest.chance if record["diverged"] else float(record["validation"])

    return look
