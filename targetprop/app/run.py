"""One training run, from configuration to results."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import lightning as L
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.utils import get_method
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import EarlyStopping
from omegaconf import DictConfig, OmegaConf
from rich import get_console
from rich.console import Console
from torch import nn

from targetprop.app import unwritten
from targetprop.app.callbacks.checkpoint import BestCheckpoint
from targetprop.app.callbacks.feedback_epochs import feedback_epochs
from targetprop.app.callbacks.find import find_callback
from targetprop.app.callbacks.history import History
from targetprop.app.callbacks.measurements import Measurements
from targetprop.app.callbacks.stop import StopOnSignal
from targetprop.app.checkpoint import resume
from targetprop.app.checkpoint.find import AUTO
from targetprop.app.checkpoint.names import FOLDER, LAST
from targetprop.app.checkpoint.record import Place, record_of, with_place
from targetprop.app.checkpoint.running import go_on_logging
from targetprop.app.command import command
from targetprop.app.described import Described, describe
from targetprop.app.evaluation import evaluate, evaluated_checkpoint
from targetprop.app.fitting import refuse_misfit
from targetprop.app.folder import claim, make_folders
from targetprop.app.lock import owned
from targetprop.app.loggers.begin import begin_logging, loggers_of
from targetprop.app.loss import OF_THE_LOSS, task_and_loss
from targetprop.app.models import check_hparams
from targetprop.app.module import TaskModule
from targetprop.app.objects import build, build_members, call, plain
from targetprop.app.optimizers import forward_optimizer
from targetprop.app.places import placed
from targetprop.app.processes import (
    check_gpus,
    is_started,
    join,
    rank,
    speaks_for_run,
    usable_gpus,
    world_size,
)
from targetprop.app.provenance import provenance, tell
from targetprop.app.report.summary import show, summary
from targetprop.app.report.table import times_line
from targetprop.app.report.tree import config_tree
from targetprop.app.rewind import rewinding
from targetprop.app.schedule import INTERVAL, Schedule, scheduler_of
from targetprop.app.schema.check import check
from targetprop.app.schema.rehearsal import rehearse
from targetprop.app.schema.roles import is_a, made_by
from targetprop.app.signals import Signals, StoppedError, requeue
from targetprop.app.threads import cpu_threads, multiply_adds
from targetprop.app.workers.launch import launch
from targetprop.app.written import keep_config, keep_results
from targetprop.execution.graph import GraphedStep
from targetprop.execution.memory import keep_freed_memory
from targetprop.layers.fixed import Whitening
from targetprop.learner import Learner
from targetprop.trainable import Trainable
from targetprop.utils.errors import UserError, prefixed, refuse_unknown, require, require_whole

if TYPE_CHECKING:
    from targetprop.app.datamodule import HeldDataModule

log = logging.getLogger(__name__)

GROUPS = ("task", "model", "network", "datamodule", "trainer", "scheduler", "callbacks", "logger")

EPOCHS = "feedback_epochs"
"""What of a model is a matter of the run."""
INPUT_SHAPE = "input_shape"
"""What a model may be told that no configuration says."""
SAMPLE = 2000
"""Training inputs whose statistics a network may be made from."""


def train(config: DictConfig) -> dict[str, float]:
    """Train as configured, evaluate the best checkpoint once, and return the metrics (e.g. "test/accuracy").

    Writes into `config.output_dir`: config.yaml, metrics, checkpoints, curves.png and results.json. If the trainer is
    layer-parallel and this process is not one of several, it starts as many as there are pairs, and waits for them.
    With on_divergence=rewind a run that diverges goes back to its last checkpoint, with half the rates.

    Raises:
        UserError: something in the configuration, or in the data it names, cannot work; the message says what.
        SystemExit: a signal ended the run, with the code of such an end.
    """
    overrides = list(HydraConfig.get().overrides.task) if HydraConfig.initialized() else None
    return rewinding(lambda settings: _start(settings, overrides), config)


def _start(config: DictConfig, overrides: Sequence[str] | None) -> dict[str, float]:
    """Train in this process, or in several."""
    check_configuration(config)
    threads = config.trainer.threads
    with prefixed("trainer"):
        check_gpus(config.trainer.gpus)
        if threads is not None:
            require_whole("threads", threads, least=1)
    if "processes" not in config.trainer:
        if world_size() > 1:
            raise UserError("several processes train together with trainer=layer_parallel only.", key="trainer")
        return _train(config, overrides)
    if is_started():
        same = plain(OmegaConf.merge(config, {"output_dir": ""}))
        with join(same, Path(config.output_dir), config.trainer.gpus, threads):
            return _train(config, overrides)
    job_logging = plain(HydraConfig.get().job_logging) if HydraConfig.initialized() else {}
    work = partial(_train_plain, overrides=overrides)
    count = count_processes(config)
    with _own(config):
        return launch(work, plain(config), count, job_logging)


def check_configuration(config: DictConfig) -> None:
    """Refuse a configuration that cannot work, before any data is read.

    Raises:
        UserError: one of its settings, named by its full key, in one line.
    """
    check(config)
    check_hparams(config.model)
    in_parts = "processes" in config.trainer or config.trainer.get("cuda_graph")
    if _feedback_epochs(config.model) and in_parts:
        message = "they run in one process, step by step: use trainer=default and trainer.cuda_graph=false."
        raise UserError(message, key=f"model.{EPOCHS}")
    rehearse(config)


def _train_plain(config: dict[str, Any], overrides: Sequence[str] | None) -> dict[str, float]:
    return _start(OmegaConf.create(config), overrides)


def count_processes(config: DictConfig) -> int:
    """How many processes a layer-parallel run starts, all groups together.

    Raises:
        UserError: more than there are pairs to train, or anything else that would fail in every process.
    """
    learner = build_module(config, build(config.datamodule)).learner
    if not isinstance(learner, Learner):
        message = f"{type(learner).__name__} has no feedback to train layer-parallel; use trainer=default."
        raise UserError(message, key="trainer")
    if learner.algorithm.scope != "block":
        message = "this model looks beyond one block, so its blocks cannot be trained apart; use trainer=default."
        raise UserError(message, key="trainer")
    pairs, asked, groups = len(learner.network.trained), config.trainer.processes, config.trainer.data_parallel
    if not pairs:
        message = "a network of one block has no feedback to train layer-parallel; use trainer=default."
        raise UserError(message, key="trainer")
    with prefixed("trainer"):
        require_whole("data_parallel", groups, least=1)
        if asked is not None:
            require_whole("processes", asked, least=1)
            require(asked <= pairs, "processes", f"at most {pairs}, one for each pair with trained feedback", asked)
    return groups * (asked or pairs)


def _train(config: DictConfig, overrides: Sequence[str] | None) -> dict[str, float]:
    keep_freed_memory()
    unwritten.reset()
    L.seed_everything(config.seed, workers=True, verbose=False)
    # All of it is made, and so all of the configuration is checked, before any of it is shown or written.
    datamodule: HeldDataModule = build(config.datamodule)
    module = build_module(config, datamodule)
    work = _work(config, module, datamodule)
    with _own(config), cpu_threads(config.trainer.threads, work) as threads, Signals() as signals:
        try:
            metrics = _run(config, module, datamodule, Around(threads, signals, overrides))
        except StoppedError as stopped:
            _say_how_to_go_on(config, stopped)
            raise SystemExit(stopped.code) from None
    unwritten.refuse()
    return metrics


def _own(config: DictConfig) -> AbstractContextManager[None]:
    """Own the run's directory, in the one process that does."""
    return owned(Path(config.output_dir)) if speaks_for_run() else nullcontext()


