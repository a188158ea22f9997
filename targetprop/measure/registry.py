"""All measures by name, and how to take some of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import TYPE_CHECKING, Any

from torch import Tensor

from targetprop.measure.alignment import backprop, feedback_weights
from targetprop.measure.gauss_newton import gauss_newton, gauss_newton_targets
from targetprop.measure.genuineness import genuineness
from targetprop.measure.jacobians import inverse, transpose
from targetprop.measure.probe import Loss, Probe
from targetprop.measure.rank import rank
from targetprop.measure.reach import reach, reconstruction
from targetprop.measure.shares import time_share
from targetprop.utils.errors import prefixed, refuse_unknown, require, unknown

if TYPE_CHECKING:
    from targetprop.learner import Trainable


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
            "angle": "angle of update to backprop (degrees)",
            "norm_ratio": "norm of update, relative to backprop",
        },
        of_updates=True,
    ),
    "gauss_newton": Measure(
        gauss_newton,
        {
            "gauss_newton_angle": "angle of update to Gauss-Newton (degrees)",
            "gauss_newton_ratio": "norm of update, relative to Gauss-Newton",
            "gauss_newton_residual": "residual of the Gauss-Newton update",
        },
        of_updates=True,
    ),
    "gauss_newton_targets": Measure(
        gauss_newton_targets,
        {
            "gnt_angle": "angle of update to that of GNT (degrees)",
            "gnt_ratio": "norm of update, relative to GNT",
        },
        of_updates=True,
    ),
    "feedback_weights": Measure(
        feedback_weights,
        {
            "feedback_angle": "angle of V to the transposed W (degrees)",
            "feedback_distance": "distance of V to the transposed W, relative to W",
        },
    ),
    "transpose": Measure(
        transpose,
        {
            "transpose_angle": "angle of the feedback's Jacobian to J^T (degrees)",
            "transpose_ratio": "norm of the feedback's Jacobian, relative to J^T",
        },
    ),
    "inverse": Measure(
        inverse,
        {
            "inverse_angle": "angle of the feedback's Jacobian to pinv J (degrees)",
            "inverse_ratio": "norm of the feedback's Jacobian, relative to pinv J",
            "inverse_residual": "residual of pinv J",
        },
    ),
    "reconstruction": Measure(
        reconstruction,
        {
            "reconstruction": "error of reconstruction, relative",
            "difference_reconstruction": "error of reconstructed differences, relative",
        },
    ),
    "reach": Measure(
        reach,
        {
            "reach": "what is missed of the way to the target",
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
    "nonlinearity": Measure(genuineness, {"nonlinearity": "how far targets are from linear in the error"}),
}
"""Measures by name."""


Choice = Sequence[str] | Mapping[str, Mapping[str, Any] | None]
"""Which measures: their names, or by names their numbers, where these are not the default ones; None leaves one out."""


def chosen(which: Choice) -> dict[str, Callable[[Probe], dict[str, float]]]:
    """The measures of a choice, as functions of a `Probe` alone.

    Raises:
        UserError: a name that there is not, or a number that the measure of that name does not have.
    """
    require(not isinstance(which, str), "which", "names of measures", which)
    named = which if isinstance(which, Mapping) else {name: {} for name in which}
    for name in named:
        if name not in MEASURES:
            raise unknown("which", name, MEASURES)
    return {name: _with_numbers(name, numbers) for name, numbers in named.items() if numbers is not None}


def _with_numbers(name: str, numbers: Mapping[str, Any]) -> Callable[[Probe], dict[str, float]]:
    place = f"which.{name}"
    with prefixed(place):
        require(isinstance(numbers, Mapping), "", "its numbers by name, or null", numbers)
        refuse_unknown(numbers, MEASURES[name].numbers)

    def taken(probe: Probe) -> dict[str, float]:
        with prefixed(place):
            return MEASURES[name].function(probe, **numbers)

    return taken


def measure(learner: Trainable, x: Tensor, y: Tensor, loss: Loss, which: Choice) -> dict[str, float]:
    """Measure a learner on a batch, and change nothing of it.

    >>> measure(learner, x, y, F.cross_entropy, ["reach", "rank"])
    >>> measure(learner, x, y, F.cross_entropy, {"inverse": {"damping": 0.1}})

    Args:
        learner: what is trained.
        x, y: a batch, (batch, ...), and what the loss is told of it.
        loss: (output, y) -> one value per sample (batch,), or their mean.
        which: names in `MEASURES`, or numbers by these names.

    Returns:
        Values by name: `quantity/block{n}`, blocks counted from 1.

    Raises:
        UserError: a name or a number that there is not, or a measure that makes no sense for this learner.
    """
    probe = Probe(learner, x, y, loss)
    values: dict[str, float] = {}
    for taken in chosen(which).values():
        values |= taken(probe)
    return values
