"""Kill a process of a layer-parallel run at a random moment, again and again: does the run end, cleanly and soon?

    python tests/commands/kill_workers.py --runs 20
    python tests/commands/kill_workers.py --runs 20 --signal SIGSTOP

Each time a run on the digits is started, and some time after its first checkpoint one of its processes is killed, or
stopped, which a run with trainer.worker_timeout=5 has to notice. Then: how long until the command ends, with which exit
code, does it name the process, are processes left behind, and does a run from its last checkpoint go on?
"""

from __future__ import annotations

import argparse
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

SETTINGS = (
    "model=layer_parallel_dtp", "trainer=layer_parallel", "trainer.threads=1", "network.hparams.channels=[4,4,6]",
    "model.hparams.noise=0.1", "model.hparams.b_optim.lr=0.01", "model.hparams.feedback_training_iterations=2",
    "logger=none", "scheduler=none", "trainer.limit_train_batches=3", "trainer.enable_progress_bar=false",
)  # fmt: skip
ENDLESS = "trainer.max_epochs=100000"
IMPATIENT = "trainer.worker_timeout=5"
COMMAND = (sys.executable, "-m", "targetprop")
PATIENCE = 120.0
"""Seconds to wait for anything."""


@dataclass(frozen=True)
class End:
    """How a run ended.

    Attributes:
        seconds: from the kill to the end of the command.
        code: its exit code.
        named: whether it said which process was killed.
        left: processes left behind.
        resumed: whether a run from its last checkpoint went on.
        output: what it printed.
    """

    seconds: float
    code: int
    named: bool
    left: int
    resumed: bool
    output: str

    @property
    def clean(self) -> bool:
        """As it should be."""
        return self.code > 0 and self.named and not self.left and self.resumed and self.seconds < 30


def workers(session: int) -> list[int]:
    """The processes of a session that train."""
    return [each for each in processes(session) if b"spawn_main" in Path(f"/proc/{each}/cmdline").read_bytes()]


def processes(session: int) -> list[int]:
    """All processes of a session that have not ended; those that train have process groups of their own."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            found.append(int(status.parent.name))
    return found


def kill_one(directory: Path, chance: random.Random, number: int = signal.SIGKILL) -> End:
    """Start a run, kill one of its processes, or stop it, and see what becomes of it."""
    checkpoint = directory / "checkpoints" / "last.ckpt"
    command = [*COMMAND, *SETTINGS, ENDLESS, f"hydra.run.dir={directory}"]
    command += [IMPATIENT] if number == signal.SIGSTOP else []
    run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)
    try:
        wait_for(checkpoint, run)
        time.sleep(chance.uniform(0, 3))
        victim = chance.choice(workers(run.pid))
        os.kill(victim, number)
        start = time.monotonic()
        output, _ = run.communicate(timeout=PATIENCE)
        seconds = time.monotonic() - start
        time.sleep(2)  # Python's own tracker of shared memory ends a moment after its parent
        left = len(processes(run.pid))
    finally:
        for each in processes(run.pid):
            os.kill(each, signal.SIGKILL)
    stopped = rf"pid {victim} on \S+\) does not respond"
    ended = rf"pid {victim}\) was ended by {signal.Signals(number).name}"
    said = rf"Process \d+ \({stopped if number == signal.SIGSTOP else ended}"
    named = re.search(said, " ".join(output.split())) is not None
    resumed = goes_on(checkpoint, directory)
    return End(seconds, run.returncode, named, left, resumed, output)


def wait_for(file: Path, run: subprocess.Popen[str]) -> None:
    """Until the file is there.

    Raises:
        RuntimeError: the run ended before.
    """
    limit = time.monotonic() + PATIENCE
    while not file.is_file():
        if run.poll() is not None or time.monotonic() > limit:
            raise RuntimeError(f"No checkpoint: {run.communicate(timeout=PATIENCE)[0]}")
        time.sleep(0.05)


def goes_on(checkpoint: Path, directory: Path) -> bool:
    """Whether a sequential run takes the checkpoint over and trains one more epoch."""
    import torch  # here: most runs of this script wait

    epochs = torch.load(checkpoint, weights_only=True)["epoch"] + 2
    arguments = [*SETTINGS, "trainer=default", f"trainer.max_epochs={epochs}", f"ckpt_path={checkpoint}"]
    arguments.remove("trainer=layer_parallel")
    command = [*COMMAND, *arguments, f"hydra.run.dir={directory}/resumed"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    return done.returncode == 0 and f"Epoch {epochs}/{epochs}" in done.stdout


def main() -> None:
    """Run, print a line each and a summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--signal", choices=["SIGKILL", "SIGTERM", "SIGSTOP"], default="SIGKILL")
    options = parser.parse_args()
    chance = random.Random(options.seed)
    ends = []
    for number in range(options.runs):
        with tempfile.TemporaryDirectory() as directory:
            end = kill_one(Path(directory, "run"), chance, signal.Signals[options.signal])
        ends.append(end)
        print(
            f"{number + 1:2}: {options.signal} to one of the processes, ended after {end.seconds:.1f} s "
            f"with code {end.code}, named {end.named}, left behind {end.left}, checkpoint resumed {end.resumed}",
            flush=True,
        )
        if not end.clean:
            print(end.output)
    clean = sum(end.clean for end in ends)
    print(f"{clean} of {len(ends)} ended cleanly; the slowest took {max(end.seconds for end in ends):.1f} s.")
    sys.exit(clean != len(ends))


if __name__ == "__main__":
    main()
