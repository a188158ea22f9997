"""This process among those of a layer-parallel run.

They are torch.distributed's. `workers.launch` starts them on one machine; under `torchrun`, on one machine or several,
each of them calls `join` by itself.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from targetprop.app.flat import flat
from targetprop.app.waiting import names_number
from targetprop.app.workers.orphans import die_with_parent
from targetprop.app.workers.signs import STARTING, Board, Roll, worker_timeout
from targetprop.app.workers.watch import GRACE, Watch
from targetprop.utils.errors import UserError, require_whole

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store

LAUNCHED = "TARGETPROP_LAUNCHED"
"""The variable of the environment by which a process knows that `workers.launch` has started it."""
DEADLOCK = timedelta(minutes=30)
"""How long an exchange with other processes may take, as in groups of them.

It is not how a lost process is found. Others may have to wait for one that loads, evaluates or writes for long; if all
wait for each other, this ends it.
"""
MAY_DIFFER = (
    "output_dir", "data_dir", "datamodule.data_dir", "datamodule.load.cache_dir", "ckpt_path", "trainer.gpus",
    "trainer.threads", "logger",
)  # fmt: skip
"""Settings that hosts may have different ones of; the rest decides what is computed, and when it is exchanged."""


def is_started() -> bool:
    """Whether this process is one of several, started by `workers.launch` or by `torchrun`."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def is_launched() -> bool:
    """Whether `workers.launch` has started it."""
    return LAUNCHED in os.environ


def speaks_for_run() -> bool:
    """Whether this is the one process of a run that its directory belongs to: the parent, or process 0 of torchrun's.

    A run in one process is its own.
    """
    return rank() == 0 and not is_launched()


def world_size() -> int:
    """How many processes there are."""
    return int(os.environ["WORLD_SIZE"]) if is_started() else 1


def rank() -> int:
    """Of this process among all; 0 if there is just one."""
    return int(os.environ["RANK"]) if is_started() else 0


@contextmanager
def join(config: Mapping[str, Any], output_dir: Path, gpus: int | None, threads: int | None) -> Iterator[None]:
    """Be one of the processes of torch.distributed for as long as this lasts; a collective call.

    While it lasts this process gives signs of life, and ends if another one stops giving them.

    Args:
        config: the plain configuration, without the directory of output; all processes must have the same.
        output_dir: of this process; that of process 0 is the run's.
        gpus: how many to use on this machine, None for all there are.
        threads: of this process; None shares out the cores of the machine, at most as many as its environment names.

    Raises:
        UserError: processes differ in a setting, or one of them has ended.
    """
    limit = worker_timeout(config)
    here = int(os.environ.get("LOCAL_WORLD_SIZE", os.environ["WORLD_SIZE"]))
    torch.set_num_threads(threads or _share_of_cores(here))
    if "TORCHELASTIC_RUN_ID" in os.environ:
        die_with_parent()
    if rank():
        logging.disable(logging.ERROR)  # process 0 speaks for all
    device = own_device(gpus)
    if device.type == "cuda":
        torch.cuda.set_device(device)  # before anything is sent: NCCL sends from the current device
    starting = timedelta(seconds=max(limit, STARTING) + 2 * GRACE)  # after those who watch, who can say more
    store, number, world = next(rendezvous("env://", timeout=starting))
    watch = Watch(Board(store, world), number, Roll(world, limit), output_dir, parent_tells=is_launched())
    with watch:
        backend = agreed_backend(store, number, world, has_own_gpu=0 < here <= usable_gpus(gpus))
        dist.init_process_group(backend, store=store, rank=number, world_size=world, timeout=DEADLOCK)
        try:
            _check_equal(config)
            yield
            dist.barrier()
        except RuntimeError as error:
            if isinstance(error, dist.DistError) or "gloo" in str(error):
                raise watch.explained(error) from error
            raise
        finally:
            logging.disable(logging.NOTSET)
            dist.destroy_process_group()


def agreed_backend(store: Store, number: int, world: int, *, has_own_gpu: bool) -> str:
    """NCCL if every process has a GPU to itself, also on the other machines; a collective call."""
    store.set(f"has_own_gpu/{number}", str(has_own_gpu))
    everywhere = [store.get(f"has_own_gpu/{other}") for other in range(world)]
    return "nccl" if set(everywhere) == {b"True"} else "gloo"


def check_gpus(gpus: int | None) -> None:
    """Raise `UserError` for what is no number of GPUs."""
    if gpus is not None:
        require_whole("gpus", gpus, least=0)


def usable_gpus(gpus: int | None) -> int:
    """How many GPUs of this machine its processes share, of those that it has and those that were named."""
    available = torch.cuda.device_count()
    return available if gpus is None else min(gpus, available)


def own_device(gpus: int | None) -> torch.device:
    """GPU `local rank % gpus`; the CPU where there is none."""
    count = usable_gpus(gpus)
    return torch.device("cuda", int(os.environ["LOCAL_RANK"]) % count) if count else torch.device("cpu")


def _share_of_cores(here: int) -> int:
    """The threads of each of so many processes on this machine, at most as many as the environment names."""
    share = max(1, _cores() // here)
    return min(share, torch.get_num_threads()) if names_number(os.environ) else share


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _check_equal(config: Mapping[str, Any]) -> None:
    start = None if config.get("ckpt_path") is None else "a checkpoint"  # its place may differ
    settings = {**flat(config, without=MAY_DIFFER), "ckpt_path": start, "version of torch": torch.__version__}
    everywhere: list[dict[str, Any]] = [{} for _ in range(dist.get_world_size())]
    dist.all_gather_object(everywhere, settings)
    for other, theirs in enumerate(everywhere):
        for key in [*settings, *theirs]:
            first, second = everywhere[0].get(key), theirs.get(key)
            if first != second:
                raise UserError(
                    f"{key}: all processes need the same settings; process 0 has {first}, process {other} has {second}."
                )
