"""Rates, chosen on the validation split by a rule that the plan fixes, and then frozen in a file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean

from omegaconf import OmegaConf

from protocol.plan import Plan
from protocol.trials import Trial, find, missing
from targetprop.utils.errors import UserError
from targetprop.utils.files import whole_file

Look = Callable[[str, float, int], float | None]
"""Validation accuracy of a method, at a rate, with a seed; None if that has not been run."""
Table = dict[str, dict[float, list[float]]]
"""Validation accuracies by method and rate, of all seeds of the search."""


def best_rate(accuracies: Mapping[float, Sequence[float]]) -> float:
    """The rate with the highest mean; of equal ones the lowest."""
    return max(sorted(accuracies), key=lambda rate: fmean(accuracies[rate]))


def extended(rates: Sequence[float], best: Iterable[float], most: int) -> tuple[float, ...]:
    """The rates, and one more at either end where a best one lies, by the ratio of the last two there."""
    best, grown = set(best), list(rates)
    if rates[0] in best and len(grown) < most:
        grown.insert(0, _rounded(rates[0] * rates[0] / rates[1]))
    if rates[-1] in best and len(grown) < most:
        grown.append(_rounded(rates[-1] * rates[-1] / rates[-2]))
    return tuple(grown)


def _rounded(rate: float) -> float:
    return float(f"{rate:.6g}")


def table_of(plan: Plan, rates: Sequence[float], look: Look) -> Table | None:
    """What the search found at these rates; None while any of it is missing."""
    table: Table = {}
    for name in plan.methods:
        table[name] = {}
        for rate in rates:
            seen = [look(name, rate, seed) for seed in plan.seeds.search]
            table[name][rate] = [accuracy for accuracy in seen if accuracy is not None]
            if len(table[name][rate]) < len(seen):
                return None
    return table


def grid(plan: Plan, look: Look) -> tuple[float, ...]:
    """The rates of the plan, grown as often as a search that is complete has some best rate at an edge."""
    rates = plan.rates
    while table := table_of(plan, rates, look):
        grown = extended(rates, map(best_rate, table.values()), plan.most_rates)
        if grown == rates:
            break
        rates = grown
    return rates


def recorded(plan: Plan, folder: Path) -> Look:
    """Looks at the records in a folder; a run that diverged has the accuracy of chance."""

    def look(name: str, rate: float, seed: int) -> float | None:
        record = find(folder, search_trial(plan, name, rate, seed))
        if record is None:
            return None
        return plan.chance if record["diverged"] else record["validation"]

    return look


def search_trial(plan: Plan, name: str, rate: float, seed: int) -> Trial:
    """A run of the search."""
    return Trial("search", name, rate, seed, plan.settings_of(name, rate))


def search_trials(plan: Plan, folder: Path) -> list[Trial]:
    """All runs of the search, at the rates that the records so far ask for, seed by seed."""
    rates = grid(plan, recorded(plan, folder))
    return [
        search_trial(plan, name, rate, seed) for seed in plan.seeds.search for rate in rates for name in plan.methods
    ]


@dataclass(frozen=True)
class Frozen:
    """What the search chose.

    Attributes:
        plan, sha256: of the plan that it was chosen by.
        rates: that every method was tried with.
        chosen: of these, for each method.
        at_an_edge: methods whose rate lies at an edge of a grid that may not grow further.
        settings: overrides of `python main.py` for each method.
        validation: accuracies, one for each seed of the search.
        diverged: runs of the search that count as chance.
        commits: that the runs were made with.
    """

    plan: str
    sha256: str
    rates: list[float]
    chosen: dict[str, float]
    at_an_edge: list[str]
    settings: dict[str, list[str]]
    validation: Table
    diverged: list[str]
    commits: list[str]


def choose(plan: Plan, folder: Path) -> Frozen:
    """The choice that the records of the search lead to.

    Raises:
        UserError: some of them are missing.
    """
    look = recorded(plan, folder)
    rates = grid(plan, look)
    table = table_of(plan, rates, look)
    if table is None:
        lacking = missing(folder, search_trials(plan, folder))
        tried = ", ".join(f"{rate:g}" for rate in rates)
        message = f"{len(lacking)} runs of the search are missing, the first is {lacking[0]}"
        raise UserError(f"{message}; rates to try are {tried}. Run `search` again.")
    chosen = {name: best_rate(accuracies) for name, accuracies in table.items()}
    records = {str(trial): find(folder, trial) or {} for trial in search_trials(plan, folder)}
    return Frozen(
        plan.name,
        plan.sha256,
        list(rates),
        chosen,
        [name for name, rate in chosen.items() if rate in (rates[0], rates[-1])],
        {name: list(plan.settings_of(name, rate)) for name, rate in chosen.items()},
        table,
        [name for name, record in records.items() if record["diverged"]],
        sorted({record["commit"] for record in records.values()}),
    )


def frozen_path(plan_path: Path) -> Path:
    """Beside the plan."""
    return plan_path.with_suffix(".frozen.yaml")


def write_frozen(path: Path, frozen: Frozen) -> None:
    """Write what was chosen, once.

    Raises:
        UserError: something else has been frozen already.
    """
    if path.exists():
        if OmegaConf.to_container(OmegaConf.load(path)) != asdict(frozen):
            raise UserError(f"{path} holds another choice already; a choice is made once. Remove it to choose again.")
        return
    with whole_file(path) as partial:
        OmegaConf.save(OmegaConf.create(asdict(frozen)), partial)


def read_frozen(path: Path, plan: Plan) -> Frozen:
    """What was frozen for this plan.

    Raises:
        UserError: nothing was, or the plan is not the same any more.
    """
    if not path.is_file():
        raise UserError(f"{path} is missing; `freeze` writes it once the search is complete.")
    kept = OmegaConf.to_container(OmegaConf.load(path))
    assert isinstance(kept, dict)
    frozen = Frozen(**{str(key): value for key, value in kept.items()})
    if frozen.sha256 != plan.sha256:
        raise UserError(f"the plan has changed since {path} was frozen; restore it, or begin anew under another name.")
    return frozen


def fresh_trials(plan: Plan, frozen: Frozen) -> list[Trial]:
    """All runs with seeds that the search never saw, with the frozen settings; seed by seed."""
    seeds = sorted({seed for name in plan.methods for seed in plan.fresh_seeds(name)})
    return [
        Trial("fresh", name, frozen.chosen[name], seed, tuple(frozen.settings[name]))
        for seed in seeds
        for name in plan.methods
        if seed in plan.fresh_seeds(name)
    ]