def _say_how_to_go_on(config: DictConfig, stopped: StoppedError) -> None:
    name, kept = Signals.name(stopped.number), (Path(config.output_dir) / FOLDER / LAST).is_file()
    how = f"To go on: {command(config.output_dir)}" if kept else "There is no checkpoint to go on from."
    log.warning("The run was ended by %s.", name)
    if rank() == 0:
        print(how, flush=True)  # as one line, to be copied: the log would wrap it
    if rank() == 0 and kept and config.ckpt_path == AUTO and (requeued := requeue(stopped.number)):
        log.warning(requeued)


class Around(NamedTuple):
    """What a run is given by the process that it is in.

    Attributes:
        threads: of the CPU.
        signals: those that end it.
        overrides: the command line, if there was one.
    """

    threads: int
    signals: Signals
    overrides: Sequence[str] | None


def _work(config: DictConfig, module: TaskModule, datamodule: HeldDataModule) -> int | None:
    """Multiply-adds of a training batch's forward pass on the CPU; None on a GPU."""
    return None if usable_gpus(config.trainer.gpus) else module.multiply_adds * datamodule.batch_size


def _run(config: DictConfig, module: TaskModule, datamodule: HeldDataModule, around: Around) -> dict[str, float]:
    callbacks = [*_callbacks(config), StopOnSignal(around.signals)]
    trainer: L.Trainer = build(config.trainer, callbacks=callbacks, logger=loggers_of(config))
    folder, start = Path(config.output_dir), resume.start(plain(config), module)
    places = _places(config, trainer, start)
    made_with, data = provenance(trainer.strategy.root_device, around.overrides), describe(datamodule).plain
    module.record = record_of(plain(config), places, around.overrides, made_with=made_with, data=data)
    module.start = start
    console = get_console() if rank() == 0 else Console(quiet=True)
    _show(console, config)
    if config.train:
        if rank() == 0:
            claim(folder, start, overwrite=config.overwrite)
            make_folders(config.callbacks or {})
            keep_config(config)
            begin_logging(config, trainer)
        log.info("Training into %s, CPU threads: %d", config.output_dir, around.threads)
        _fit(trainer, module, datamodule, folder)
    else:
        tell(trainer.loggers, module.record)
    # Read before evaluation, which restores the callbacks of the best checkpoint.
    history = find_callback(trainer, History)
    seconds = [row["seconds"] for row in history.epochs] if history else []
    facts: dict[str, Any] = {"epoch_seconds": seconds, "threads": around.threads, "places": places}
    facts |= {"nonlinearity": [], "measures": {}, "overrides": around.overrides, "made_with": made_with}
    for measured in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(measured, Measurements):
            facts |= measured.facts
            facts["measures"] |= measured.last
    facts |= {"note": datamodule.note} if datamodule.note else {}
    results = (
        evaluate(trainer, module, datamodule, evaluated_checkpoint(config, trainer), config.views)
        if config.test
        else {}
    )
    if results:
        console.print(module.task.table(results, datamodule.classes or (), datamodule.note))
    if seconds:
        console.print(times_line(seconds), soft_wrap=True)
    keep_results(folder, results, facts, trained=config.train)
    return {f"{part}/{name}": number for part, result in results.items() for name, number in result.numbers.items()}


