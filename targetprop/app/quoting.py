"""How to give a value that Hydra would take for something else than text."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from targetprop.utils.errors import UserError

TAKES_NOTHING = ("-m", "--multirun", "--resolve")
"""Options of Hydra's behind which an override may follow; behind any other may stand its value."""


def refuse_unreadable(arguments: Sequence[str]) -> None:
    """Raise `UserError` for the first override among these arguments that Hydra cannot read, saying how to quote it.

    In a sweep commas separate the values of several runs, and brackets and parentheses have a meaning: what can be read
    is not looked at.
    """
    sweep = any(each in ("-m", "--multirun") for each in arguments)
    for before, argument in zip(["-m", *arguments], arguments, strict=False):
        given = not argument.startswith("-") and (not before.startswith("-") or before in TAKES_NOTHING)
        if given and not re.match(r".*=|~", argument, re.DOTALL):
            raise UserError(f"expected KEY=VALUE, without spaces, got {argument!r}.")
        if given:
            _check(argument, sweep)


def _check(override: str, sweep: bool) -> None:
    try:
        parsed = OverridesParser.create().parse_override(override)
    except HydraException as error:
        raise _unreadable(override, f"Hydra cannot read this: {str(error).splitlines()[0]}.") from None
    if parsed.is_sweep_override() and not sweep:
        raise _unreadable(override, "Several values are for a sweep (-m).")


def _unreadable(override: str, reason: str) -> UserError:
    """The error for an override that cannot be read, with one in its place that can, as a shell takes it."""
    key, _, value = override.partition("=")
    proposed = quoted(key, value)
    if proposed is None:
        hint = "How it is written: hydra.cc/docs/advanced/override_grammar/basic"
    else:
        hint = f"If it is meant as text, quote it, for the shell too: {proposed}"
    return UserError(f"{reason} {hint}", key=key.lstrip("+~"))


def quoted(key: str, value: str) -> str | None:
    """An override that gives a value as text, quoted for Hydra and for the shell; None if Hydra takes none for it."""
    text = str(Path(value).expanduser()) if re.match(r"~(/|$)", value) else value  # nobody else would do that
    plain = f"{key}={text}"
    if _is_text(plain, text):
        return shlex.quote(plain)
    # Hydra undoes backslashes only before a quotation mark.
    escaped = re.sub(r'(\\*)("|$)', lambda found: found[1] * 2 + ('\\"' if found[2] else ""), text)
    override = f'{key}="{escaped}"'
    return shlex.quote(override) if _is_text(override, text) else None


def _is_text(override: str, text: str) -> bool:
    """Whether Hydra reads just this text."""
    try:
        parsed = OverridesParser.create().parse_override(override)
    except HydraException:
        return False
    return not parsed.is_sweep_override() and str(parsed.value()) == text
