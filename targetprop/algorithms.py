"""Algorithms of the target propagation family: each is two values, how targets come down and how the feedback learns.

>>> mine = DTP.with_numbers(noise=0.1, feedback_training_iterations=[10, 20])
>>> mine = Algorithm(targets=DifferenceTargets(beta=0.5), feedback=ByLoss(reconstruction, noise=0.2))
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, TypeVar, cast

from targetprop.feedback.amortised import Amortised
from targetprop.feedback.base import FeedbackRule, OptimizerSpec
from targetprop.feedback.by_loss import ByLoss
from targetprop.feedback.delta_mirror import DeltaMirror
from targetprop.feedback.fixed import Fixed
from targetprop.feedback.kolen_pollack import KolenPollack
from targetprop.feedback.losses import l_drl, reconstruction
from targetprop.feedback.weight_mirror import WeightMirror
from targetprop.targets import DifferenceTargets, PlainTargets, TargetRule
from targetprop.utils.errors import UserError, no_such, require, unknown

if TYPE_CHECKING:
    from targetprop.network.passes import Scope

_Rule = TypeVar("_Rule", TargetRule, FeedbackRule)


@dataclass(frozen=True)
class Algorithm:
    """How targets start and come down, and how the feedback learns that carries them.

    Raises:
        UserError: what is given is no such rule.
    """

    targets: TargetRule
    feedback: FeedbackRule

    def __post_init__(self) -> None:
        require(isinstance(self.targets, TargetRule), "targets", "a TargetRule", self.targets)
        require(isinstance(self.feedback, FeedbackRule), "feedback", "a FeedbackRule", self.feedback)
        both = set(_settable(self.targets)) & set(_settable(self.feedback))
        if both:
            raise UserError(f"both rules have a setting of the name {', '.join(sorted(both))}: one needs another name.")

    @property
    def scope(self) -> Scope:
        """ "block" if both rules look at one block at a time, else "network"."""
        return "network" if "network" in (self.targets.scope, self.feedback.scope) else "block"

    @property
    def numbers(self) -> dict[str, Any]:
        """All settings of both rules, by name."""
        return {name: getattr(rule, name) for rule in (self.targets, self.feedback) for name in _settable(rule)}

    def with_numbers(self, **numbers: Any) -> Algorithm:
        """The same algorithm with other numbers.

        Raises:
            UserError: a number that neither rule has, or a value that does not fit.
        """
        for name in numbers:
            if name not in self.numbers:
                raise no_such(name, self.numbers)
        return Algorithm(_changed(self.targets, numbers), _changed(self.feedback, numbers))


def _settable(rule: Any) -> list[str]:
    """Names of a rule's settings."""
    return [each.name for each in fields(rule) if each.init and each.metadata.get("is_number", True)]


def _changed(rule: _Rule, numbers: Mapping[str, Any]) -> _Rule:
    """The rule with those of the numbers that it has."""
    value: Any = rule
    return cast(_Rule, replace(value, **{name: numbers[name] for name in _settable(rule) if name in numbers}))


DTP = Algorithm(DifferenceTargets(), ByLoss(l_drl))
"""Difference target propagation with the local difference reconstruction loss (Ernoult et al. 2022)."""

AMORTISED_DTP = Algorithm(DifferenceTargets(), Amortised())
"""Difference target propagation whose feedback learns, from a little noise a batch, what L-DRL drives it towards."""

PARALLEL_DTP = Algorithm(
    DifferenceTargets(),
    ByLoss(
        l_drl, feedback_training_iterations=1, noise_samples=10, b_optim=OptimizerSpec("adam", 3e-4, weight_decay=1e-4)
    ),
)
"""L-DRL with one feedback update a batch, on the mean of several noise samples (Ernoult et al. 2022)."""

VANILLA_DTP = Algorithm(DifferenceTargets(), ByLoss(reconstruction, b_optim=OptimizerSpec(lr=4e-4, momentum=0.9)))
"""Difference target propagation with the reconstruction loss (Lee et al. 2015), otherwise as `DTP`."""

LEE_DTP = Algorithm(
    DifferenceTargets(output_follows_loss=True), ByLoss(reconstruction, feedback_training_iterations=1, style="lee")
)
"""Difference target propagation as Lee et al. 2015 define it: their feedback; targets start below the output block."""

TP = Algorithm(PlainTargets(beta=3.0), ByLoss(reconstruction, b_optim=OptimizerSpec("adam", lr=3e-3)))
"""Target propagation (Bengio 2014). Its first step is large, since targets bring the errors of reconstruction along."""

FIXED_DTP = Algorithm(DifferenceTargets(), Fixed())
"""Difference target propagation by feedback weights that stay at random."""

KOLEN_POLLACK = Algorithm(DifferenceTargets(), KolenPollack())
"""Feedback weights take the forward weights' updates (Kolen and Pollack 1994); a mirror, not target propagation."""

FEEDBACK_ALIGNMENT = Algorithm(DifferenceTargets(), Fixed(style="linear"))
"""Backprop with random weights in place of W^T (Lillicrap et al. 2016); a mirror of nothing, no target propagation."""

WEIGHT_MIRROR = Algorithm(DifferenceTargets(), WeightMirror())
"""Feedback weights follow the forward weights by Hebb's rule on noise (Akrout et al. 2019); a mirror, no DTP."""

DELTA_MIRROR = Algorithm(DifferenceTargets(), DeltaMirror())
"""Feedback weights follow the forward weights by a delta rule on noise; a mirror, not target propagation."""

ALGORITHMS: Mapping[str, Algorithm] = {
    "dtp": DTP,
    "amortised_dtp": AMORTISED_DTP,
    "parallel_dtp": PARALLEL_DTP,
    "vanilla_dtp": VANILLA_DTP,
    "lee_dtp": LEE_DTP,
    "tp": TP,
    "fixed_dtp": FIXED_DTP,
    "feedback_alignment": FEEDBACK_ALIGNMENT,
    "kolen_pollack": KOLEN_POLLACK,
    "weight_mirror": WEIGHT_MIRROR,
    "delta_mirror": DELTA_MIRROR,
}
"""Algorithms by name."""


def named(name: str) -> Algorithm:
    """An algorithm by its name.

    Raises:
        UserError: there is none of that name.
    """
    if name not in ALGORITHMS:
        raise unknown("algorithm", name, ALGORITHMS)
    return ALGORITHMS[name]