def _show(console: Console, config: DictConfig) -> None:
    """Say what the run is, in a few lines or all of it."""
    if config.print_config:
        console.print(config_tree(config, GROUPS))
    else:
        show(console, summary(plain(config)))


def _fit(trainer: L.Trainer, module: TaskModule, datamodule: HeldDataModule, folder: Path) -> None:
    """Train, from the start or from where the run goes on."""
    start = module.start
    path = start.path
    try:
        if start.running and start.run and rank() == 0 and not go_on_logging(trainer, start.running, start.run, folder):
            log.warning("Metrics logged so far are not beside %s: their files begin here.", start.path)
        tell(trainer.loggers, module.record)
        trainer.fit(module, datamodule=datamodule, ckpt_path=path and str(path), weights_only=True)
    except MisconfigurationException as error:  # of a callback's setting, which shows while it works
        raise UserError(str(error)) from error
    except Exception as error:
        elsewhere = isinstance(error, StoppedError) or (isinstance(error, UserError) and error.key != "")
        if path is None or module.has_begun or elsewhere:
            raise
        raise resume.unusable(path, error) from error
    if not module.has_begun and (history := find_callback(trainer, History)):
        history.draw(trainer)  # nothing was left to train


def _places(config: DictConfig, trainer: L.Trainer, start: resume.Start) -> list[Place]:
    """Where the run has been, and is from now on."""
    device = trainer.strategy.root_device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    return with_place(start.places, start.position.epoch, name, cuda_graph=bool(config.trainer.get("cuda_graph")))


