"""What a search varies, from Hydra's words to Optuna's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from hydra.errors import HydraException
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from targetprop.utils.errors import UserError

WORDS = "interval(0.1, 1), tag(log, interval(1e-3, 1)), range(1, 10) or choice(a, b)"


class Space(NamedTuple):
    """What is varied, and what is not.

    Attributes:
        varied: by the keys of the configuration.
        fixed: overrides of every trial.
    """

    varied: dict[str, BaseDistribution]
    fixed: list[str]


def space_of(params: Mapping[str, Any], arguments: Iterable[str]) -> Space:
    """The space of a search: the sweeps in `params`, and those typed, which replace them.

    Raises:
        UserError: one cannot be read, or nothing is varied.
    """
    given = {key: f"{key}={value}" for key, value in params.items()}
    typed = [_parsed(each) for each in arguments]
    varied: dict[str, BaseDistribution] = {}
    fixed = []
    for override in (*map(_parsed, given.values()), *typed):
        key = override.key_or_group
        varied.pop(key, None)
        if override.is_sweep_override():
            varied[key] = _distribution(override)
        else:
            fixed.append(str(override.input_line))
    if not varied:
        raise UserError(f"expected something to vary, {WORDS}, got none", key="hydra.sweeper.params")
    return Space(varied, [each for each in fixed if _parsed(each).key_or_group not in varied])


def override_of(key: str, value: object) -> str:
    """The override that sets what a trial is to try."""
    return f"{key}={value}"


def _parsed(override: str) -> Override:
    try:
        return OverridesParser.create().parse_override(override)
    except HydraException as error:
        key, _, value = override.partition("=")
        raise UserError(f"expected {WORDS}, got {value!r} ({' '.join(str(error).split())})", key=key) from None


def _distribution(override: Override) -> BaseDistribution:
    """What Optuna calls a sweep.

    Raises:
        UserError: there is nothing of the kind.
    """
    key, value = override.key_or_group, override.value()
    try:
        if isinstance(value, IntervalSweep):
            return _interval(value)
        if isinstance(value, RangeSweep):
            return _range(value)
        return CategoricalDistribution(list(override.sweep_string_iterator()))
    except (ValueError, HydraException) as error:
        reason = " ".join(str(error).split())
        given = str(override.input_line).partition("=")[2]
        raise UserError(f"expected {WORDS}, got {given!r}: {reason}", key=key) from None


def _interval(value: IntervalSweep) -> BaseDistribution:
    low, high, log = value.start, value.end, "log" in value.tags
    if low is None or high is None:
        raise ValueError("it has no ends")
    if isinstance(low, int) and isinstance(high, int):
        return IntDistribution(low, high, log=log)
    return FloatDistribution(float(low), float(high), log=log)


def _range(value: RangeSweep) -> BaseDistribution:
    steps = [float(each) for each in value.range()]
    if not steps:
        raise ValueError("it is empty")
    low, high = min(steps[0], steps[-1]), max(steps[0], steps[-1])
    step = abs(float(value.step))
    if all(each.is_integer() for each in (low, high, step)):
        return IntDistribution(int(low), int(high), step=int(step), log="log" in value.tags)
    return FloatDistribution(low, high, step=step)
