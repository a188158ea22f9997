"""All measures by name, and how to take some of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from inspect import signature
from typing import TYPE_CHECKING, Any

from torch import Tensor

from targetprop.measure.alignment import backprop, feedback_weights
from targetprop.measure.gauss_newton import gauss_newton, gauss_newton_targets
from targetprop.measure.genuineness import genuineness
from targetprop.measure.jacobians import inverse, transpose
from targetprop.measure.probe import Loss, Probe, check_numbers
from targetprop.measure.rank import rank
from targetprop.measure.reach import reach, reconstruction
from targetprop.measure.shares import time_share
from targetprop.utils.errors import prefixed, refuse_unknown, require, unknown

if TYPE_CHECKING:
    from targetprop.trainable import Trainable


@dataclass(frozen=True)
class Measure:
    """A function of a `Probe`, and of numbers of its own, to values by name: `quantity/block{n}`, from 1.

    Attributes:
        quantities: what it measures: the name of each quantity, and the label of its axis, with its unit.
        of_updates: whether it looks at the update, which must then be of this one batch.
    """

    function: Callable[..., dict[str, float]]
    quantities: Mapping[str, str]
    of_updates: bool = False

    @property
    def numbers(self) -> list[str]:
        """Names of its numbers."""
        return list(signature(self.function).parameters)[1:]


MEASURES: Mapping[str, Measure] = {
    "backprop": Measure(
        backprop,
        {
            "angle": "angle to backprop (degrees)",
            "norm_ratio": "norm relative to backprop",
        },
        of_updates=True,
    ),
    "gauss_newton": Measure(
        gauss_newton,
        {
            "gauss_newton_angle": "angle to Gauss-Newton (degrees)",
            "gauss_newton_ratio": "norm relative to Gauss-Newton",
            "gauss_newton_residual": "residual of Gauss-Newton",
        },
        of_updates=True,
    ),
    "gauss_newton_targets": Measure(
        gauss_newton_targets,
        {
            "gnt_angle": "angle to GNT (degrees)",
            "gnt_ratio": "norm relative to GNT",
        },
        of_updates=True,
    ),
    "feedback_weights": Measure(
        feedback_weights,
        {
            "feedback_angle": "angle of V to W^T (degrees)",
            "feedback_distance": "|V - W^T| / |W|",
        },
    ),
    "transpose": Measure(
        transpose,
        {
            "transpose_angle": "angle of J_G to J_F^T (degrees)",
            "transpose_ratio": "|J_G| / |J_F|",
        },
    ),
    "inverse": Measure(
        inverse,
        {
            "inverse_angle": "angle of J_G to pinv J_F (degrees)",
            "inverse_ratio": "|J_G| / |pinv J_F|",
            "inverse_residual": "residual of pinv J_F",
        },
    ),
    "reconstruction": Measure(
        reconstruction,
        {
            "reconstruction": "relative error of reconstruction",
            "difference_reconstruction": "the same, of differences",
        },
    ),
    "reach": Measure(
        reach,
        {
            "reach": "missed of the way to the target",
            "out_of_range": "share of target units out of range",
        },
    ),
    "rank": Measure(
        rank,
        {
            "activation_rank": "effective rank of activations",
            "update_rank": "effective rank of updates",
        },
        of_updates=True,
    ),
    "time_share": Measure(time_share, {"time_share": "share of step time"}),
    "nonlinearity": Measure(genuineness, {"nonlinearity": "nonlinearity of targets"}),
}
"""Measures by name."""


Numbers = Mapping[str, Mapping[str, Any]]
"""By names of measures, those of their numbers that are not to be the default ones."""


def chosen(which: Sequence[str], numbers: Numbers | None = None) -> dict[str, Callable[[Probe], dict[str, float]]]:
    """The measures of these names, each with its numbers, as functions of a `Probe` alone.

    Raises:
        UserError: a name that there is not, or numbers that no measure among these has.
    """
    require(not isinstance(which, str), "which", "names of measures", which)
    numbers = numbers or {}
    for name in which:
        if name not in MEASURES:
            raise unknown("which", name, MEASURES)
    with prefixed("numbers"):
        refuse_unknown(numbers, which)
        for name, own in numbers.items():
            require(isinstance(own, Mapping), name, "its numbers by name", own)
            with prefixed(name):
                refuse_unknown(own, MEASURES[name].numbers)
                check_numbers(**own)
    return {name: partial(MEASURES[name].function, **numbers.get(name, {})) for name in which}


def measure(
    learner: Trainable, x: Tensor, y: Tensor, loss: Loss, which: Sequence[str], numbers: Numbers | None = None
) -> dict[str, float]:
    """Measure a learner on a batch, and change nothing of it.

    >>> measure(learner, x, y, F.cross_entropy, ["reach", "inverse"], {"inverse": {"damping": 0.1}})

    Args:
        learner: what is trained.
        x, y: a batch, (batch, ...), and what the loss is told of it.
        loss: (output, y) -> one value per sample (batch,), or their mean.
        which: names in `MEASURES`.
        numbers: of these measures, by name, where they are not to be the default ones.

    Returns:
        Values by name: `quantity/block{n}`, blocks counted from 1.

    Raises:
        UserError: a name or a number that there is not, or a measure that makes no sense for this learner.
    """
    probe = Probe(learner, x, y, loss)
    values: dict[str, float] = {}
    for taken in chosen(which, numbers).values():
        values |= taken(probe)
    return values
