"""Layer-parallel runs of which one process dies or stops."""

from __future__ import annotations

import os
import random
import signal
import time

from . import oracle, records
from .case import Bench, BrokenReferenceError, Outcome
from .child import Process, members

OVERRIDES = (
    "model=layer_parallel_dtp", "trainer=layer_parallel", "trainer.threads=1", "network.hparams.channels=[4,4,6]",
    "model.hparams.noise=0.1", "model.hparams.b_optim.lr=0.01", "model.hparams.feedback_training_iterations=2",
    "trainer.limit_train_batches=3", "trainer.enable_progress_bar=false", "trainer.max_epochs=40",
    "scheduler=none",
)  # fmt: skip
"""Three processes, in a run that lasts long enough to be hit."""
ENOUGH = 4
"""Epochs more that the run that goes on trains at the most, compared with the sequential one."""
START = 300.0
"""Seconds for four processes to import what they need, also on a busy machine."""
TIMEOUT = "trainer.worker_timeout=5"
SIGNALS = (signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM, signal.SIGSEGV, signal.SIGSTOP, signal.SIGKILL)


class Workers:
    """Dead and stopped workers, and dead parents.

    SIGTERM kills no worker: as every other signal that asks a run to stop, it stops the run, whichever process gets it.
    """

    name = "workers"
    full = 30
    short = 1

    def run(self, bench: Bench, number: int, chance: random.Random) -> Outcome:
        """The run ends with the rank of the lost one, leaves nothing behind, and goes on from its last checkpoint."""
        number_sent = SIGNALS[number % len(SIGNALS)]
        running = bench.process([*OVERRIDES, TIMEOUT, bench.place()])
        self._wait_for_checkpoint(bench, running)
        time.sleep(chance.uniform(0, 2))
        if number % 10 == 9:
            return self._parent(bench, running, chance)
        workers = [pid for pid, command in members(running.pid).items() if "spawn_main" in command]
        rank = chance.randrange(len(workers))
        os.kill(workers[rank], number_sent)
        end = running.end()
        did = f"{number_sent.name} to rank {rank}"
        names = [f"{word} {rank}" for word in ("rank", "Rank", "process", "Process", "worker", "Worker")]
        asked = number_sent == signal.SIGTERM
        said = oracle.stopped(end, number_sent, had_begun=True) if asked else oracle.refused(end, names)
        return Outcome(did, [*said, *goes_on(bench)])

    @staticmethod
    def _wait_for_checkpoint(bench: Bench, running: Process) -> None:
        limit = time.monotonic() + START
        while not (bench.rundir / "checkpoints" / "last.ckpt").is_file():
            if running.ended or time.monotonic() > limit:
                end = running.end(0)
                raise BrokenReferenceError(f"no checkpoint, code {end.code}: {end.stderr[-200:]}")
            time.sleep(0.05)

    @staticmethod
    def _parent(bench: Bench, running: Process, chance: random.Random) -> Outcome:
        number = chance.choice((signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGUSR1))
        running.signal(number)
        end = running.end()
        return Outcome(f"{number.name} to the parent", [*oracle.stopped(end, number, had_begun=True), *goes_on(bench)])


def goes_on(bench: Bench) -> list[str]:
    """Whether the run goes on, in one process, and is the sequential one that nobody disturbed."""
    import torch

    last = bench.rundir / "checkpoints" / "last.ckpt"
    if said := oracle.loadable(last):
        return said
    epochs = torch.load(last, weights_only=True)["epoch"] + ENOUGH
    sequential = [each for each in OVERRIDES if not each.startswith(("trainer=", "trainer.max_epochs"))]
    command = [*sequential, f"trainer.max_epochs={epochs}"]
    return _compare(bench, command)


def _compare(bench: Bench, command: list[str]) -> list[str]:
    end = bench.run([*command, bench.place(), "ckpt_path=last"])
    if said := oracle.ended_well(end):
        return said
    found = records.read(bench.rundir).checkpoints["last"]
    expected = bench.reference(command).checkpoints["last"]
    first, second = ({k: v for k, v in each.items() if k.startswith("/state_dict")} for each in (found, expected))
    return oracle.differences("last.ckpt", first, second)
