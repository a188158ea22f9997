"""Worlds of real processes for tests, one core each."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import spawn

Work = Callable[[Path], None]
"""What every process does; it writes what it found into the directory."""


def run_worlds(sizes: Sequence[int], work: Sequence[Work], directory: Path) -> None:
    """Do each piece of work in a world of so many processes; the processes are started once, for the largest."""
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    spawn(_worlds, (tuple(sizes), tuple(work), directory), nprocs=max(sizes))


def _worlds(rank: int, sizes: Sequence[int], work: Sequence[Work], directory: Path) -> None:
    torch.set_num_threads(1)
    for number, (size, task) in enumerate(zip(sizes, work, strict=True)):
        if rank < size:
            store = f"file://{directory}/store{number}"
            dist.init_process_group("gloo", store, timedelta(minutes=2), size, rank)
            task(directory)
            dist.destroy_process_group()
