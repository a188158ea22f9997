"""Processes that do next to nothing, started as a run starts them: alone, or under torchrun.

    python tests/commands/idle_workers.py DIRECTORY --do exchange

Each process writes its process id into DIRECTORY/pids/RANK once it has joined the others. Then they

exchange: meet for ever;
wait:     wait for process 0, which computes in pure Python for 8 s;
stop:     meet until a signal is heard, go on for 2 s, write how many were heard into DIRECTORY/heard-RANK, and end;
leave:    process 1 ends in an error of the user's, the others wait for it.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from targetprop.app.processes import is_started, join, rank
from targetprop.app.workers.launch import launch
from targetprop.app.workers.signs import PROGRESS
from targetprop.utils.errors import UserError

LONG = 8.0
"""Seconds; more than the timeout."""


def work(config: dict[str, Any]) -> dict[str, float]:
    """What each process does."""
    folder = Path(config["output_dir"])
    heard: list[int] = []
    if config["do"] == "stop":
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda number, frame: heard.append(number))
    with join({**config, "output_dir": ""}, folder, 0, 1):
        here = folder / "pids" / str(rank())
        here.parent.mkdir(exist_ok=True)
        here.with_suffix(".part").write_text(str(os.getpid()))
        here.with_suffix(".part").rename(here)
        {"exchange": exchange, "wait": wait, "leave": leave}.get(config["do"], lambda: stop(heard, folder))()
        return {"rank": float(rank())}


def exchange() -> None:
    """Meet for ever."""
    step = 0
    while True:
        step += 1
        PROGRESS.at(f"training step {step}")
        dist.barrier()
        time.sleep(0.01)


def wait() -> None:
    """Wait for process 0."""
    if rank() == 0:
        end = time.monotonic() + LONG
        while time.monotonic() < end:
            pass
    dist.barrier()


def stop(heard: list[int], folder: Path) -> None:
    """End well at a signal."""
    flag = torch.zeros(1)
    while not flag:
        flag.fill_(len(heard))
        dist.all_reduce(flag, dist.ReduceOp.MAX)
        time.sleep(0.05)
    time.sleep(2)
    (folder / f"heard-{rank()}").write_text(str(len(heard)))
    raise SystemExit(128 + heard[0])


def leave() -> None:
    """Process 1 has found a mistake."""
    if rank() == 1:
        raise UserError("expected another one, got this", key="mistake")
    dist.barrier()


def main() -> None:
    """Start the processes, or be one of them."""
    made = argparse.ArgumentParser()
    made.add_argument("directory")
    made.add_argument("--do", default="exchange")
    made.add_argument("--timeout", type=float, default=5.0)
    made.add_argument("--count", type=int, default=2)
    options = made.parse_args()
    trainer = {"worker_timeout": options.timeout}
    config = {"output_dir": options.directory, "do": options.do, "trainer": trainer}
    try:
        print(work(config) if is_started() else launch(work, config, options.count, {}))
    except UserError as error:
        sys.exit(f"Error: {error}")


if __name__ == "__main__":
    main()
