"""The Lightning trainer from the published keys."""

from __future__ import annotations

import inspect
import logging
import warnings
from collections.abc import Sequence
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback, Checkpoint, ProgressBar
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from targetprop.app.checkpoint.files import WholeFiles
from targetprop.app.processes import check_gpus, own_device, rank
from targetprop.app.schema.trainer import MATMUL_PRECISIONS, PLACES, PRECISIONS, refuse_places
from targetprop.app.strategy import LayerParallelStrategy
from targetprop.execution.grid import Grid
from targetprop.utils.errors import UserError, refuse_unknown, require, require_whole

OWN = ("gpus", "threads", "matmul_precision", "cuda_graph")
log = logging.getLogger(__name__)


def build_trainer(
    gpus: int | None = None,
    *,
    matmul_precision: str = "highest",
    cuda_graph: bool = False,
    threads: int | None = None,
    callbacks: Sequence[Callback] = (),
    logger: Sequence[Logger] = (),
    **options: Any,
) -> L.Trainer:
    """A trainer on one device: a GPU where there is one, unless gpus=0, else the CPU.

    Args:
        gpus: the published key. None takes a GPU if the machine has one. More than one GPU is of no use to
            sequential training; it is accepted and one is used.
        matmul_precision: of float32 products and convolutions on a GPU: "highest" is float32; "high" and "medium" are
            TF32, with 10 bits of mantissa ("medium" allows a CPU bfloat16). It holds for the whole process.
        threads: of the CPU; set by the run (see `threads.cpu_threads`).
        cuda_graph: whether training steps are CUDA graphs; checked here, done by the module.
        options: what `lightning.Trainer` takes.

    Raises:
        UserError: an option that the trainer does not take.
    """
    refuse_places(options)
    check_gpus(gpus)
    available = torch.cuda.device_count()
    if gpus and not available:
        log.warning("trainer.gpus=%d: this machine has no GPU, training runs on the CPU.", gpus)
    elif gpus and gpus > 1:
        log.warning("trainer.gpus=%d: sequential training uses one GPU.", gpus)
    _check_cuda_graph(cuda_graph, available > 0 and gpus != 0, options.get("accumulate_grad_batches", 1))
    return _trainer("gpu" if available and gpus != 0 else "cpu", matmul_precision, callbacks, logger, options)


def build_layer_parallel_trainer(
    gpus: int | None = None,
    *,
    processes: int | None = None,
    data_parallel: int = 1,
    worker_timeout: float | None = None,
    matmul_precision: str = "highest",
    cuda_graph: bool = False,
    threads: int | None = None,
    callbacks: Sequence[Callback] = (),
    logger: Sequence[Logger] = (),
    **options: Any,
) -> L.Trainer:
    """The trainer of one of the processes of torch.distributed, on GPU `local rank % gpus`, or on the CPU.

    Args:
        gpus: how many GPUs of this machine to use; of more than it has, those it has.
        processes: how many divide the feedback pairs between them; None takes all there are.
        data_parallel: how many groups of so many processes there are, each with batches of its own.
        worker_timeout: seconds for which a process may be silent; minded by the run (see `workers.watch`).
        threads: of the CPU; set by the run (see `threads.cpu_threads`).

    Raises:
        UserError: as `build_trainer`; processes that do not fit those there are.
    """
    refuse_places(options)
    available = torch.cuda.device_count()
    if gpus and gpus > available:
        used = f"its {available} are used" if available else "training runs on the CPU"
        log.warning("trainer.gpus=%d: this machine has fewer GPUs, %s.", gpus, used)
    if cuda_graph:
        raise UserError("processes exchange feedback within a step; set it to false.", key="cuda_graph")
    require_whole("data_parallel", data_parallel, least=1)
    grid = Grid.of_world(data_parallel)
    fits = processes in (None, grid.columns)
    require(fits, "processes", f"{grid.columns}, as many as were started, or null", processes)
    device = own_device(gpus)
    strategy = LayerParallelStrategy(device, grid)
    accelerator = "gpu" if device.type == "cuda" else "cpu"
    return _trainer(accelerator, matmul_precision, callbacks, logger, {**options, "strategy": strategy})


def _trainer(
    accelerator: str,
    matmul_precision: str,
    callbacks: Sequence[Callback],
    logger: Sequence[Logger],
    options: dict[str, Any],
) -> L.Trainer:
    taken = [*inspect.signature(L.Trainer).parameters, *OWN]
    refuse_unknown(options, [name for name in taken if name not in PLACES or name == "strategy"])
    if "max_epochs" in options:
        require_whole("max_epochs", options["max_epochs"], least=-1)
    precision = options.get("precision", "32-true")
    require(precision in PRECISIONS, "precision", " or ".join(PRECISIONS), precision)
    _set_matmul_precision(matmul_precision)
    if not options.get("enable_progress_bar", True):
        callbacks = [each for each in callbacks if not isinstance(each, ProgressBar)]
    checkpointing = any(isinstance(each, Checkpoint) for each in callbacks)  # else Lightning adds a callback of its own
    rank_zero_only.rank = rank()  # type: ignore[attr-defined]  # else that of a batch system, which started this process
    try:
        return L.Trainer(
            accelerator=accelerator,
            devices=1,
            callbacks=list(callbacks),
            logger=list(logger),
            # Not that of SLURM or another batch system, which would take over signals, and files of other runs.
            plugins=[WholeFiles(), LightningEnvironment()],
            **{"enable_checkpointing": checkpointing, **options},
        )
    except (MisconfigurationException, TypeError, ValueError) as error:
        raise UserError(str(error)) from None


def _set_matmul_precision(precision: str) -> None:
    fits = precision in MATMUL_PRECISIONS
    require(fits, "matmul_precision", " or ".join(MATMUL_PRECISIONS), precision)
    torch.set_float32_matmul_precision(precision)
    with warnings.catch_warnings():
        # Convolutions have a switch of their own, on by default. Torch now prefers a newer switch and may say so; but
        # where only that one is set, torch fails when other code asks for this one.
        warnings.simplefilter("ignore")
        torch.backends.cudnn.allow_tf32 = precision != "highest"


def _check_cuda_graph(wanted: bool, gpu: bool, accumulated: int) -> None:
    require(isinstance(wanted, bool), "cuda_graph", "true or false", wanted)
    if wanted and not gpu:
        raise UserError("only a GPU has graphs, and this run is on the CPU; set it to false.", key="cuda_graph")
    if wanted and accumulated != 1:
        raise UserError("a graph is a whole step; set trainer.accumulate_grad_batches=1.", key="cuda_graph")
