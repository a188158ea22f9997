"""What an algorithm of the target propagation family is: two values, how targets come down, how the feedback learns.

>>> mine = DTP.with_numbers(noise=0.1, feedback_training_iterations=[10, 20])
>>> mine = Algorithm(targets=DifferenceTargets(beta=0.5), feedback=ByLoss(reconstruction, noise=0.2))
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, TypeVar, cast

from targetprop.feedback.base import FeedbackRule
from targetprop.properties import Needs, Source
from targetprop.targets.base import TargetRule
from targetprop.utils.errors import UserError, no_such, require

if TYPE_CHECKING:
    from targetprop.network.passes import Scope

_Rule = TypeVar("_Rule", TargetRule, FeedbackRule)


@dataclass(frozen=True)
class Algorithm:
    """How targets start and come down, and how the feedback learns that carries them.

    Attributes:
        source: where it was published; None of one that is not published elsewhere.

    Raises:
        UserError: what is given is no such rule.
    """

    targets: TargetRule
    feedback: FeedbackRule
    source: Source | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        require(isinstance(self.targets, TargetRule), "targets", "a TargetRule", self.targets)
        require(isinstance(self.feedback, FeedbackRule), "feedback", "a FeedbackRule", self.feedback)
        require(self.source is None or isinstance(self.source, Source), "source", "a Source", self.source)
        both = set(_settable(self.targets)) & set(_settable(self.feedback))
        if both:
            raise UserError(f"both rules have a setting of the name {', '.join(sorted(both))}: one needs another name.")

    @property
    def scope(self) -> Scope:
        """ "block" if both rules look at one block at a time, else "network"."""
        return "network" if "network" in (self.targets.scope, self.feedback.scope) else "block"

    @property
    def needs(self) -> Needs:
        """What it needs beside each block's own activity."""
        return self.targets.needs | self.feedback.needs

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
        return Algorithm(_changed(self.targets, numbers), _changed(self.feedback, numbers), self.source)


def _settable(rule: Any) -> list[str]:
    """Names of a rule's settings."""
    return [each.name for each in fields(rule) if each.init and each.metadata.get("is_number", True)]


def _changed(rule: _Rule, numbers: Mapping[str, Any]) -> _Rule:
    """The rule with those of the numbers that it has."""
    value: Any = rule
    return cast(_Rule, replace(value, **{name: numbers[name] for name in _settable(rule) if name in numbers}))
