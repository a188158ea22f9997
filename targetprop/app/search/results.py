"""What a search has found: a table, a file of the best numbers, and a picture."""

from __future__ import annotations

import math
import shlex
import sys
from pathlib import Path

import optuna
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from targetprop.app.command import program
from targetprop.app.search.picture import draw, short
from targetprop.app.search.space import Space, override_of
from targetprop.app.search.study import minimizes
from targetprop.utils.errors import UserError
from targetprop.utils.files import write_text

BEST = "optimization_results.yaml"
PICTURE = "search.png"
SHOWN = 10
"""Trials in the table."""
WIDTH = 160
"""Of the table in files."""


def show(study: optuna.Study, space: Space, folder: Path, *, told: bool = False) -> float:
    """Write the results so far; at the end say them, too. Returns the best value, the worst there is without any.

    Raises:
        UserError: it is the end, and no trial has a result.
    """
    good = with_values(study)
    if not good:
        if told:
            raise UserError(f"no trial has a result; what each says of it stands in {folder}.", key="hydra.sweeper")
        return math.inf if minimizes(study) else -math.inf
    draw(study, space.varied, folder / PICTURE)
    best = good[0]
    found = {"trial": best.number, "best_value": best.value, "best_params": plain(best)}
    write_text(folder / BEST, yaml.safe_dump(found, sort_keys=False))
    if told:
        Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH).print(table(study, space))
        print(f"Picture: {folder / PICTURE}")
        overrides = [*space.fixed, *(override_of(*pair) for pair in best.params.items())]
        kept = [each for each in overrides if not each.startswith(("hparams_search=", "hydra"))]
        print(f"The best one again, with its test: {program()} {shlex.join(kept)}", flush=True)
    assert best.value is not None
    return best.value


def with_values(study: optuna.Study) -> list[FrozenTrial]:
    """Trials that have run to their end, the best first."""
    sign = 1.0 if minimizes(study) else -1.0
    good = [each for each in study.trials if each.state == TrialState.COMPLETE and each.value is not None]
    return sorted(good, key=lambda each: sign * (each.value or 0.0))


def plain(trial: FrozenTrial) -> dict[str, object]:
    """What a trial tried, as the configuration has it."""
    parser = OverridesParser.create()
    return {key: parser.parse_override(override_of(key, value)).value() for key, value in trial.params.items()}


def table(study: optuna.Study, space: Space) -> Table:
    """The best trials."""
    good = with_values(study)
    others = len(study.trials) - len(good)
    ends = f"; {others} without a result" if others else ""
    made = Table(title=f"{min(len(good), SHOWN)} best of {len(study.trials)} trials{ends}")
    for name in ("trial", "value", *map(short, space.varied)):
        made.add_column(escape(name), justify="right")
    for each in good[:SHOWN]:
        tried = (each.params.get(key, "") for key in space.varied)
        cells = (f"{value:.4g}" if isinstance(value, float) else str(value) for value in tried)
        made.add_row(str(each.number), f"{each.value:.4f}", *map(escape, cells))
    return made
