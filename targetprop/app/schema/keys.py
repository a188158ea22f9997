"""What is said of a setting: the kind of its value, and its meaning in one sentence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from targetprop.app.schema.kinds import Kind


@dataclass(frozen=True)
class Key:
    """One setting.

    Args:
        kind: what it takes.
        meaning: one sentence, without a full stop.
    """

    kind: Kind
    meaning: str


Keys = Mapping[str, Key]
"""The settings of one object, by their names."""
