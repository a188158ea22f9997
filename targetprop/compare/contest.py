"""What is compared with what: rules on one task that make the same number of steps."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from targetprop.app.score import ACCURACY, Score
from targetprop.compare.plan import Plan, Settings, Task
from targetprop.compare.probe import Probe

DEAR = 10.0
"""A rule whose step takes more than so many of the reference's makes a tenth of the steps, in a contest of its own."""
LIMIT = "trainer.limit_train_batches="


@dataclass(frozen=True)
class Contest:
    """Rules on one task at one length.

    Attributes:
        rules: by name, the reference first.
        steps: of training in an epoch.
        whole: the length is that of the plan; else a tenth of it.
        chance: score of guessing, which a run that diverges counts as.
        scales: what each rule's gradients are times those of backprop.
        score: by which rules are compared.
    """

    task: Task
    rules: tuple[str, ...]
    steps: int
    whole: bool
    chance: float
    scales: Mapping[str, float]
    score: Score = ACCURACY

    @property
    def name(self) -> str:
        return self.task.name if self.whole else f"{self.task.name}_tenth"

    @property
    def title(self) -> str:
        """For people."""
        length = "" if self.whole else ", a tenth of the steps"
        return f"{self.task.data}, {self.task.network}{length}"

    def settings(self, plan: Plan, rule: str, rate: float) -> Settings:
        """The overrides with which a rule trains at an effective rate."""
        chosen = plan.chosen(rule, self.task)
        if not self.whole:
            chosen = (*(each for each in chosen if not each.startswith(LIMIT)), f"{LIMIT}{self.steps}")
        return (*chosen, *plan.optimizer.settings(rate, self.scales[rule]))


def contests(plan: Plan, probes: Mapping[str, Probe], placed: Mapping[str, Collection[str]]) -> list[Contest]:
    """All of a plan, after every task has been probed.

    Args:
        placed: by name of a contest, rules that have been searched there and so stay there.
    """
    made = []
    for task in plan.tasks:
        probe = probes[task.name]
        others = [rule for rule in plan.rules if rule in probe.rules and rule != plan.reference]
        for whole in (True, False):
            rules = [rule for rule in others if _is_whole(task, rule, probe, placed) == whole]
            if rules:
                steps = probe.steps if whole else max(1, round(probe.steps / 10))
                scales = {rule: probe.rules[rule].scale for rule in (plan.reference, *rules)}
                named = (plan.reference, *rules)
                made.append(Contest(task, named, steps, whole, probe.chance, scales, probe.score))
    return made


def _is_whole(task: Task, rule: str, probe: Probe, placed: Mapping[str, Collection[str]]) -> bool:
    if rule in placed.get(task.name, ()):
        return True
    return rule not in placed.get(f"{task.name}_tenth", ()) and probe.rules[rule].ratio <= DEAR
