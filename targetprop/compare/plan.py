"""A plan: everything that a comparison says before it runs."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from itertools import product
from typing import Any

from targetprop.compare.rates import Optimiser

Settings = tuple[str, ...]
"""Overrides of `python main.py`."""
Choices = Mapping[str, Settings]
"""Names, each with the settings that belong to it beside what the name itself chooses."""
SCHEDULER = "scheduler=cosine_to_end"
"""Of every run, unless the settings of the plan name another: some models have one of their own."""


@dataclass(frozen=True)
class Search:
    """How rates are chosen.

    Attributes:
        rates: effective ones, the same for every rule.
        most_rates: how many there may be once the grid has grown where some best one lies at an edge.
        seeds: of its runs.
    """

    rates: tuple[float, ...] = (0.01, 0.02, 0.04, 0.08, 0.16)
    most_rates: int = 9
    seeds: tuple[int, ...] = (1001, 1002)


@dataclass(frozen=True)
class Verdict:
    """The one comparison that gets a verdict: a rule minus the reference, in points of test accuracy.

    Attributes:
        margin: in points of accuracy; of another score in units as it is shown, such as bits.
        seeds: of both, instead of those of the plan.
    """

    rule: str
    margin: float
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class Task:
    """A network on a data set."""

    network: str
    data: str

    @property
    def name(self) -> str:
        return f"{self.data}_{self.network}"


@dataclass(frozen=True)
class Plan:
    """What is compared, and how.

    Attributes:
        name: of its file, and of what is written beside it.
        question: that it answers, in a sentence.
        rules, networks, data: what is compared on what; a name is a choice of `model`, `network` or `datamodule`, or of
            a rule the import path of an `Algorithm`, unless its settings choose another.
        settings: that all runs share.
        seeds: of the runs that are reported; none of the search.
        reference: the rule that others are compared with.
        level: validation score whose price is told; None: .95 of what the reference ends with, or it over .95 where
            less is better.
        verdict: None if everything is descriptive.
    """

    name: str
    question: str
    rules: Choices
    networks: Choices
    data: Choices
    seeds: tuple[int, ...]
    settings: Settings = ()
    optimizer: Optimiser = field(default_factory=Optimiser)
    search: Search = field(default_factory=Search)
    reference: str = "backprop"
    level: float | None = None
    verdict: Verdict | None = None

    @property
    def tasks(self) -> list[Task]:
        """Every network on every data set."""
        return [Task(network, data) for data, network in product(self.data, self.networks)]

    def chosen(self, rule: str, task: Task) -> Settings:
        """The overrides that choose a rule on a task, without those of its rate."""
        made = (
            *choosing("model", rule, self.rules[rule]),
            *choosing("network", task.network, self.networks[task.network]),
            *choosing("datamodule", task.data, self.data[task.data]),
            *self.settings,
        )
        own = any(each.startswith("scheduler=") for each in made)
        return made if own else (*made, SCHEDULER)

    def fresh_seeds(self, rule: str, beside: Collection[str]) -> tuple[int, ...]:
        """Those that a rule is reported with, beside these rules."""
        verdict = self.verdict
        judged = verdict and verdict.rule in beside and rule in (verdict.rule, self.reference)
        return verdict.seeds if verdict and judged else self.seeds

    def as_dict(self) -> dict[str, Any]:
        """In plain types, as its file has them."""
        made = asdict(self)
        del made["name"]
        return {key: _plain(value) for key, value in made.items()}


def choosing(group: str, name: str, settings: Settings) -> Settings:
    """The overrides that a name stands for, in a group of the configuration."""
    if any(each.startswith(f"{group}=") for each in settings):
        return settings
    if group == "model" and "." in name:
        return ("model=own", f"model.algorithm={name}", *settings)
    return (f"{group}={name}", *settings)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, (tuple, list)) else value
