"""Statistics: numbers in, numbers out."""

from __future__ import annotations

import math

import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from targetprop.compare.stats import Interval, interval, paired, student, student_cdf, tost, verdict_of


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
