"""The processes of a layer-parallel run: starting them on one machine, joining them, and how they end.

They are torch.distributed's. `launch` starts them as `torchrun` would; under `torchrun`, on one machine or several,
each of them calls `join` by itself.
"""

from __future__ import annotations

import logging
import logging.config
import multiprocessing
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.launcher.api import LaunchConfig, elastic_launch
from torch.distributed.rendezvous import rendezvous

from targetprop.app.errors import DivergenceError
from targetprop.app.flat import flat
from targetprop.app.quiet import quiet_warnings
from targetprop.utils.errors import UserError, require_whole

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store

GRACE = 5.0
"""Seconds for which a process that has lost another waits to be ended, so that the lost one is named as the cause."""
MAY_DIFFER = (
    "output_dir", "data_dir", "datamodule.data_dir", "datamodule.load.cache_dir", "ckpt_path", "trainer.gpus",
    "trainer.threads", "logger",
)  # fmt: skip
"""Settings that hosts may have different ones of; the rest decides what is computed, and when it is exchanged."""

Work = Callable[[dict[str, Any]], dict[str, float]]
"""A run of one process, from its plain configuration to its metrics."""


def is_started() -> bool:
    """Whether this process is one of several, started by `launch` or by `torchrun`."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def world_size() -> int:
    """How many processes there are."""
    return int(os.environ["WORLD_SIZE"]) if is_started() else 1


def rank() -> int:
    """Of this process among all; 0 if there is just one."""
    return int(os.environ["RANK"]) if is_started() else 0


def launch(work: Work, config: dict[str, Any], count: int, job_logging: Mapping[str, Any]) -> dict[str, float]:
    """Run `work` in so many processes on this machine, on a free port, and return the metrics of process 0.

    If one process ends early, the others are ended, too.

    Raises:
        UserError: what the failing process said, or what ended it.
    """
    for name in ("torch.distributed.elastic", "torch.multiprocessing.spawn"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # they say what we say, but longer
    if sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # else a host without a resolvable name has no address
    with _scratch():
        return _launch(work, config, count, job_logging)


def _launch(work: Work, config: dict[str, Any], count: int, job_logging: Mapping[str, Any]) -> dict[str, float]:
    launched = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        run_id=f"targetprop-{os.getpid()}",
        rdzv_backend="c10d",
        rdzv_endpoint="127.0.0.1:0",
        local_addr="127.0.0.1",
        max_restarts=0,
        monitor_interval=0.1,
    )
    try:
        return elastic_launch(launched, _started)(work, config, dict(job_logging))[0]
    except ChildFailedError as error:
        raise _cause(*error.get_first_failure(), Path(config["output_dir"])) from None
    except SignalException as signalled:
        raise SystemExit(128 + signalled.sigval) from None


@contextmanager
def _scratch() -> Iterator[None]:
    """A directory of its own for temporary files: torch.distributed leaves some behind."""
    usual = tempfile.tempdir
    with tempfile.TemporaryDirectory(prefix="targetprop-", ignore_cleanup_errors=True) as tempfile.tempdir:
        try:
            yield
        finally:
            tempfile.tempdir = usual


def _started(work: Work, config: dict[str, Any], job_logging: dict[str, Any]) -> dict[str, float]:
    """What a process of `launch` does."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end_with_parent() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
    if rank() == 0 and job_logging:
        logging.config.dictConfig(job_logging)
    quiet_warnings()
    return work(config)


@contextmanager
def join(config: Mapping[str, Any], gpus: int | None, threads: int | None) -> Iterator[None]:
    """Be one of the processes of torch.distributed for as long as this lasts; a collective call.

    Args:
        config: the plain configuration, without the directory of output; all processes must have the same.
        gpus: how many to use on this machine, None for all there are.
        threads: of this process; None shares out the cores of the machine.

    Raises:
        UserError: processes differ in a setting.
    """
    here = int(os.environ.get("LOCAL_WORLD_SIZE", os.environ["WORLD_SIZE"]))
    torch.set_num_threads(threads or max(1, _cores() // here))
    if rank():
        logging.disable(logging.ERROR)  # process 0 speaks for all
    device = own_device(gpus)
    if device.type == "cuda":
        torch.cuda.set_device(device)  # before anything is sent: NCCL sends from the current device
    store, number, world = next(rendezvous("env://"))
    backend = agreed_backend(store, number, world, has_own_gpu=0 < here <= usable_gpus(gpus))
    dist.init_process_group(backend, store=store, rank=number, world_size=world)
    try:
        _check_equal(config)
        yield
        dist.barrier()
    except RuntimeError as error:
        if isinstance(error, dist.DistError) or "gloo" in str(error):
            time.sleep(GRACE)
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


def _cause(rank: int, failure: ProcessFailure, output_dir: Path) -> UserError:
    """Why a run ended, for the user: the message of a mistake, else where the failing process was."""
    last = output_dir / "checkpoints" / "last.ckpt"
    kept = f"ckpt_path={last} goes on from the last checkpoint." if last.is_file() else "There was no checkpoint yet."
    if failure.exitcode < 0:
        ended = f"was ended by {failure.signal_name()}, and so the run."
        return UserError(f"Process {rank} (pid {failure.pid}) {ended} {kept}")
    said = failure.error_file_data.get("message", {})
    if not isinstance(said, Mapping):
        ended = f"ended with exit code {failure.exitcode}, and so did the run."
        return UserError(f"Process {rank} (pid {failure.pid}) {ended} {kept}")
    name, _, text = str(said["message"]).partition(": ")
    for mistake in (UserError, DivergenceError):
        if name == mistake.__name__:
            return mistake(text)
    return UserError(f"Process {rank} failed:\n{said['extraInfo']['py_callstack']}\n{kept}")
