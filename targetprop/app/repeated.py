"""Keys that a command line sets more than once, of which Hydra would silently take the last."""

from __future__ import annotations

import re
from collections.abc import Sequence

from targetprop.utils.errors import UserError


def refuse_repeated(arguments: Sequence[str]) -> None:
    """Raise `UserError` for the first key that is given two different values; what is deleted (~) may be added."""
    given: dict[str, str] = {}
    for argument in arguments:
        found = re.match(r"(?![-~])\+{0,2}([^=]+)=(.*)", argument, re.DOTALL)
        if found is None:
            continue
        key, value = found.groups()
        if given.get(key, value) != value:
            raise UserError(f"expected one value, got {given[key]!r} and {value!r}", key=key)
        given[key] = value
