"""Text from files that may hold anything, for messages: short, and nothing in it that a terminal obeys."""

from __future__ import annotations

import reprlib

LONGEST = 200
"""Characters of a text that are shown."""

_short = reprlib.Repr()
_short.maxstring = _short.maxother = _short.maxlong = LONGEST


def printable(value: object, longest: int = LONGEST) -> str:
    """`value` as text, with what is not printable written as in Python's source, and cut if it is longer."""
    text = str(value)
    cut = text if len(text) <= longest else f"{text[:longest]}..."
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in cut)


def shown(value: object) -> str:
    """`repr(value)`, but of a size that does not depend on how much it holds."""
    try:
        return printable(_short.repr(value))
    except ValueError:  # of a whole number with more digits than Python writes
        return f"a {type(value).__name__}"
