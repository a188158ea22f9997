"""The process in which rules are built and take their steps in turn: `python -m ... ASKED.json ANSWER.json`."""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from targetprop.app.callbacks.feedback_epochs import feedback_epochs
from targetprop.app.datamodule import HeldDataModule
from targetprop.app.machine import machine
from targetprop.app.module import TaskModule
from targetprop.app.objects import build, plain
from targetprop.app.overrides import check_overrides, one_line
from targetprop.app.processes import usable_gpus
from targetprop.app.quiet import quiet_warnings
from targetprop.app.run import EPOCHS, build_module, check_configuration
from targetprop.app.task import Task
from targetprop.compare.probe import Probe, RuleFacts
from targetprop.data.loader import BatchLoader
from targetprop.execution.memory import keep_freed_memory
from targetprop.learner import Learner
from targetprop.utils.errors import UserError

REPEATS, LEAST = 20, 3
"""Steps of each rule, at most and at least, beside one that warms up."""
SECONDS = 2.0
"""A rule whose steps have taken so long in all takes no further ones, beyond the least."""
NOWHERE = "output_dir=."
"""Nothing is written: there is no run."""
Step = Callable[[], object]


class Built(NamedTuple):
    """A rule that can train.

    Attributes:
        epochs: in a run, of the feedback alone.
    """

    module: TaskModule
    step: Step
    epochs: int


def main() -> None:
    """Read what is asked, measure, write the answer."""
    quiet_warnings()
    keep_freed_memory()
    asked = json.loads(Path(sys.argv[1]).read_text())
    torch.set_num_threads(asked["threads"])
    try:
        Path(sys.argv[2]).write_text(json.dumps(asdict(measured(asked["rules"], asked["reference"]))))
    except UserError as error:
        sys.exit(str(error))


def measured(rules: Mapping[str, Sequence[str]], reference: str) -> Probe:
    """Build every rule and time the steps of those that can be built."""
    config = check_overrides([*rules[reference], NOWHERE])
    check_configuration(config)
    device = torch.device("cuda" if usable_gpus(config.trainer.gpus) else "cpu")
    datamodule: HeldDataModule = build(config.datamodule)
    datamodule.setup("fit")
    task: Task = build(config.task)
    batches = datamodule.train_dataloader()
    x, y = (each.to(device) for each in next(iter(batches)))
    built: dict[str, Built] = {}
    alone: dict[str, float] = {}
    failed: dict[str, str] = {}
    for name, overrides in rules.items():
        try:
            built[name] = _built(overrides, datamodule, x, y)
            built[name].step()  # warms up
            alone[name] = _feedback(built[name], x, device)
        except Exception as error:  # whatever a rule of the user's own raises
            built.pop(name, None)
            failed[name] = one_line(error) or type(error).__name__
    startup = time.process_time()
    times = _times({name: each.step for name, each in built.items()}, device)
    middle = {name: [statistics.median(each) for each in zip(*taken, strict=True)] for name, taken in times.items()}
    steps = {name: seconds[device.type == "cpu" and torch.get_num_threads() == 1] for name, seconds in middle.items()}
    facts = {
        name: _facts(
            list(rules[name]), each.module, steps[name], middle[name][1], steps.get(reference, steps[name]), alone[name]
        )
        for name, each in built.items()
    }
    module = next(iter(built.values())).module if built else None
    return Probe(
        steps=_limited(len(batches), config.trainer.limit_train_batches),
        epochs=int(config.trainer.max_epochs),
        chance=task.guess(datamodule),
        startup=startup,
        evaluation=_evaluation(module, datamodule.val_dataloader(), device),
        test=_evaluation(module, datamodule.test_dataloader(), device),
        machine=machine(device),
        rules=facts,
        failed=failed,
        score=task.score,
    )


def _built(overrides: Sequence[str], datamodule: HeldDataModule, x: Tensor, y: Tensor) -> Built:
    """A rule's module, and its training step at rate zero: weights stay where they are, feedback learns."""
    config = check_overrides([*overrides, NOWHERE])
    check_configuration(config)
    torch.manual_seed(config.seed)
    module = build_module(config, datamodule).to(x.device)
    module.train()
    optimizer = module.f_optim.build(module.learner.optimizer_parameters())
    for group in optimizer.param_groups:
        group["lr"] = 0.0

    def step() -> None:
        module.backward(module.training_step((x, y), 0))
        optimizer.step()
        optimizer.zero_grad()

    alone = feedback_epochs(plain(config.model).get(EPOCHS))
    return Built(module, step, alone.before + alone.after_each * config.trainer.max_epochs if alone else 0)


def _feedback(built: Built, x: Tensor, device: torch.device) -> float:
    """Seconds that a batch takes in all epochs of the feedback alone, of the processor or, on a GPU, on the clock."""
    if not built.epochs:
        return 0.0
    learner = built.module.learner
    assert isinstance(learner, Learner)
    return built.epochs * statistics.median(
        _seconds_of(lambda: learner.learn_feedback(x), device)[1] for _ in range(LEAST)
    )


def _times(steps: Mapping[str, Step], device: torch.device) -> dict[str, list[tuple[float, float]]]:
    """Seconds of every call, on the clock and of the processor, all steps in turn."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in steps}
    for _ in range(REPEATS):
        for name, step in steps.items():
            taken = times[name]
            if len(taken) < LEAST or sum(wall for wall, _ in taken) < SECONDS:
                taken.append(_seconds_of(step, device))
    return times


def _seconds_of(step: Step, device: torch.device) -> tuple[float, float]:
    _wait_for(device)
    start, worked = time.perf_counter(), time.process_time()
    step()
    _wait_for(device)
    wall = time.perf_counter() - start
    return wall, time.process_time() - worked if device.type == "cpu" else wall


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _facts(
    overrides: list[str], module: TaskModule, step: float, processor: float, reference: float, feedback: float
) -> RuleFacts:
    learner = module.learner
    needs = {**vars(learner.needs), "transports": sorted(learner.needs.transports)}
    source = getattr(getattr(learner, "algorithm", learner), "source", None)
    scale = learner.update_scale
    return RuleFacts(
        overrides,
        1.0 if scale is None else scale,
        needs,
        None if source is None else vars(source),
        step,
        processor,
        reference,
        feedback,
    )


def _evaluation(module: TaskModule | None, batches: BatchLoader | list[BatchLoader], device: torch.device) -> float:
    """Processor's seconds of an evaluation: those of one batch, times the number of batches."""
    if module is None or isinstance(batches, list):
        return 0.0
    x, _ = next(iter(batches))
    module.eval()
    with torch.no_grad():
        _, seconds = _seconds_of(lambda: module(x.to(device)), device)
    module.train()
    return len(batches) * seconds


def _limited(count: int, limit: float) -> int:
    """Batches of an epoch, by a share or a number of them as Lightning takes it."""
    return min(count, limit) if isinstance(limit, int) else max(1, int(count * limit))


if __name__ == "__main__":
    main()
