"""Comparisons whose runs and probes are made up: all but the training is real."""

from __future__ import annotations

import math
import random
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from targetprop.compare import cli, comparison
from targetprop.compare.plan import Plan, Task
from targetprop.compare.probe import Probe, RuleFacts, overrides_of
from targetprop.compare.trial import Trial
from targetprop.utils.errors import UserError

PLAN = """
question: Is it so?
rules: [backprop, dtp, delta_mirror, kolen_pollack]
networks:
  tiny_vgg:
    - network.hparams.channels=[8,8]
data:
  digits:
    - trainer.max_epochs=2
settings:
  - trainer.gpus=0
search:
  rates: [0.02, 0.04, 0.08, 0.16]
  most_rates: 6
  seeds: [1, 2]
seeds: [11, 12, 13]
verdict:
  rule: delta_mirror
  margin: 0.5
  seeds: [11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22]
"""
OFFSETS = {"dtp": -0.02, "delta_mirror": -0.001, "kolen_pollack": -0.2}
RATIOS = {"dtp": 14.0, "delta_mirror": 1.5, "kolen_pollack": 1.2}
EPOCHS = 6
Answer = Callable[[Trial], None]


def made_plan(folder: Path, old: str = "", new: str = "") -> Path:
    """A plan, with one piece of it replaced."""
    assert old in PLAN
    path = folder / "made.yaml"
    path.write_text(PLAN.replace(old, new) if old else PLAN)
    return path


def made_probe(plan: Plan, task: Task, *_: Any) -> Probe:
    """A probe without a process; the needs are those of algorithms where there is one of that name."""
    needs = {"transports": [], "global_error": False, "noisy_phase": True, "passes": 1}
    source = {
        "authors": "A. U. Thor",
        "title": "A <b>rule</b> & more",
        "year": 2020,
        "url": "https://example.org/a?b=c",
        "remark": "",
    }
    rules = {}
    for rule in plan.rules:
        ratio, scale = RATIOS.get(rule, 1.0), 1.0 if rule == plan.reference else 0.7
        known = None if rule == plan.reference else source
        rules[rule] = RuleFacts(
            overrides_of(plan, rule, task, None), scale, needs, known, 0.01 * ratio, 0.01 * ratio, 0.01
        )
    machine = {"cpu": "a processor", "cores": 2, "threads": 1, "device": "cpu", "torch": "2.9", "python": "3.11"}
    return Probe(10, 2, 0.1, 5.0, 0.1, 0.1, machine, rules)


class MadeUp:
    """Stands for a run that has ended: best at a rate of .08, with a little noise by seed; diverged at high rates."""

    def __init__(self, trial: Trial, answer: Answer | None = None) -> None:
        self.trial, self.answer = trial, answer

    def result(self) -> dict[str, Any]:
        if self.answer:
            self.answer(self.trial)
        trial = self.trial
        noise = random.Random(f"{trial.rule} {trial.seed}")
        end = 0.7 + OFFSETS.get(trial.rule, 0.0) + noise.gauss(0, 0.001) - 0.02 * abs(math.log2(trial.rate / 0.08))
        kept = {"rule": trial.rule, "contest": trial.contest, "rate": trial.rate, "seed": trial.seed}
        facts = {**kept, "overrides": trial.overrides, "command": f"python main.py {' '.join(trial.overrides)}"}
        facts |= {"commit": "abc", "targetprop": "0", "machine": {"cpu": "a"}, "wall_seconds": 60.0}
        if trial.rate > 0.1:
            return {**facts, "diverged": True}
        curve = [end - 0.4 * math.exp(-epoch) - noise.random() * 0.01 for epoch in range(1, EPOCHS)] + [end]
        blocks = [f"block{number}" for number in (1, 2, 3)]
        far = 0 if trial.rule == "backprop" else 10
        angles = {epoch: {block: far * epoch + noise.random() for block in blocks} for epoch in range(1, EPOCHS + 1)}
        return {
            **facts,
            "diverged": False,
            "validation": end,
            "test": end if trial.phase == "fresh" else None,
            "epoch_seconds": [1.0] * EPOCHS,
            "epochs": {"val/accuracy": curve},
            "angles": angles,
            "cost": {"host_bytes": 4e8, "gpu_bytes": None, "processor_seconds": 9.0, "joules": None},
            "config": {"seed": trial.seed, "model": {"hparams": {"beta": 0.7}}, "note": "</script><b>"},
        }

    def forget(self) -> None:
        pass


class Commands:
    """Commands of a folder, with made-up runs.

    Attributes:
        made: trials that were run, in order.
        answer: called with each of them before its record is made; may raise.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.made: list[Trial] = []
        self.answer: Answer | None = None

    def patched(self, patch: pytest.MonkeyPatch) -> Commands:
        """This, in place of what makes runs and probes."""
        patch.setattr(comparison, "run_all", self.run_all)
        patch.setattr(comparison, "probe", made_probe)
        patch.setattr(signal, "signal", lambda *_: None)
        patch.chdir(self.folder)
        return self

    def run_all(self, trials: Sequence[Trial], *_: Any) -> Iterator[MadeUp]:
        for trial in trials:
            self.made.append(trial)
            yield MadeUp(trial, self.answer)

    def __call__(self, *arguments: str) -> Any:
        """The exit code of a command, or what it says when it ends early."""
        with pytest.raises(SystemExit) as ended:
            cli.main(list(arguments))
        return ended.value.code


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Commands:
    return Commands(tmp_path).patched(monkeypatch)


def failing(rule: str, phase: str) -> Answer:
    """Makes all runs of a rule fail, in the search or with fresh seeds."""

    def answer(trial: Trial) -> None:
        if (trial.rule, trial.phase) == (rule, phase):
            raise UserError("out of luck", key="model")

    return answer
