"""A plan: everything that a comparison says before it runs, in a YAML file that is committed.

Methods are compared at equal *effective* rates. A method with a step size beta leaves beta times the gradient g, or an
approximation of it. SGD with rate lr / beta and weight decay decay x beta makes from it exactly the step that SGD with
rate lr and that decay makes from g, with momentum and with Nesterov's, too: its gradient, with the decay's part, is
beta (g + decay w), so its momentum is beta times the other's, and the rate takes the beta out again. The rate that a
cosine schedule ends with is divided by beta, too. So rates, decay and final rate of a plan are those of g, and
`Plan.settings_of` writes what `python main.py` has to be told.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from yaml import YAMLError

from targetprop.app.overrides import check_overrides
from targetprop.utils.errors import UserError, is_number, no_such, prefixed, require, require_whole, unknown

LEAST_RATES = 5
LEAST_SEEDS = {"search": 2, "primary": 12, "descriptive": 5}


@dataclass(frozen=True)
class Method:
    """One way to train.

    Attributes:
        settings: overrides of `python main.py` that choose it.
        beta: its step size; None if it has none, and leaves the gradient itself.
        minutes: what a run is expected to take.
    """

    settings: tuple[str, ...]
    beta: float | None
    minutes: float


@dataclass(frozen=True)
class Seeds:
    """Disjoint from the search: seeds of the primary comparison, and of methods that are described only."""

    search: tuple[int, ...]
    primary: tuple[int, ...]
    descriptive: tuple[int, ...]


@dataclass(frozen=True)
class Primary:
    """The one comparison with a verdict: method minus reference, in points of test accuracy, against the margin."""

    method: str
    reference: str
    margin: float


@dataclass(frozen=True)
class Plan:
    """What is said beforehand.

    Attributes:
        name: of the file.
        sha256: of the file.
        question: that it answers, in a sentence.
        settings: overrides that all methods share.
        chance: accuracy that a run that diverges counts as.
        rates: effective ones, the same for every method.
        most_rates: how many there may be once the grid has grown where some best one lies at an edge.
        weight_decay, final_rate: effective ones.
        primary: None if everything is descriptive.
    """

    name: str
    sha256: str
    question: str
    settings: tuple[str, ...]
    chance: float
    methods: Mapping[str, Method]
    rates: tuple[float, ...]
    most_rates: int
    weight_decay: float
    final_rate: float
    seeds: Seeds
    primary: Primary | None

    def settings_of(self, name: str, rate: float) -> tuple[str, ...]:
        """The overrides with which this method trains at this effective rate."""
        method = self.methods[name]
        beta = method.beta or 1.0
        numbers = {
            "model.hparams.f_optim.lr": rate / beta,
            "model.hparams.f_optim.weight_decay": self.weight_decay * beta,
            "scheduler.eta_min": self.final_rate / beta,
        }
        if method.beta is not None:
            numbers["model.hparams.beta"] = method.beta
        return (*method.settings, *self.settings, *(f"{key}={value!r}" for key, value in numbers.items()))

    def fresh_seeds(self, name: str) -> tuple[int, ...]:
        """Those that this method is reported with."""
        compared = self.primary and name in (self.primary.method, self.primary.reference)
        return self.seeds.primary if compared else self.seeds.descriptive

    def check_methods(self, names: Iterable[str] | None = None) -> None:
        """Compose the configuration of every method, or of these ones, without running anything.

        Raises:
            UserError: `python main.py` would refuse it, or its optimiser is none for which beta can be taken out.
        """
        for name in self.methods if names is None else names:
            with prefixed(f"methods.{name}"):
                config = check_overrides(list(self.settings_of(name, self.rates[0])))
                kind = config.model.hparams.f_optim.type
                require(kind == "sgd", "f_optim.type", "sgd, for which effective rates are defined", kind)


def load(path: Path) -> Plan:
    """The plan in a file.

    Raises:
        UserError: what is wrong with it, by its key.
    """
    try:
        text = path.read_bytes()
        given = OmegaConf.to_container(OmegaConf.create(text.decode()))
    except (OSError, UnicodeDecodeError, YAMLError) as error:
        raise UserError(f"cannot be read: {error}") from None
    own = {"name": path.stem, "sha256": hashlib.sha256(text).hexdigest()}
    keys = [field.name for field in fields(Plan) if field.name not in own]
    values = _mapping(given, "plan", keys)
    methods = _methods(values["methods"])
    rates = _rates(values["rates"])
    require_whole("most_rates", values["most_rates"], least=len(rates))
    primary = None if values["primary"] is None else _primary(values["primary"], methods)
    return Plan(
        **own,
        question=_text(values["question"], "question"),
        settings=_texts(values["settings"], "settings"),
        chance=_number(values["chance"], "chance", above=0, most=1),
        methods=methods,
        rates=rates,
        most_rates=values["most_rates"],
        weight_decay=_number(values["weight_decay"], "weight_decay", least=0),
        final_rate=_number(values["final_rate"], "final_rate", least=0),
        seeds=_seeds(values["seeds"], primary),
        primary=primary,
    )


def _methods(given: Any) -> dict[str, Method]:
    require(isinstance(given, Mapping) and len(given) > 1, "methods", "two or more by name", given)
    methods = {}
    for name, each in given.items():
        with prefixed(f"methods.{name}"):
            values = _mapping(each, "", [field.name for field in fields(Method)])
            beta = None if values["beta"] is None else _number(values["beta"], "beta", above=0)
            minutes = _number(values["minutes"], "minutes", above=0)
            methods[str(name)] = Method(_texts(values["settings"], "settings"), beta, minutes)
    return methods


def _rates(given: Any) -> tuple[float, ...]:
    met = isinstance(given, list) and len(given) >= LEAST_RATES and all(is_number(rate) and rate > 0 for rate in given)
    require(met and sorted(set(given)) == given, "rates", f"{LEAST_RATES} or more above 0, rising", given)
    return tuple(map(float, given))


def _seeds(given: Any, primary: Primary | None) -> Seeds:
    values = _mapping(given, "seeds", LEAST_SEEDS)
    with prefixed("seeds"):
        for kind, least in LEAST_SEEDS.items():
            unused = kind == "primary" and primary is None
            _check_seeds(values[kind], kind, 0 if unused else least)
        for kind in ("primary", "descriptive"):
            used = sorted(set(values["search"]) & set(values[kind]))
            require(not used, kind, "fresh seeds, none of the search", used)
    return Seeds(**{kind: tuple(each) for kind, each in values.items()})


def _check_seeds(given: Any, kind: str, least: int) -> None:
    met = isinstance(given, list) and len(given) >= least and len(set(given)) == len(given)
    require(met, kind, f"a list of {least} or more different seeds", given)
    for seed in given:
        require_whole(kind, seed, least=0)


def _primary(given: Any, methods: Mapping[str, Method]) -> Primary:
    values = _mapping(given, "primary", [field.name for field in fields(Primary)])
    with prefixed("primary"):
        for role in ("method", "reference"):
            if values[role] not in methods:
                raise unknown(role, values[role], methods)
        require(values["method"] != values["reference"], "reference", "another method", values["reference"])
        return Primary(values["method"], values["reference"], _number(values["margin"], "margin", above=0))


def _mapping(given: Any, key: str, keys: Iterable[str]) -> dict[str, Any]:
    """The values of exactly these keys."""
    keys = list(keys)
    require(isinstance(given, Mapping), key, f"the keys {', '.join(keys)}", given)
    for each in given:
        if each not in keys:
            raise no_such(f"{key}.{each}" if key not in ("", "plan") else str(each), keys)
    missing = [each for each in keys if each not in given]
    require(not missing, missing[0] if missing else key, "a value (null where there is none)", None)
    return dict(given)


def _number(given: Any, key: str, above: float | None = None, least: float | None = None, most: float = 1e9) -> float:
    lower = f"above {above}" if least is None else f"from {least}"
    met = is_number(given) and (above is None or given > above) and (least is None or given >= least) and given <= most
    require(met, key, f"a number {lower} to {most:g}", given)
    return float(given)


def _text(given: Any, key: str) -> str:
    require(isinstance(given, str), key, "a text", given)
    return str(given)


def _texts(given: Any, key: str) -> tuple[str, ...]:
    require(isinstance(given, Sequence) and all(isinstance(each, str) for each in given), key, "a list of texts", given)
    return tuple(given)
