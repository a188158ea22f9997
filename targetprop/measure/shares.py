"""Where the time of a step goes, block by block."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from statistics import median
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from targetprop.measure.probe import Probe, by_block, check_numbers

if TYPE_CHECKING:
    from targetprop.network.pair import Trace
    from targetprop.network.passes import Pass
    from targetprop.targets.base import OutputSignal, TargetRule
    from targetprop.trainable import Trainable


def time_share(probe: Probe, repeats: int = 3) -> dict[str, float]:
    """`time_share` of each block: its share, from 0 to 1, of the time that all blocks take of a step; the sum is 1.

    Of a block count its part of the forward pass, the learning of its feedback, its forward update, and carrying its
    target to the block below; of the output block also making the first target. What belongs to no block (the loss,
    the optimiser, what a rule does after the sweep) is left out. By the clock of the CPU, or by CUDA's events.

    Measured on steps of a copy of the learner, one block after the other. Costs a copy and `repeats` + 1 steps.

    Args:
        repeats: of the step, of whose times the median counts; another one before them warms up.
    """
    check_numbers(repeats=repeats)
    _ = probe.targets
    learner = probe.copied()
    clock = Clock(probe.x.device)
    watch(learner, clock)
    seconds: dict[int, list[float]] = {}
    for repeat in range(repeats + 1):
        clock.spans.clear()
        with probe.random.again(), torch.enable_grad():
            learner.backward(probe.loss_of(learner(probe.x)), labels=probe.y, loss_of=probe.loss_of)
        for block, spent in clock.seconds_by_block().items() if repeat else ():
            seconds.setdefault(block, []).append(spent)
    typical = {block: median(spent) for block, spent in seconds.items()}
    return by_block("time_share", {block: spent / sum(typical.values()) for block, spent in typical.items()})


Mark = float | torch.cuda.Event
"""A moment, on the CPU or on a GPU."""


class Clock:
    """Spans of time on a device.

    Attributes:
        spans: (block from 0, start, end) in marks of this clock.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.spans: list[tuple[int, Mark, Mark]] = []
        self.is_sweeping = False

    def mark(self) -> Mark:
        """Now."""
        if self._device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._device))
        return event

    def seconds_by_block(self) -> dict[int, float]:
        """What the spans of every block took together."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        seconds: dict[int, float] = {}
        for block, start, end in self.spans:
            seconds[block] = seconds.get(block, 0.0) + _between(start, end)
        return seconds


def _between(start: Mark, end: Mark) -> float:
    """Seconds."""
    if isinstance(start, float):
        assert isinstance(end, float)
        return end - start
    assert isinstance(end, torch.cuda.Event)
    return start.elapsed_time(end) / 1000


def watch(learner: Trainable, clock: Clock) -> None:
    """Have a learner, which is a copy for this alone, tell the clock which block is at work."""
    for block, pair in enumerate(learner.network.pairs):
        vars(pair)["trace"] = _watched_trace(pair.trace, block, clock)
    targets: TargetRule = learner.algorithm.targets  # type: ignore[attr-defined]
    vars(targets)["sweep"] = _watched_sweep(targets.sweep, clock)


def _watched_trace(trace: Callable[[Tensor], Trace], block: int, clock: Clock) -> Callable[[Tensor], Trace]:
    def watched(x: Tensor) -> Trace:
        start = clock.mark()
        found = trace(x)
        if not clock.is_sweeping:  # else a block that is run anew counts with the sweep
            clock.spans.append((block, start, clock.mark()))
        return found

    return watched


Sweep = Callable[["Pass", "OutputSignal"], Iterator[tuple[int, Tensor]]]


def _watched_sweep(sweep: Sweep, clock: Clock) -> Sweep:
    def watched(seen: Pass, output: OutputSignal) -> Iterator[tuple[int, Tensor]]:
        start, at_work = clock.mark(), None
        clock.is_sweeping = True
        for block, difference in sweep(seen, output):
            now = clock.mark()
            clock.spans.append((block if at_work is None else at_work, start, now))
            start, at_work = now, block
            yield block, difference
        clock.is_sweeping = False
        if at_work is not None:
            clock.spans.append((at_work, start, clock.mark()))

    return watched
