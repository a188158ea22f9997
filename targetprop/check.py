"""One form for every refusal of a value: the key, what was expected, what was given."""

from __future__ import annotations

import math
from typing import TypeGuard

from targetprop.errors import UserError


def require(met: bool, key: str, expected: str, given: object) -> None:
    """Raise `UserError` ("key: expected ..., got ...") unless `met`."""
    if not met:
        raise UserError(f"{key}: expected {expected}, got {given!r}")


def require_whole(key: str, given: object, least: int) -> None:
    """Raise `UserError` unless `given` is a whole number, `least` or more."""
    met = isinstance(given, int) and is_number(given) and given >= least
    require(met, key, f"a whole number, {least} or more", given)


def is_number(given: object) -> TypeGuard[float]:
    """Whether `given`, which may come from a command line, is a finite number; True and False are none."""
    return isinstance(given, int | float) and not isinstance(given, bool) and math.isfinite(given)
