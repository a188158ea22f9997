"""What happens to a run at a moment that is counted, not timed, so that a case can be repeated exactly.

These wrap what the run calls, inside its own process, before it starts; nothing of the project is changed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any

EVENTS = ("start", "step", "replace", "replaced", "fsync")
"""At the very start; before a training step; before and after a file takes its place; before one is synced."""


@dataclass(frozen=True)
class Trigger:
    """At the `count`th event of a kind the process sends itself signals, or its clock jumps.

    Attributes:
        event: one of `EVENTS`.
        count: from 1 on.
        signals: numbers, sent one after the other.
        jump: seconds that are added to the clock from then on.
    """

    event: str
    count: int
    signals: tuple[int, ...] = ()
    jump: float = 0.0


class Clock:
    """The wall clock of the process, as `time.time` reads it, set wrong."""

    def __init__(self) -> None:
        self.ahead = 0.0
        seconds, nanoseconds = time.time, time.time_ns
        time.time = lambda: seconds() + self.ahead
        time.time_ns = lambda: nanoseconds() + int(self.ahead * 1e9)


def arm(triggers: list[Trigger]) -> None:
    """Make them happen in this process."""
    if not triggers:
        return
    clock = Clock()

    def happen(event: str) -> Callable[[int], None]:
        mine = [each for each in triggers if each.event == event]

        def at(count: int) -> None:
            for trigger in mine:
                if trigger.count == count:
                    clock.ahead += trigger.jump
                    for number in trigger.signals:
                        os.kill(os.getpid(), number)

        return at

    happen("start")(1)
    from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop  # only here: the server imports it early

    _watch(_TrainingEpochLoop, "advance", before=happen("step"))
    _watch(os, "replace", before=happen("replace"), after=happen("replaced"))
    _watch(os, "fsync", before=happen("fsync"))


def _nothing(count: int) -> None:
    """Of an event that nobody waits for."""


def _watch(
    owner: Any, name: str, before: Callable[[int], None] = _nothing, after: Callable[[int], None] = _nothing
) -> None:
    """Call `before` and `after` with the number of the call, whenever `owner`'s function is called."""
    function, calls = getattr(owner, name), 0

    @wraps(function)
    def watched(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        number = calls
        before(number)
        result = function(*arguments, **named)
        after(number)
        return result

    setattr(owner, name, watched)
