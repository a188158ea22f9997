"""What a run is, in a few lines."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from targetprop.app.naming import described
from targetprop.app.terminal import shows_lines_only
from targetprop.utils.text import printable

Config = Mapping[str, Any]
"""A plain configuration, resolved."""

MOST = 15
"""Lines in a terminal."""
LONGEST = 2000
"""Characters of a line elsewhere."""
LEFT_OUT = ("_", "num_workers", "seed", "data_dir", "mean", "std", "load", "dataset", "arguments", "last_epoch",
            "enable_", "default_root", "matmul", "check_val", "num_sanity", "log_every")  # fmt: skip
"""Beginnings of names that say nothing of what a run is."""


def summary(config: Config) -> list[tuple[str, str]]:
    """A line for each part of a run: its name, and what is to be said of it."""
    model, hparams = config["model"], dict(config["model"].get("hparams") or {})
    optimizers = {name: hparams.pop(name) for name in ("f_optim", "b_optim") if name in hparams}
    lines = [
        ("run", f"{config['task_name']}, seed {config['seed']}" + _list(", tags", config["tags"])),
        ("model", _said(described(model), hparams)),
        *((name, _said(each.get("type", ""), each, ("type",))) for name, each in optimizers.items()),
        ("network", _said(described(config["network"]), config["network"].get("hparams") or {})),
        ("datamodule", _said(described(config["datamodule"]), config["datamodule"])),
        ("scheduler", _of_object(config.get("scheduler"))),
        ("trainer", _said("", {name: each for name, each in config["trainer"].items() if not _changes_nothing(each)})),
        ("callbacks", _names(config.get("callbacks"))),
        ("logger", _names(config.get("logger"))),
        ("output_dir", str(config["output_dir"])),
    ]
    return [(name, printable(text, LONGEST)) for name, text in lines]


def show(console: Console, lines: Sequence[tuple[str, str]]) -> None:
    """Write the lines: elsewhere than in a terminal whole; in one broken to its width, and never more than `MOST`."""
    column = max(len(name) for name, _ in lines) + 2
    if shows_lines_only(console):
        for name, said in lines:
            console.print(Text(f"{name.ljust(column)}{said}"), soft_wrap=True)
        return
    spare = MOST - len(lines)
    for name, said in lines:
        broken = Text(said).wrap(console, max(1, console.width - column - 1))
        shown = broken[: 1 + spare] if broken else [Text()]
        spare -= len(shown) - 1
        if len(shown) < len(broken):
            shown[-1].append(" ...")
        for number, part in enumerate(shown):
            line = Text.assemble(("" if number else name).ljust(column), part)
            line.stylize("bold", 0, column)
            console.print(line, no_wrap=True, overflow="ellipsis", crop=True)


def _changes_nothing(value: Any) -> bool:
    """Whether a trainer's setting is switched off, or is all batches."""
    return value is None or value is False or (isinstance(value, float) and value == 1)


def _said(name: str, numbers: Config, without: Sequence[str] = ()) -> str:
    """A name and its numbers; what is switched off is not told."""
    told = {key: each for key, each in numbers.items() if key not in without and not key.startswith(LEFT_OUT)}
    said = ", ".join(f"{key} {_value(each)}" for key, each in told.items() if not _is_off(each))
    return ": ".join(each for each in (name, said) if each)


def _is_off(value: Any) -> bool:
    return value is None or value is False or value == []


def _of_object(section: Config | None) -> str:
    return _said(described(section), section) if section else "none"


def _names(section: Config | None) -> str:
    return ", ".join(name for name, each in (section or {}).items() if each) or "none"


def _list(label: str, values: Iterable[str]) -> str:
    joined = ", ".join(values)
    return f"{label} {joined}" if joined else ""


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key} {_value(each)}" for key, each in value.items() if key != "_target_") + "}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value, value))}]"
    return {"None": "null", "True": "true", "False": "false"}.get(str(value), str(value))
