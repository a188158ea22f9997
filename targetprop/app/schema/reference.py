"""The reference of all settings: `python -m targetprop.app.schema.reference > docs/configuration.md`."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, fields
from importlib import import_module
from typing import Any

import yaml
from hydra.utils import get_object

from targetprop.algorithms import ALGORITHMS
from targetprop.app.overrides import CONF
from targetprop.app.schema import callbacks, datamodule, logger, model, network, scheduler, task, trainer
from targetprop.app.schema.keys import Keys
from targetprop.app.schema.plain import PLAIN
from targetprop.feedback.base import OptimizerSpec
from targetprop.learners import LEARNERS

INTRODUCTION = """# Configuration

Every key of the command line (`python main.py KEY=VALUE ...`): what it takes, its default, and what it means. A key
that the configuration as composed does not have needs a `+` before it. Before any data is read, a run refuses what is
not of the type given here, in one line with the key, what was given and what was expected; and keys that nothing reads.

Objects of your own (`_target_: package.module.NAME`) may stand wherever an object stands. What they take is read off
their signature and its annotations.

This page is written from `targetprop/app/schema/` by
`python -m targetprop.app.schema.reference > docs/configuration.md`.
"""
PARALLEL = "targetprop.app.trainer.build_layer_parallel_trainer"
"""Which has all settings of the other trainer, too."""
GROUPS: Mapping[str, tuple[str, Mapping[str, Keys]]] = {
    "trainer": ("", {**trainer.TARGETS, PARALLEL: trainer.LAYER_PARALLEL}),
    "task": ("", task.TARGETS),
    "model": ("", model.TARGETS),
    "network": (".hparams", network.TARGETS),
    "datamodule": ("", datamodule.TARGETS),
    "scheduler": ("", scheduler.TARGETS),
    "callbacks": (".NAME", callbacks.TARGETS),
    "logger": (".NAME", logger.TARGETS),
}
"""Where the settings of a group's objects stand below it, and what they are."""
WITHIN = {"Augmentation": ".augmentation", "load": ".load"}
"""Where objects stand that stand within another one."""
LIMITS = """## What is too much

A run is refused that takes, at the least, more memory than the machine or its container has, more than ten minutes for
a training step, or more than a year; one that takes more than a day is told of. Memory is that of weights, their
gradients and a batch in the largest layer. Time is reckoned with 1e11 multiply-adds a second for each thread of the CPU
(1e15 for a GPU) and 50 microseconds for each feedback update, which no machine does better.

"""


def page() -> str:
    """The whole page, as Markdown."""
    parts = [INTRODUCTION, "## Beside the groups\n", _table(PLAIN, _plain_defaults(), "")]
    for group, (place, targets) in GROUPS.items():
        parts.append(f"## {group}\n")
        parts += [f"Choices: {', '.join(f'`{name}`' for name in _choices(group))}.\n"]
        for target, keys in targets.items():
            within = WITHIN.get(target.rpartition(".")[2], place)
            parts += [f"### {target}\n", _table(keys, _defaults(group, target), f"{group}{within}.")]
            if target == PARALLEL:
                parts.append("And all those of the other trainer.\n")
        if group == "model":
            parts.append(_numbers())
    return "\n".join([*parts, LIMITS]).rstrip() + "\n"


def _choices(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def _table(keys: Keys, defaults: Mapping[str, str], prefix: str) -> str:
    rows = [(f"`{prefix}{name}`", key.kind.expected, defaults.get(name, ""), key.meaning) for name, key in keys.items()]
    return _markdown(rows)


def _markdown(rows: list[tuple[str, str, str, str]]) -> str:
    lines = ["| key | takes | default | what it means |", "|---|---|---|---|"]
    lines += ["| " + " | ".join(each.replace("|", "\\|") for each in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _plain_defaults() -> dict[str, str]:
    raw = yaml.safe_load((CONF / "config.yaml").read_text())
    return {name: _shown(raw[name]) for name in PLAIN}


def _defaults(group: str, target: str) -> dict[str, str]:
    """Defaults of an object: those of the first file of the group that describes it, else those of its signature."""
    module, _, name = target.rpartition(".")
    made = getattr(import_module(module), name)
    found = {
        name: _shown(each.default)
        for name, each in inspect.signature(made).parameters.items()
        if each.default is not each.empty
    }
    described = _described(group, made)
    return {**found, **{name: _shown(value) for name, value in described.items() if not isinstance(value, dict)}}


def _described(group: str, made: Any) -> dict[str, Any]:
    for path in [*sorted((CONF / group).glob("default.yaml")), *sorted((CONF / group).glob("*.yaml"))]:
        for each in _objects(yaml.safe_load(path.read_text()) or {}):
            if get_object(each["_target_"]) is made:
                return each.get("hparams", each) if group == "network" else each
    return {}


def _objects(section: Any) -> Iterator[dict[str, Any]]:
    """Everything with a `_target_` in a file."""
    if isinstance(section, dict):
        if section.get("_target_"):  # null where the user says what it is
            yield section
        for each in section.values():
            yield from _objects(each)


def _shown(value: Any) -> str:
    """A value as YAML has it."""
    text = {None: "null", True: "true", False: "false"}.get(value) if isinstance(value, bool | None) else None
    return f"`{text or (value if value != '' else repr(value))}`"


def _numbers() -> str:
    """The numbers of every algorithm, from the rules that have them and check them."""
    users: dict[Any, list[str]] = {}
    for name, each in ALGORITHMS.items():
        for rule in (each.targets, each.feedback):
            users.setdefault(type(rule), []).append(name)
    users |= {type(rule): [name] for name, rule in LEARNERS.items()}
    parts = [
        "### Numbers of algorithms\n",
        "A model has the numbers of its two rules; defaults are those of the rules, and `conf/model/` and "
        "`conf/settings/` have others for most models and networks. Any other number is refused.\n",
    ]
    for rule, names in users.items():
        rows = [(f"`model.hparams.{each.name}`", *_said(rule, each)) for each in fields(rule) if _is_number(each)]
        listed = ", ".join(f"`{name}`" for name in names)
        parts += [f"{rule.__name__} ({listed}):\n", _markdown(rows)] if rows else []
    rows = [(f"`model.hparams.f_optim.{each.name}`", *_said(OptimizerSpec, each)) for each in fields(OptimizerSpec)]
    parts += ["The forward optimiser `f_optim`, and the feedback's `b_optim` alike:\n", _markdown(rows)]
    return "\n".join(parts)


def _is_number(field: Field[Any]) -> bool:
    return field.init and bool(field.metadata.get("is_number", True))


def _said(rule: type, field: Field[Any]) -> tuple[str, str, str]:
    """Type, default and meaning of a rule's number, the last from the docstring of the class that has it."""
    made = field.default_factory
    default = field.default if made is MISSING else made()
    meaning = next((said for each in inspect.getmro(rule) if (said := _argument(each, field.name))), "")
    return str(field.type), _shown(default), meaning


def _argument(of: type, name: str) -> str:
    """What the docstring of a class says of an argument."""
    found = re.search(rf"^ +{name}: (.*?)(?=^ +\w+: |^\s*$|\Z)", of.__doc__ or "", re.MULTILINE | re.DOTALL)
    return " ".join(found[1].split()).removesuffix(".") if found else ""


if __name__ == "__main__":
    print(page(), end="")
