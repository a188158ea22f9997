"""What a rule is, and what its step takes on this machine: measured before anything trains, and kept.

All rules of a task are built in one process and take their steps in turn, on one batch of the task's own images: what
disturbs the machine disturbs all of them. A rule that is added later is timed anew beside the reference.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from targetprop.app.score import ACCURACY, Score
from targetprop.app.workers.orphans import die_with_parent
from targetprop.compare.plan import Plan, Task
from targetprop.utils.errors import UserError
from targetprop.utils.files import write_text

WORKER = "targetprop.compare.probe_worker"


@dataclass(frozen=True)
class RuleFacts:
    """A rule on a task.

    Attributes:
        overrides: that it was built from.
        scale: what its gradients are times those of backprop.
        needs: what it needs beside each block's own activity (`properties.Needs`), in plain types.
        source: where it was published.
        step: seconds of a training step, median. With one thread of the CPU they are the processor's, which do not mind
            what else the machine does; else they are on the clock.
        processor: the processor's seconds of a step, of all threads; on a GPU those on the clock.
        reference: `step` of the reference in the same measurement.
        feedback: the processor's seconds that a batch takes in all those epochs of a run in which the feedback alone
            learns, as `processor` counts them.
    """

    overrides: list[str]
    scale: float
    needs: Mapping[str, Any]
    source: Mapping[str, Any] | None
    step: float
    processor: float
    reference: float
    feedback: float = 0.0

    @property
    def ratio(self) -> float:
        """How many of the reference's steps a step takes."""
        return self.step / self.reference


@dataclass(frozen=True)
class Probe:
    """A task.

    Attributes:
        steps: of training in an epoch.
        chance: score of guessing.
        startup: processor's seconds from the start of a process to its first step.
        evaluation: processor's seconds of a validation.
        test: processor's seconds of the test.
        machine: facts of the machine that all of it was measured on.
        rules: those that can be built, by name.
        failed: why others cannot.
        score: by which rules are compared.
    """

    steps: int
    epochs: int
    chance: float
    startup: float
    evaluation: float
    test: float
    machine: Mapping[str, Any]
    rules: dict[str, RuleFacts]
    failed: dict[str, str] = field(default_factory=dict)
    score: Score = ACCURACY


def probe(plan: Plan, task: Task, path: Path, threads: int, data: Path | None) -> Probe:
    """The probe of a task that `path` keeps, after what is missing in it has been measured.

    Raises:
        UserError: the reference cannot be built, or nothing can.
    """
    kept = read(path)
    asked = {rule: overrides_of(plan, rule, task, data) for rule in plan.rules}
    if kept is not None and kept.rules.get(plan.reference, _NONE).overrides != asked[plan.reference]:
        kept = None
    known = {rule for rule in asked if kept and rule in kept.rules and kept.rules[rule].overrides == asked[rule]}
    if kept is not None and len(known) == len(asked):
        return kept
    lacking = [plan.reference, *(rule for rule in asked if rule not in known and rule != plan.reference)]
    made = measure({rule: asked[rule] for rule in lacking}, plan.reference, threads, path)
    if plan.reference in made.failed:
        raise UserError(made.failed[plan.reference], key=f"rules.{plan.reference} on {task.name}")
    rules = {rule: kept.rules[rule] for rule in known if kept and rule != plan.reference} | made.rules
    whole = Probe(**{**vars(made), "rules": {rule: rules[rule] for rule in asked if rule in rules}})
    write_text(path, json.dumps(asdict(whole), indent=1) + "\n")
    return whole


_NONE = RuleFacts([], 1.0, {}, None, 0.0, 0.0, 1.0)


def overrides_of(plan: Plan, rule: str, task: Task, data: Path | None) -> list[str]:
    """What a rule is built from to be probed."""
    rates = plan.optimizer.settings(plan.search.rates[0], 1.0)
    return [*plan.chosen(rule, task), *rates, *([] if data is None else [f"data_dir={data.resolve()}"])]


def read(path: Path) -> Probe | None:
    """What was measured before."""
    if not path.is_file():
        return None
    given = json.loads(path.read_text())
    given["rules"] = {name: RuleFacts(**facts) for name, facts in given["rules"].items()}
    if "classes" in given:  # of earlier probes, when all tasks had classes
        given["chance"] = 1 / given.pop("classes")
    return Probe(**{**given, "score": Score(**given.get("score", asdict(ACCURACY)))})


def measure(rules: Mapping[str, Sequence[str]], reference: str, threads: int, path: Path) -> Probe:
    """Time these rules in a process of its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    asked, answer = (path.with_name(f".{path.stem}.{kind}") for kind in ("asked", "answer"))
    asked.write_text(json.dumps({"rules": rules, "reference": reference, "threads": threads}))
    try:
        done = subprocess.run(
            [sys.executable, "-m", WORKER, str(asked), str(answer)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            preexec_fn=partial(die_with_parent, os.getpid()) if os.name == "posix" else None,
        )
        if done.returncode:
            said = (done.stderr or done.stdout).strip().splitlines()
            raise UserError(f"rules could not be timed: {said[-1] if said else f'exit code {done.returncode}'}")
        made = read(answer)
        assert made is not None
        return made
    finally:
        for each in (asked, answer):
            each.unlink(missing_ok=True)
