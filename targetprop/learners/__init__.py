"""Rules that are no sweep of targets, by name; each has a learner of its own."""

from __future__ import annotations

from collections.abc import Mapping

from targetprop.learners.base import LearnerRule
from targetprop.learners.counter_current import CounterCurrent
from targetprop.learners.lra_e import LRAE
from targetprop.learners.tpri import TPRI, TPRILinearized
from targetprop.learners.tptt import TPTT
from targetprop.utils.errors import unknown

LEARNERS: Mapping[str, LearnerRule] = {
    "counter_current": CounterCurrent(),
    "lra_e": LRAE(),
    "tptt": TPTT(),
    "tpri": TPRI(),
    "tpri_linearized": TPRILinearized(),
}
"""Rules by name."""


def named(name: str) -> LearnerRule:
    """A rule by its name.

    Raises:
        UserError: there is none of that name.
    """
    if name not in LEARNERS:
        raise unknown("rule", name, LEARNERS)
    return LEARNERS[name]
