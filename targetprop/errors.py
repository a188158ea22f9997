"""Errors that a user can mend: shown without a traceback, always with the key, what was given and what fits."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake in what the user gave. The message says what was given, where, and what was expected."""


def unknown(key: str, given: object, valid: Iterable[str]) -> UserError:
    """An error for a name that is not among `valid`: names `key`, the value, the nearest and all valid names."""
    names = sorted(valid)
    nearest = difflib.get_close_matches(str(given), names, n=3, cutoff=0.5)
    hint = f" Did you mean {' or '.join(map(repr, nearest))}?" if nearest else ""
    return UserError(f"{key}: unknown value {given!r}.{hint} Valid: {', '.join(names)}.")
