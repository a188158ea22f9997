"""A long run: does it need more memory, handles or room on the disk the longer it lasts?

    python -m tests.torture.soak --steps 20000

One run on the digits is looked at from outside, ended by SIGTERM in its middle, and goes on by the command that it
prints. Each part is judged on its own, without its first third, in which caches fill.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from . import oracle
from .case import Bench, References
from .child import SUITE, Process, Server
from .project import Project

STEPS_PER_EPOCH = 40
OVERRIDES = (
    "network.hparams.channels=[8,8]", "model.hparams.feedback_training_iterations=1", "trainer.threads=1",
    "trainer.enable_progress_bar=false", "datamodule.batch_size=32", f"trainer.limit_train_batches={STEPS_PER_EPOCH}",
)  # fmt: skip
INTERVAL = 2.0
"""Seconds between samples."""
MEMORY_SLOPE = 1.0
"""MB in 1,000 steps; more is no longer flat. The curves' rows, which a run keeps, need less."""
HANDLES = 2
"""Open files more or less than at any other time: one is being written, one read."""
PATIENCE = 4 * 3600.0


@dataclass(frozen=True)
class Sample:
    """A look at the run.

    Attributes:
        step: how far it was.
        memory: resident, in bytes.
        handles: open files, sockets and pipes.
        checkpoint: bytes of last.ckpt.
    """

    step: int
    memory: int
    handles: int
    checkpoint: int


def look(pid: int, run: Path) -> Sample | None:
    """A sample; None if the process has ended or has saved nothing yet."""
    table, last = run / "csv" / "metrics.csv", run / "checkpoints" / "last.ckpt"
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        memory = int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:"))) * 1024
        handles = len(list(Path(f"/proc/{pid}/fd").iterdir()))
        return Sample(last_step(table), memory, handles, last.stat().st_size)
    except (OSError, StopIteration, ValueError):
        return None


def last_step(table: Path) -> int:
    """The step of the last whole row."""
    with table.open() as file:
        column = file.readline().rstrip("\n").split(",").index("step")
    with table.open("rb") as content:
        content.seek(max(0, table.stat().st_size - 4096))
        lines = content.read().decode().split("\n")[1:-1]
    return int(lines[-1].split(",")[column])


def watch(running: Process, run: Path, until: int) -> list[Sample]:
    """Samples of a run until it has ended or has reached a step."""
    samples: list[Sample] = []
    limit = time.monotonic() + PATIENCE
    while not running.ended and time.monotonic() < limit:
        time.sleep(INTERVAL)
        sample = look(running.pid, run)
        if sample is not None:
            samples.append(sample)
            if len(samples) % 30 == 0:
                print(shown(sample), flush=True)
            if sample.step >= until:
                break
    return samples


def shown(sample: Sample) -> str:
    """A sample in words."""
    memory, checkpoint = sample.memory / 1e6, sample.checkpoint / 1e3
    return f"step {sample.step}: {memory:.1f} MB, {sample.handles} handles, checkpoint {checkpoint:.0f} kB"


def judge(samples: Sequence[Sample]) -> list[str]:
    """What is not flat in the last two thirds of these samples."""
    end = samples[-1].step if samples else 0
    begin = samples[0].step + (end - samples[0].step) / 3 if samples else 0
    settled = [each for each in samples if each.step >= begin]
    if len({each.step for each in settled}) < 3:
        return [f"only {len(settled)} samples, which say nothing"]
    steps, memory = np.array([(each.step, each.memory) for each in settled], float).T
    slope = float(np.polyfit(steps, memory, 1)[0]) * 1000 / 1e6
    handles = [each.handles for each in settled]
    print(f"steps {settled[0].step} to {end}: {slope:+.3f} MB in 1,000 steps, {min(handles)} to {max(handles)} handles")
    said = [f"memory grows by {slope:.2f} MB in 1,000 steps"] if slope > MEMORY_SLOPE else []
    return said + ([f"handles: {min(handles)} to {max(handles)}"] if max(handles) - min(handles) > HANDLES else [])


def soak(steps: int, project: Project, folder: Path) -> list[str]:
    """Train so many steps with a stop in the middle; what was wrong."""
    server = Server(project.root, folder)
    bench = Bench(project, server, folder / "bench", References(folder))
    bench.clear()
    epochs = max(1, round(steps / STEPS_PER_EPOCH))
    command = [*OVERRIDES, f"trainer.max_epochs={epochs}", bench.place()]
    running = bench.process(command)
    first = watch(running, bench.rundir, steps // 2)
    running.signal(signal.SIGTERM)
    end = running.end()  # within the patience of the suite: a step takes milliseconds
    said = oracle.stopped(end, signal.SIGTERM, had_begun=True) + judge(first)
    running = bench.process(oracle.command_that_goes_on(end) or [*command, "ckpt_path=last"])
    second = watch(running, bench.rundir, 2 * steps)
    end = running.end()
    server.close()
    return [*said, *oracle.finite(end, bench.rundir, least_accuracy=0.8), *judge(second)]


def main() -> int:
    """Run it; 1 if something grows or is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20000)
    parser.add_argument("--project", type=Path, default=SUITE, help="the checkout that is tried")
    options = parser.parse_args()
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="soak-", ignore_cleanup_errors=True) as folder:
        said = soak(options.steps, Project(options.project.resolve()), Path(folder))
    verdict = "; ".join(said) if said else "flat"
    print(f"{options.steps} steps in {(time.monotonic() - start) / 60:.1f} minutes: {verdict}")
    return int(bool(said))


if __name__ == "__main__":
    sys.exit(main())
