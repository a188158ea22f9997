"""Errors that a user can mend: shown without a traceback, always with the key, what was given and what fits.

Code below `app/` names a setting as its own argument is called ("channels"). Whoever took the setting from somewhere
says where that is, with `prefixed`.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeGuard


class UserError(Exception):
    """A mistake in what the user gave. The message says what was given, where, and what was expected.

    >>> raise UserError("expected a number above 0, got -1", key="beta")
    Traceback (most recent call last):
    UserError: beta: expected a number above 0, got -1

    Args:
        message: what is wrong, and what to do.
        key: which setting or argument is meant, if it is one.
    """

    def __init__(self, message: str, *, key: str = "") -> None:
        super().__init__(f"{key}: {message}" if key else message)
        self.message = message
        self.key = key

    def under(self, prefix: str) -> UserError:
        """The same error of a setting that stands at `prefix`; an error without a key is of the prefix itself."""
        return type(self)(self.message, key=f"{prefix}.{self.key}" if self.key else prefix)


@contextmanager
def prefixed(prefix: str) -> Iterator[None]:
    """Within it, a `UserError` is raised as one of a setting that stands at `prefix`."""
    try:
        yield
    except UserError as error:
        raise error.under(prefix) from error.__cause__


def require(met: bool, key: str, expected: str, given: object) -> None:
    """Raise `UserError` ("key: expected ..., got ...") unless `met`."""
    if not met:
        raise UserError(f"expected {expected}, got {given!r}", key=key)


def require_whole(key: str, given: object, least: int) -> None:
    """Raise `UserError` unless `given` is a whole number, `least` or more."""
    met = isinstance(given, int) and is_number(given) and given >= least
    require(met, key, f"a whole number, {least} or more", given)


def is_number(given: object) -> TypeGuard[float]:
    """Whether `given`, which may come from a command line, is a finite number; True and False are none."""
    return isinstance(given, int | float) and not isinstance(given, bool) and math.isfinite(given)


def no_such(key: str, valid: Iterable[str]) -> UserError:
    """An error for a setting that there is not: names it, the nearest and all valid ones."""
    return UserError(f"there is no such setting.{_nearest(key, valid)}", key=key)


def refuse_unknown(given: Iterable[str], valid: Iterable[str]) -> None:
    """Raise `UserError` for the first of the settings given that is not a valid one: names it, and the nearest."""
    names = list(valid)
    for key in given:
        if key not in names:
            raise no_such(key, names)


def unknown(key: str, given: object, valid: Iterable[str]) -> UserError:
    """An error for a name that is not among `valid`: names `key`, the value, the nearest and all valid names."""
    return UserError(f"unknown value {given!r}.{_nearest(given, valid)}", key=key)


def _nearest(given: object, valid: Iterable[str]) -> str:
    names = sorted(valid)
    nearest = difflib.get_close_matches(str(given), names, n=3, cutoff=0.5)
    hint = f" Did you mean {' or '.join(map(repr, nearest))}?" if nearest else ""
    return f"{hint} Valid: {', '.join(names) or 'none'}."