def build_module(config: DictConfig, datamodule: HeldDataModule) -> TaskModule:
    """The network for the examples of `datamodule`, its learner and its forward optimiser.

    Raises:
        UserError: a value of the configuration that does not fit, named by its full key.
    """
    with prefixed("datamodule"):
        data = describe(datamodule)
    network = build_network(config, data)
    _show_images(network, datamodule)
    return assemble(config, data, network)


def build_network(config: DictConfig, data: Described) -> nn.Module:
    """The network for such data, as its author wrote it, with new weights."""
    task_and_loss(config, data)  # where data are of another task, no network is to blame
    make = partial(call, "network", config.network, data.shape, data.outputs, facts=data.facts)
    network: nn.Module = made_by(
        "network._target_", make, config.network._target_, is_a(nn.Module), "a network (Module)"
    )
    return network


def assemble(config: DictConfig, data: Described, network: nn.Module) -> TaskModule:
    """The learner of a network for such data, and its forward optimiser.

    Raises:
        UserError: a value of the configuration that does not fit, named by its full key.
    """
    task, loss = task_and_loss(config, data)
    model = plain(config.model)
    with prefixed("model"):
        taken = inspect.signature(get_method(model["_target_"])).parameters
        own = [name for name in taken if name not in ("network", "seed", INPUT_SHAPE)]
        refuse_unknown(model, ["_target_", *OF_THE_LOSS, EPOCHS, *own])
        for key in (*OF_THE_LOSS, EPOCHS):
            model.pop(key, None)
    refuse_misfit(network, data.blank(2), task.output_shape(data))
    work = multiply_adds(network, data.shape, data.dtype)  # before there is a learner, which minds who runs its network
    hparams = model.pop("hparams")
    f_optim = forward_optimizer(hparams)
    model |= {INPUT_SHAPE: data.shape} if INPUT_SHAPE in taken else {}
    make = partial(get_method(model.pop("_target_")), network, hparams, seed=config.seed, **model)
    learner: Trainable = made_by("model._target_", make, config.model._target_, _trains, "a learner")
    scheduler = _scheduler(config)
    graphed = None
    if config.trainer.get("cuda_graph") is True:
        with placed():
            graphed = GraphedStep(cast(Learner, learner), loss)  # which refuses what is none
    made = TaskModule(learner, f_optim, task, data.outputs, loss, scheduler, graphed)
    made.multiply_adds = work
    if config.trainer.get("precision") == "64-true":
        made.double()  # as the trainer will, but only after it has loaded a checkpoint, whose digits would be lost
    return made


def _trains(made: object) -> bool:
    """Whether it is a `Trainable`."""
    return callable(made) and all(hasattr(made, name) for name in ("network", "backward", "optimizer_parameters"))


def _show_images(network: nn.Module, datamodule: HeldDataModule) -> None:
    """Give layers that are made from statistics of training images some of them."""
    for layer in network.modules():
        if isinstance(layer, Whitening):
            layer.fit(datamodule.sample(SAMPLE))


def _scheduler(config: DictConfig) -> Schedule | None:
    """The schedule of the forward optimiser; None if there is none."""
    chosen = config.get("scheduler")
    return Schedule(build(scheduler_of(chosen)), chosen.get(INTERVAL)) if chosen else None


def _feedback_epochs(model: DictConfig) -> list[L.Callback]:
    with prefixed(f"model.{EPOCHS}"):
        made = feedback_epochs(plain(model).get(EPOCHS))
    return [] if made is None else [made]


def _callbacks(config: DictConfig) -> list[L.Callback]:
    """The callbacks; without validation none that waits for its metrics."""
    made = [*_feedback_epochs(config.model), *build_members(config, "callbacks")]
    if config.datamodule.val_fraction != 0:
        return made
    if any(isinstance(each, EarlyStopping) and each.monitor.startswith("val/") for each in made):
        message = "there is no validation to wait for, set datamodule.val_fraction=0.1"
        raise UserError(message, key="callbacks.early_stopping")
    return [each for each in made if not isinstance(each, BestCheckpoint)]
