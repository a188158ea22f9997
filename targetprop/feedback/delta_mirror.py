"""The delta mirror: backprop with feedback weights that the delta rule learns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from targetprop.feedback.responses import ByDeltaRule

if TYPE_CHECKING:
    from targetprop.layers.base import Style


@dataclass(frozen=True)
class DeltaMirror(ByDeltaRule):
    """Feedback of a mirror: linear in what comes down, so that no target is ever formed.

    Its feedback layers multiply by the forward slopes of the clean pass. Updates are beta times those of backprop with
    V in place of W^T, whatever V is, and exactly proportional to beta.
    """

    style: Style = field(default="linear", init=False)
    styles: ClassVar[frozenset[Style]] = frozenset({"linear"})

    @property
    def words(self) -> str:
        return "delta mirror"
