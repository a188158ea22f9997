"""Clocks that jump, and files from the future."""

from __future__ import annotations

import os
import random
import signal
import time

from . import oracle
from .case import SMALL, Bench, Outcome
from .triggers import Trigger

DAY = 86400.0
JUMPS = (-400 * DAY, -10 * DAY, -3600.0, -1.0, 3600.0, 400 * DAY)
OVERRIDES = (*SMALL, "trainer.log_every_n_steps=1")


class Clocks:
    """The result does not depend on the clock, nor does the order of what was recorded."""

    name = "clocks"
    full = 24
    short = 2

    def run(self, bench: Bench, number: int, chance: random.Random) -> Outcome:
        """The clock jumps while the run is under way, or between a kill and what goes on from it."""
        jump = JUMPS[number % len(JUMPS)]
        step = chance.randint(1, 11)
        command = [*OVERRIDES, bench.place()]
        expected = bench.reference(OVERRIDES)
        if number % 2:
            end = bench.run(command, triggers=[Trigger("step", step, jump=jump)])
            return Outcome(f"{jump:+.0f} s at step {step}", oracle.equal(end, bench.rundir, expected))
        step = max(step, 6)
        bench.run(command, triggers=[Trigger("step", step, (signal.SIGKILL,))])
        future = time.time() - jump
        for path in bench.rundir.rglob("*"):
            os.utime(path, (future, future))
        end = bench.run([*command, "ckpt_path=last"], triggers=[Trigger("start", 1, jump=jump)])
        did = f"killed at step {step}; files {-jump:+.0f} s from now; goes on with the clock at {jump:+.0f} s"
        return Outcome(did, oracle.equal(end, bench.rundir, expected))
