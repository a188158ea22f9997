"""A picture of a search: values in the order of the trials, and over each of the numbers that were varied."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import accumulate
from pathlib import Path

import numpy as np
import optuna
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from targetprop.app.search.study import minimizes
from targetprop.utils.files import whole_file

WIDTH, HEIGHT = 3.4, 3.0
"""Inches of a panel."""
MARGIN = 0.05
"""Share of an axis beyond the ends of what may be tried."""
GOOD, EARLY, BEST = "#3b6ea5", "#b0b0b0", "#c44e52"


def short(key: str) -> str:
    """A key as a column or an axis calls it."""
    return key.removeprefix("model.hparams.")


def draw(study: optuna.Study, varied: Mapping[str, BaseDistribution], path: Path) -> None:
    """Draw all trials with a value, also of those that were ended early their last one."""
    trials = [each for each in study.trials if each.value is not None and np.isfinite(each.value)]
    figure = Figure(figsize=(WIDTH * (1 + len(varied)), HEIGHT), layout="constrained")
    FigureCanvasAgg(figure)
    first, *others = np.atleast_1d(figure.subplots(1, 1 + len(varied), sharey=True)).tolist()
    _history(first, trials, min if minimizes(study) else max)
    for axes, (key, distribution) in zip(others, varied.items(), strict=True):
        _over(axes, key, distribution, [each for each in trials if key in each.params])
    with whole_file(path) as partial:
        figure.savefig(partial, format="png", dpi=120)


def _history(axes: Axes, trials: list[FrozenTrial], better: Callable[[float, float], float]) -> None:
    """Values in the order of the trials, and the best so far."""
    numbers = [each.number for each in trials]
    axes.scatter(numbers, _values(trials), c=_colours(trials), s=16)
    whole = [each for each in trials if each.state == TrialState.COMPLETE]
    best: list[float] = list(accumulate(_values(whole), better))
    axes.step([each.number for each in whole], best, where="post", color=BEST, label="best so far")
    axes.set_xlabel("trial")
    axes.set_ylabel("value")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(
        loc="lower right" if better is max else "upper right",
        fontsize="small",
        title="grey: ended early",
        title_fontsize="small",
    )


def _over(axes: Axes, key: str, distribution: BaseDistribution, trials: list[FrozenTrial]) -> None:
    """Values over one of the numbers."""
    tried = [each.params[key] for each in trials]
    if isinstance(distribution, CategoricalDistribution):
        choices = [str(each) for each in distribution.choices]
        axes.set_xticks(range(len(choices)), choices, rotation=30, ha="right", fontsize="small")
        tried = [choices.index(str(each)) for each in tried]
    elif isinstance(distribution, FloatDistribution | IntDistribution):
        _whole_range(axes, distribution)
    axes.scatter(tried, _values(trials), c=_colours(trials), s=16)
    axes.set_xlabel(short(key))


def _whole_range(axes: Axes, distribution: FloatDistribution | IntDistribution) -> None:
    """An axis over all that may be tried, not only what has been."""
    low, high = float(distribution.low), float(distribution.high)
    if not distribution.log:
        margin = MARGIN * (high - low)
        axes.set_xlim(low - margin, high + margin if high > low else low + 1)
        return
    axes.set_xscale("log")
    if high > low:
        margin = (high / low) ** MARGIN
        axes.set_xlim(low / margin, high * margin)
    if high >= 10 * low:  # else there may be no power of ten to be labelled
        axes.xaxis.set_minor_formatter(NullFormatter())


def _values(trials: list[FrozenTrial]) -> list[float]:
    return [each.value for each in trials if each.value is not None]


def _colours(trials: list[FrozenTrial]) -> list[str]:
    return [GOOD if each.state == TrialState.COMPLETE else EARLY for each in trials]
