"""Kinds of values: what a setting takes, in words for the one line that refuses another value, and as a test of it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from targetprop.utils.errors import is_number, require, unknown


@dataclass(frozen=True)
class Kind:
    """What a setting takes.

    Args:
        expected: it in words, which follow "expected".
        takes: whether a plain value is of the kind.
        names: of a choice, all there are, the nearest of which is proposed.
    """

    expected: str
    takes: Callable[[object], bool]
    names: tuple[str, ...] = ()

    def check(self, key: str, given: object) -> None:
        """Raise `UserError` unless `given` is of the kind."""
        if self.names and isinstance(given, str) and not self.takes(given):
            raise unknown(key, given, self.names)
        require(self.takes(given), key, self.expected, given)

    def __or__(self, other: Kind) -> Kind:
        """Of the one kind or of the other."""
        return Kind(
            f"{self.expected}, or {other.expected}",
            lambda given: self.takes(given) or other.takes(given),
            (*self.names, *other.names),
        )


def whole(least: int, most: int | None = None) -> Kind:
    """A whole number from `least` on."""
    said = f"a whole number, {least} or more" if most is None else f"a whole number from {least} to {most}"
    if most == least:
        said = str(least)
    return Kind(said, lambda given: _is_whole(given) and least <= given and (most is None or given <= most))  # type: ignore[operator]


def _is_whole(given: object) -> bool:
    return isinstance(given, int) and is_number(given)


def number(least: float = -math.inf, most: float = math.inf, above: float = -math.inf, below: float = math.inf) -> Kind:
    """A finite number, not below `least` nor over `most`, and above and below the others."""
    low, high = max(least, above), min(most, below)
    if math.isfinite(low) and math.isfinite(high):
        opens, closes = "(" if above > -math.inf else "[", ")" if below < math.inf else "]"
        said = f"a number in {opens}{low:g}, {high:g}{closes}"
    else:
        bounds = [f"above {above:g}"] * (above > -math.inf) + [f"{least:g} or more"] * (least > -math.inf)
        bounds += [f"below {below:g}"] * (below < math.inf) + [f"at most {most:g}"] * (most < math.inf)
        said = ", ".join(["a number", *bounds])

    def takes(given: object) -> bool:
        return is_number(given) and least <= given <= most and above < given < below

    return Kind(said, takes)


def choice(*names: str) -> Kind:
    """One of some names."""
    return Kind(" or ".join(names), lambda given: isinstance(given, str) and given in names, names)


def list_of(kind: Kind, what: str) -> Kind:
    """A list of values of a kind, named in the plural."""

    def takes(given: object) -> bool:
        return isinstance(given, Sequence) and not isinstance(given, str) and all(map(kind.takes, given))

    return Kind(f"a list of {what}", takes)


NULL = Kind("null", lambda given: given is None)
TRUTH = Kind("true or false", lambda given: isinstance(given, bool))
TEXT = Kind("text", lambda given: isinstance(given, str))
WORD = Kind("text", lambda given: isinstance(given, str) and bool(given.strip()))
"""Text that is not empty."""
FILE_NAME = Kind(
    "the name of a file, without folders",
    lambda given: isinstance(given, str) and bool(given.strip(". ")) and not set(given) & set("/\\\0\n"),
)
SHARE = Kind(
    "a share above 0.0, at most 1.0 (1.0 is all of them), or a whole number, 1 or more",
    lambda given: (_is_whole(given) and given >= 1) or (isinstance(given, float) and 0 < given <= 1),  # type: ignore[operator]
)
"""How many batches: 1 is one of them, and 1.0 are all."""
FRACTION = Kind(
    "a share from 0.0 to 1.0 (1.0 is all of them), or a whole number, 0 or more",
    lambda given: (_is_whole(given) and given >= 0) or (isinstance(given, float) and 0 <= given <= 1),  # type: ignore[operator]
)
"""The same, where there may be none."""
DURATION = Kind(
    "a time, days:hours:minutes:seconds, each of two digits, in quotes",
    lambda given: isinstance(given, str) and bool(re.fullmatch(r"\d+:\d\d:\d\d:\d\d", given.strip())),
)
MAPPING = Kind("keys with values", lambda given: isinstance(given, Mapping))
OBJECT = Kind("an object (_target_, ...)", lambda given: isinstance(given, Mapping) and "_target_" in given)
PARTIAL = Kind(
    "a function that is called later (_target_, ..., _partial_: true)",
    lambda given: isinstance(given, Mapping) and "_target_" in given and given.get("_partial_") is True,
)
ANYTHING = Kind("anything", lambda given: True)
