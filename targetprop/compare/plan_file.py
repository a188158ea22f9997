"""Plans as files: YAML, every mistake named by its key in one line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from targetprop.app.overrides import check_overrides
from targetprop.app.repeated import refuse_repeated
from targetprop.app.task import score_of
from targetprop.compare.plan import Choices, Plan, Search, Verdict
from targetprop.compare.rates import OPTIMISERS, Optimiser
from targetprop.utils.errors import (
    UserError,
    is_number,
    prefixed,
    refuse_unknown,
    require,
    require_whole,
    unknown,
)
from targetprop.utils.files import whole_file

KEYS = [each.name for each in fields(Plan) if each.name != "name"]
NEEDED = ("rules", "networks", "data", "seeds")
VERDICT_SEEDS = 12
"""Pairs, at least, that a verdict is based on."""


def load(path: Path) -> Plan:
    """The plan in a file.

    Raises:
        UserError: what is wrong with it, by file and key.
    """
    with prefixed(str(path)):
        try:
            given = OmegaConf.to_container(OmegaConf.create(path.read_bytes().decode()))
        except (OSError, UnicodeDecodeError, YAMLError, OmegaConfBaseException) as error:
            raise UserError(f"cannot be read: {' '.join(str(error).split())}") from None
        require(isinstance(given, Mapping), "", f"the keys {', '.join(KEYS)}", given)
        assert isinstance(given, Mapping)
        return read(path.stem, {str(key): value for key, value in given.items()})


def save(plan: Plan, path: Path) -> None:
    """Write a plan as `load` reads it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as partial:
        OmegaConf.save(OmegaConf.create(plan.as_dict()), partial)


def read(name: str, given: Mapping[str, Any]) -> Plan:
    """A plan from plain values.

    Raises:
        UserError: what is wrong, by its key.
    """
    refuse_unknown(given, KEYS)
    for key in NEEDED:
        require(given.get(key) is not None, key, "a value", None)
    rules = _choices(given["rules"], "rules", least=2)
    reference = given.get("reference", "backprop")
    if reference not in rules:
        raise unknown("reference", reference, rules)
    search = _search(given.get("search") or {})
    level = given.get("level")
    return Plan(
        name=name,
        question=_text(given.get("question", ""), "question"),
        rules=rules,
        networks=_choices(given["networks"], "networks"),
        data=_choices(given["data"], "data"),
        seeds=_seeds(given["seeds"], "seeds", least=2, used=search.seeds),
        settings=_texts(given.get("settings") or [], "settings"),
        optimizer=_optimiser(given.get("optimizer") or {}),
        search=search,
        reference=reference,
        level=None if level is None else _number(level, "level", above=0),
        verdict=_verdict(given.get("verdict"), rules, reference, search),
    )


def check_composes(plan: Plan) -> None:
    """Compose the configuration of every rule on every task, without running anything.

    Raises:
        UserError: `python main.py` would refuse it.
    """
    for task in plan.tasks:
        for rule in plan.rules:
            overrides = [*plan.chosen(rule, task), *plan.optimizer.settings(plan.search.rates[0], 1.0)]
            with prefixed(f"rules.{rule} on {task.name}"):
                refuse_repeated(overrides)
                config = check_overrides(overrides)
            if plan.level is not None and score_of(config).unit == "%":
                require(plan.level <= 1, "level", "a fraction from 0 to 1, as accuracies are", plan.level)


def _choices(given: Any, key: str, least: int = 1) -> Choices:
    """A list of names, or names with settings."""
    named: dict[str, Any] = {}
    if isinstance(given, Mapping):
        named = {str(name): settings for name, settings in given.items()}
    elif isinstance(given, list) and all(isinstance(name, str) for name in given):
        require(len(set(given)) == len(given), key, "every name once", given)
        named = dict.fromkeys(given)
    count = "one or more names" if least == 1 else f"{least} or more names"
    require(len(named) >= least, key, f"{count}, each with a list of settings or none", given)
    with prefixed(key):
        for name in named:
            require(bool(name) and not set(name) & set("/\\ "), name, "a name without spaces and slashes", name)
        return {name: _texts(settings or [], name) for name, settings in named.items()}


def _optimiser(given: Any) -> Optimiser:
    values = _known(given, "optimizer", Optimiser)
    with prefixed("optimizer"):
        if values.get("type", "sgd") not in OPTIMISERS:
            raise unknown("type", values["type"], OPTIMISERS)
        for key in ("momentum", "weight_decay"):
            if key in values:
                values[key] = _number(values[key], key, least=0)
        if values.get("final_rate") is not None:
            values["final_rate"] = _number(values["final_rate"], "final_rate", least=0)
        return Optimiser(**values)


def _search(given: Any) -> Search:
    values = _known(given, "search", Search)
    with prefixed("search"):
        if "rates" in values:
            values["rates"] = _rates(values["rates"])
        count = len(values.get("rates", Search.rates))
        require_whole("most_rates", values.setdefault("most_rates", max(count, Search.most_rates)), least=count)
        if "seeds" in values:
            values["seeds"] = _seeds(values["seeds"], "seeds", least=1)
        return Search(**values)


def _rates(given: Any) -> tuple[float, ...]:
    met = isinstance(given, list) and len(given) > 1 and all(is_number(rate) and rate > 0 for rate in given)
    require(met and sorted(set(given)) == given, "rates", "two or more above 0, rising", given)
    return tuple(map(float, given))


def _verdict(given: Any, rules: Choices, reference: str, search: Search) -> Verdict | None:
    if given is None:
        return None
    values = _known(given, "verdict", Verdict)
    with prefixed("verdict"):
        for key in ("rule", "margin", "seeds"):
            require(values.get(key) is not None, key, "a value", None)
        if values["rule"] not in rules:
            raise unknown("rule", values["rule"], rules)
        require(values["rule"] != reference, "rule", "another one than the reference", reference)
        margin = _number(values["margin"], "margin", above=0)
        return Verdict(values["rule"], margin, _seeds(values["seeds"], "seeds", VERDICT_SEEDS, used=search.seeds))


def _seeds(given: Any, key: str, least: int, used: Sequence[int] = ()) -> tuple[int, ...]:
    met = isinstance(given, list) and len(given) >= least and len(set(map(str, given))) == len(given)
    require(met, key, f"a list of {least} or more different seeds", given)
    for seed in given:
        require_whole(key, seed, least=0)
    again = sorted(set(used) & set(given))
    require(not again, key, "fresh seeds, none of the search", again)
    return tuple(given)


def _known(given: Any, key: str, kind: Any) -> dict[str, Any]:
    """The values of keys that are all among those of a dataclass."""
    names = [each.name for each in fields(kind)]
    require(isinstance(given, Mapping), key, f"the keys {', '.join(names)}", given)
    with prefixed(key):
        refuse_unknown(map(str, given), names)
    return {str(name): value for name, value in given.items()}


def _number(given: Any, key: str, above: float | None = None, least: float | None = None, most: float = 1e9) -> float:
    lower = f"above {above}" if least is None else f"from {least}"
    met = is_number(given) and (above is None or given > above) and (least is None or given >= least) and given <= most
    require(met, key, f"a number {lower} to {most:g}", given)
    return float(given)


def _text(given: Any, key: str) -> str:
    require(isinstance(given, str), key, "a text", given)
    return str(given)


def _texts(given: Any, key: str) -> tuple[str, ...]:
    met = isinstance(given, Iterable) and not isinstance(given, (str, Mapping))
    require(met and all(isinstance(each, str) and "=" in each for each in given), key, "a list of KEY=VALUE", given)
    return tuple(given)
