"""What a search chose, in a file that is committed before a fresh seed runs.

A choice is made once: entries of the file never change. A rule that is added to a plan later is searched on the grid
that the file has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from targetprop.compare.contest import Contest
from targetprop.compare.plan import Plan, Settings
from targetprop.compare.search import Scores, best_rate
from targetprop.compare.trial import Trial
from targetprop.utils.errors import UserError
from targetprop.utils.files import whole_file


@dataclass(frozen=True)
class Choice:
    """Of a rule in a contest.

    Attributes:
        rate: effective one, of those that were tried.
        at_an_edge: of a grid that may not grow further.
        settings: overrides of `python main.py`.
        validation: scores by rate, one for each seed of the search.
    """

    rate: float
    at_an_edge: bool
    settings: list[str]
    validation: Scores


@dataclass
class Frozen:
    """Of a contest.

    Attributes:
        rates: that every rule was tried with.
        seeds: of the search.
        steps: of training in an epoch.
    """

    rates: list[float]
    seeds: list[int]
    steps: int
    rules: dict[str, Choice] = field(default_factory=dict)


def choose(contest: Contest, plan: Plan, rule: str, found: Scores) -> Choice:
    """The rate that the scores lead to."""
    rates, rate = list(found), best_rate(found, contest.score)
    return Choice(rate, rate in (rates[0], rates[-1]), list(contest.settings(plan, rule, rate)), found)


def read(path: Path) -> dict[str, Frozen]:
    """All contests that have been frozen in a file, by name; none where there is no file."""
    if not path.is_file():
        return {}
    try:
        given: Any = OmegaConf.to_container(OmegaConf.load(path))
        return {name: _frozen(each) for name, each in given.items()}
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        raise UserError(f"this is no file of choices ({error}); remove it to choose again.", key=str(path)) from None


def _frozen(given: Mapping[str, Any]) -> Frozen:
    rules = {name: Choice(**choice) for name, choice in given["rules"].items()}
    return Frozen(given["rates"], given["seeds"], given["steps"], rules)


def write(path: Path, frozen: Mapping[str, Frozen]) -> None:
    """Write all of it."""
    with whole_file(path) as partial:
        OmegaConf.save(OmegaConf.create({name: asdict(each) for name, each in frozen.items()}), partial)


def check(frozen: Mapping[str, Frozen], contests: Sequence[Contest], plan: Plan, path: Path) -> None:
    """Refuse to go on by choices that were made for other settings.

    Raises:
        UserError: the plan has changed since.
    """
    for contest in contests:
        kept = frozen.get(contest.name)
        for rule, choice in kept.rules.items() if kept else ():
            if rule in contest.rules and choice.settings != list(contest.settings(plan, rule, choice.rate)):
                message = (
                    f"the plan has other settings for {rule} in {contest.name} than those that were frozen here; "
                    "restore them, or begin anew under another name."
                )
                raise UserError(message, key=str(path))
        if kept and kept.seeds != list(plan.search.seeds):
            message = f"it was chosen by other seeds, {kept.seeds}; restore them, or begin anew under another name."
            raise UserError(message, key=str(path))


def fresh_trials(plan: Plan, contest: Contest, frozen: Frozen) -> list[Trial]:
    """All runs with seeds that the search never saw, with the frozen settings; seed by seed."""
    chosen: dict[str, Choice] = {rule: frozen.rules[rule] for rule in contest.rules if rule in frozen.rules}
    seeds = sorted({seed for rule in chosen for seed in plan.fresh_seeds(rule, contest.rules)})
    return [
        Trial("fresh", contest.name, rule, choice.rate, seed, _settings(choice))
        for seed in seeds
        for rule, choice in chosen.items()
        if seed in plan.fresh_seeds(rule, contest.rules)
    ]


def _settings(choice: Choice) -> Settings:
    return tuple(choice.settings)
