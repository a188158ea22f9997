"""Published comparisons by the protocol of `targetprop compare`: the same search of rates for every rule, fresh seeds.

Their plans lie in `plans`, beside this file.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from importlib.resources import files
from pathlib import Path

from matplotlib.figure import Figure

from targetprop.compare import plan_file
from targetprop.compare.comparison import Comparison
from targetprop.compare.comparison import Means as OfComparison
from targetprop.compare.plan import Plan, Search
from targetprop.published.drawing import accuracies
from targetprop.published.experiment import Means, Rows
from targetprop.published.numbers import Published
from targetprop.utils.errors import UserError

QUICK_RULES = 3
"""As many, the reference among them."""


@dataclass(frozen=True)
class PlanTable:
    """Test accuracies of a comparison, beside published ones where these could be read.

    Attributes:
        plan: name of its file.
    """

    title: str
    paper: str
    plan: str
    published: Published = field(default_factory=dict)

    def rows(self, means: Means) -> Rows:
        """A row for each task, rule and seed."""
        plan = self._plan(means)
        folder = means.folder / "comparison"
        own = OfComparison(folder, means.folder / "frozen.yaml", means.jobs, means.threads, means.data)
        made = Comparison(plan, own, means.console)
        folder.mkdir(parents=True, exist_ok=True)
        made.prepare()
        made.search()
        made.fresh()
        if made.failed:
            trial, why = next(iter(made.failed.items()))
            raise UserError(f"{len(made.failed)} runs failed, the same command makes them again; {trial}: {why}")
        return [
            {
                "task": board.title,
                "rule": row.rule,
                "rate": row.rate,
                "seed": run.seed,
                "test": None if run.test is None else 100 * run.test,
                "published": self.published.get((board.title.partition(",")[0], row.rule)),
            }
            for board in made.results().boards
            for row in board.rows
            for run in row.runs
        ]

    def _plan(self, means: Means) -> Plan:
        with Path(str(files("targetprop.published") / "plans" / f"{self.plan}.yaml")) as path:
            plan = plan_file.load(path)
        if means.quick:
            plan = replace(
                plan,
                rules=dict(list(plan.rules.items())[:QUICK_RULES]),
                networks={"mlp": ("network.hparams.hidden=[8,8]",)},
                data={"digits": ("trainer.max_epochs=1",)},
                search=Search((0.02, 0.04), 2, (1,)),
                seeds=(2, 3),
            )
        return plan if means.seeds is None else replace(plan, seeds=means.seeds)

    def draw(self, rows: Rows) -> Figure:
        """Bars for each task, ours beside the published ones; rules of a tenth of the steps stand apart."""
        return accuracies(rows, "task")
