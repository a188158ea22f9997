"""The command line that goes on with a run: what was typed for it then, and what is typed now."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser

from targetprop.utils.errors import UserError

CONF = Path(__file__).parent / "conf"
NEVER = ("ckpt_path", "output_dir", "overwrite", "hydra")
"""What is of one process only."""


def with_recorded(arguments: Sequence[str]) -> list[str]:
    """These overrides, behind those by which the run was started whose checkpoint `ckpt_path` names.

    What is typed now takes the place of what was typed then. A checkpoint that does not say, or that cannot be read,
    adds nothing: whoever reads it later says so.
    """
    typed = {key: each for each in arguments if (key := _key(each))}
    if "ckpt_path" not in typed or any(each.startswith("-") for each in arguments):
        return list(arguments)
    ckpt_path = _value(typed["ckpt_path"])
    if ckpt_path is None:
        return list(arguments)
    evaluates = "train" in typed and _value(typed["train"]) == "False"
    recorded = _recorded(ckpt_path, _value(typed.get("hydra.run.dir", "")) or "", train=not evaluates)
    return [*(each for each in recorded if _holds(_key(each), typed)), *arguments]


def _recorded(ckpt_path: str, output_dir: str, *, train: bool) -> list[str]:
    from targetprop.app.checkpoint.files import record_in  # here, because other commands do without torch for a while
    from targetprop.app.checkpoint.find import find

    try:
        found = find(ckpt_path, output_dir or "nowhere", train=train)
    except UserError:
        return []
    record = record_in(found[1]) if found else None
    given = record.get("overrides", []) if record else []
    return [str(each) for each in given if isinstance(each, str) and _key(each)]


def _holds(key: str, typed: dict[str, str]) -> bool:
    """Whether what was typed then still holds beside what is typed now."""
    if key.partition(".")[0] in NEVER or key in typed:
        return False
    group = key.partition(".")[0]
    return not (group in typed and (CONF / group).is_dir() and key != group)  # numbers of another choice


def _key(override: str) -> str:
    """Which setting an override is of, without what it does to it; empty if it is none."""
    key, found, _ = override.partition("=")
    return key.lstrip("+~") if found or override.startswith("~") else ""


def _value(override: str) -> str | None:
    """What an override sets, as text; None of null, or of what cannot be read."""
    if "=" not in override:
        return None
    try:
        value = OverridesParser.create().parse_override(override).value()
    except Exception:  # whatever the parser makes of it: others say so
        return None
    return None if value is None else str(value)
