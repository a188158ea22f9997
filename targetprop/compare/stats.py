"""Student's t, intervals of a mean, and the paired test of equivalence: numbers in, numbers out.

A difference d of two ways to train, paired by seed, is tested against a margin m by two one-sided t tests (Schuirmann
1987): one that its mean is above -m, one that it is below m. Both reject at 5 % exactly where the 90 % interval of the
mean lies within the margin, so that interval is what verdicts are read from, and what a picture shows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from statistics import fmean, stdev
from typing import Literal, NamedTuple

Verdict = Literal["equivalent", "worse", "better", "undecided"]
LEVEL = 0.05
"""Of each of the two one-sided tests."""


def student_cdf(t: float, freedom: int) -> float:
    """The share of Student's distribution below t, by its finite sum for whole degrees of freedom.

    Abramowitz and Stegun, "Handbook of Mathematical Functions", 26.7.3 and 26.7.4.
    """
    angle = math.atan(t / math.sqrt(freedom))
    cosine, odd = math.cos(angle), freedom % 2
    factors = range(2 + odd, freedom - 1, 2)
    terms = accumulate(factors, lambda term, i: term * cosine**2 * (i - 1) / i, initial=cosine if odd else 1.0)
    series = math.sin(angle) * sum(terms) if freedom > 1 else 0.0
    central = 2 / math.pi * (angle + series) if odd else series  # the share between -t and t
    return (1 + central) / 2


def student(freedom: int, share: float = 0.975) -> float:
    """The t below which this share of Student's distribution lies, for shares from .5 on."""
    low, high = 0.0, 1.0
    while student_cdf(high, freedom) < share:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if student_cdf(middle, freedom) < share else (low, middle)
    return (low + high) / 2


class Interval(NamedTuple):
    """Of a mean: its middle, and half its width."""

    middle: float
    half: float

    @property
    def low(self) -> float:
        return self.middle - self.half

    @property
    def high(self) -> float:
        return self.middle + self.half


def interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """The interval of the mean of two values or more."""
    quantile = student(len(values) - 1, (1 + confidence) / 2)
    return Interval(fmean(values), quantile * standard_error(values))


def standard_error(values: Sequence[float]) -> float:
    """Of the mean."""
    return stdev(values) / math.sqrt(len(values))


def paired(first: Mapping[int, float], second: Mapping[int, float]) -> dict[int, float]:
    """First minus second, for every seed that both have."""
    return {seed: first[seed] - second[seed] for seed in sorted(first.keys() & second.keys())}


@dataclass(frozen=True)
class Equivalence:
    """The result of two one-sided t tests.

    Attributes:
        n: number of pairs.
        mean, sd: of the differences.
        interval: of their mean; it holds with 90 %, as each test is made at 5 %.
        p_above: of the test that the mean is above -margin.
        p_below: of the test that it is below the margin.
        verdict: see `verdict_of`.
    """

    n: int
    mean: float
    sd: float
    interval: Interval
    margin: float
    p_above: float
    p_below: float
    verdict: Verdict


def tost(differences: Sequence[float], margin: float) -> Equivalence:
    """Two one-sided t tests at 5 % that the mean of paired differences lies within -margin and margin."""
    n, middle, error = len(differences), fmean(differences), standard_error(differences)
    within = interval(differences, 1 - 2 * LEVEL)
    p_above = 1 - student_cdf(_ratio(middle + margin, error), n - 1)
    p_below = student_cdf(_ratio(middle - margin, error), n - 1)
    verdict = verdict_of(within, margin)
    return Equivalence(n, middle, stdev(differences), within, margin, p_above, p_below, verdict)


def verdict_of(within: Interval, margin: float) -> Verdict:
    """What the 90 % interval of the mean difference says.

    Within the margin it is "equivalent". Wholly below -margin it is "worse", wholly above the margin "better". Anything
    else is "undecided": the interval crosses an end of the margin, even if it leaves out 0.
    """
    if -margin < within.low and within.high < margin:
        return "equivalent"
    if within.high < -margin:
        return "worse"
    return "better" if within.low > margin else "undecided"


def _ratio(distance: float, error: float) -> float:
    """The t statistic; that of differences without any spread is infinite."""
    if error == 0:
        return math.copysign(math.inf, distance) if distance else 0.0
    return distance / error
