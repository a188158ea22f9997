"""One training run, from configuration to results."""

from __future__ import annotations

import inspect
import json
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import lightning as L
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.utils import get_method
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import EarlyStopping
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from torch import Tensor, nn

from targetprop.app import checkpoints, resume
from targetprop.app.callbacks.checkpoint import BestCheckpoint
from targetprop.app.callbacks.find import find_callback
from targetprop.app.callbacks.history import History
from targetprop.app.models import check_hparams
from targetprop.app.module import Classifier
from targetprop.app.objects import build, build_members, call, plain
from targetprop.app.optimizers import forward_optimizer
from targetprop.app.places import placed
from targetprop.app.processes import check_gpus, is_started, join, launch, rank, usable_gpus, world_size
from targetprop.app.record import Place, record_of, with_place
from targetprop.app.report.table import Result, results_table, times_line
from targetprop.app.report.tree import config_tree
from targetprop.app.schema.check import check
from targetprop.app.schema.rehearsal import rehearse
from targetprop.app.threads import cpu_threads, multiply_adds
from targetprop.data.views import VIEWS
from targetprop.execution.graph import GraphedStep
from targetprop.execution.memory import keep_freed_memory
from targetprop.layers.fixed import Whitening
from targetprop.learner import Learner, Trainable
from targetprop.utils.errors import UserError, is_number, prefixed, refuse_unknown, require, require_whole, unknown
from targetprop.utils.files import whole_file, write_text

if TYPE_CHECKING:
    from targetprop.app.datamodule import ImageDataModule

log = logging.getLogger(__name__)

PLAIN = ("seed", "data_dir", "train", "test", "views", "ckpt_path", "output_dir")
"""What is set beside the groups."""
GROUPS = ("model", "network", "datamodule", "trainer", "scheduler", "callbacks", "logger")

CROSS_ENTROPY = "torch.nn.functional.cross_entropy"
SAMPLE = 2000
"""Training images whose statistics a network may be made from."""


def train(config: DictConfig) -> dict[str, float]:
    """Train as configured, evaluate the best checkpoint once, and return the metrics (e.g. "test/accuracy").

    Writes into `config.output_dir`: config.yaml, metrics, checkpoints, curves.png and results.json. If the trainer is
    layer-parallel and this process is not one of several, it starts as many as there are pairs, and waits for them.

    Raises:
        UserError: something in the configuration, or in the data it names, cannot work; the message says what.
    """
    check_configuration(config)
    threads = config.trainer.threads
    with prefixed("trainer"):
        check_gpus(config.trainer.gpus)
        if threads is not None:
            require_whole("threads", threads, least=1)
    if "processes" not in config.trainer:
        if world_size() > 1:
            raise UserError("several processes train together with trainer=layer_parallel only.", key="trainer")
        return _train(config)
    if is_started():
        with join(plain(OmegaConf.merge(config, {"output_dir": ""})), config.trainer.gpus, threads):
            return _train(config)
    job_logging = plain(HydraConfig.get().job_logging) if HydraConfig.initialized() else {}
    return launch(_train_plain, plain(config), count_processes(config), job_logging)


def check_configuration(config: DictConfig) -> None:
    """Refuse a configuration that cannot work, before any data is read.

    Raises:
        UserError: one of its settings, named by its full key, in one line.
    """
    check(config)
    check_hparams(config.model)
    rehearse(config)


def _train_plain(config: dict[str, Any]) -> dict[str, float]:
    return train(OmegaConf.create(config))


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


def _train(config: DictConfig) -> dict[str, float]:
    _check_start(config)
    keep_freed_memory()
    L.seed_everything(config.seed, workers=True, verbose=False)
    # All of it is made, and so all of the configuration is checked, before any of it is shown or written.
    datamodule: ImageDataModule = build(config.datamodule)
    module = build_module(config, datamodule)
    with cpu_threads(config.trainer.threads, _work(config, module, datamodule)) as threads:
        return _run(config, module, datamodule, threads)


def _work(config: DictConfig, module: Classifier, datamodule: ImageDataModule) -> int | None:
    """Multiply-adds of a training batch's forward pass on the CPU; None on a GPU."""
    return None if usable_gpus(config.trainer.gpus) else module.multiply_adds * datamodule.batch_size


def _run(config: DictConfig, module: Classifier, datamodule: ImageDataModule, threads: int) -> dict[str, float]:
    trainer: L.Trainer = build(config.trainer, callbacks=_callbacks(config), logger=build_members(config, "logger"))
    start = resume.start(plain(config), module)
    places = _places(config, trainer, start)
    module.record = record_of(plain(config), places)
    console = Console(quiet=rank() > 0)
    console.print(config_tree(config, GROUPS))
    _keep_config(config)

    if config.train:
        log.info("Training into %s, CPU threads: %d", config.output_dir, threads)
        try:
            trainer.fit(module, datamodule=datamodule, ckpt_path=start.path, weights_only=True)
        except MisconfigurationException as error:  # of a callback's setting, which shows while it works
            raise UserError(str(error)) from error
    # Read before evaluation, which restores the callbacks of the best checkpoint.
    history = find_callback(trainer, History)
    seconds = [row["seconds"] for row in history.epochs] if history else []
    facts = {"epoch_seconds": seconds, "threads": threads, "places": places, "nonlinearity": module.nonlinearity}
    facts |= {"note": datamodule.note} if datamodule.note else {}
    evaluated = checkpoints.best(trainer) if config.train else start.path
    results = evaluate(trainer, module, datamodule, evaluated, config.views) if config.test else {}
    if results:
        console.print(results_table(results, datamodule.classes, datamodule.note))
    if seconds:
        console.print(times_line(seconds))
    _keep_results(Path(config.output_dir), results, facts)
    return {f"{part}/accuracy": result.accuracy for part, result in results.items()}


def _places(config: DictConfig, trainer: L.Trainer, start: resume.Start) -> list[Place]:
    """Where the run has been, and is from now on."""
    device = trainer.strategy.root_device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    return with_place(start.places, start.epochs, name, cuda_graph=bool(config.trainer.get("cuda_graph")))


def _check_start(config: DictConfig) -> None:
    refuse_unknown(map(str, config), [*PLAIN, *GROUPS])
    for key in ("train", "test"):
        require(isinstance(config[key], bool), key, "true or false", config[key])
    require_whole("seed", config.seed, least=0)
    require(config.seed < 2**32, "seed", "a number below 2**32", config.seed)
    if config.views is not None and config.views not in VIEWS:
        raise unknown("views", config.views, VIEWS)
    if not config.train and config.ckpt_path is None:
        raise UserError("train=false evaluates a checkpoint: say which.", key="ckpt_path")


def _keep_config(config: DictConfig) -> None:
    if rank() == 0:
        Path(config.output_dir).mkdir(parents=True, exist_ok=True)
        with whole_file(Path(config.output_dir, "config.yaml")) as partial:
            OmegaConf.save(config, partial, resolve=True)


def _keep_results(folder: Path, results: dict[str, Result], facts: dict[str, Any]) -> None:
    if rank() == 0:
        parts = {part: vars(result) for part, result in results.items()}
        write_text(folder / "results.json", json.dumps({**parts, **facts}, indent=2) + "\n")


def build_module(config: DictConfig, datamodule: ImageDataModule) -> Classifier:
    """The network for the images of `datamodule`, its learner and its forward optimiser.

    Raises:
        UserError: a value of the configuration that does not fit, named by its full key.
    """
    with prefixed("datamodule"):
        shape, classes = datamodule.image_shape, datamodule.classes
    network = call("network.hparams", config.network, shape, len(classes))
    _show_images(network, datamodule)
    work = multiply_adds(network, shape)  # before there is a learner, which minds who runs its network
    model = plain(config.model)
    with prefixed("model"):
        taken = inspect.signature(get_method(model["_target_"])).parameters
        own = [name for name in taken if name not in ("network", "seed")]
        refuse_unknown(model, ["_target_", "loss", "label_smoothing", *own])
        loss = _loss(model.pop("loss", CROSS_ENTROPY), model.pop("label_smoothing", 0.0))
    hparams = model.pop("hparams")
    f_optim = forward_optimizer(hparams)
    learner: Trainable = get_method(model.pop("_target_"))(network, hparams, seed=config.seed, **model)
    scheduler = _scheduler(config)
    graphed = None
    if config.trainer.get("cuda_graph") is True:
        with placed():
            graphed = GraphedStep(cast(Learner, learner), loss)  # which refuses what is none
    made = Classifier(learner, f_optim, classes, scheduler, graphed, loss)
    made.multiply_adds = work
    return made


def _loss(path: str, label_smoothing: float) -> Callable[[Tensor, Tensor], Tensor]:
    """The loss at an import path, on labels of which this share is spread over all classes."""
    loss: Callable[..., Tensor] = get_method(path)
    fits = is_number(label_smoothing) and 0 <= label_smoothing < 1
    require(fits, "label_smoothing", "a number in [0, 1)", label_smoothing)
    if label_smoothing == 0:
        return loss
    if "label_smoothing" not in inspect.signature(loss).parameters:
        raise UserError(f"{path} has none; set it to 0.", key="label_smoothing")
    return partial(loss, label_smoothing=label_smoothing)


def _show_images(network: nn.Module, datamodule: ImageDataModule) -> None:
    """Give layers that are made from statistics of training images some of them."""
    for layer in network.modules():
        if isinstance(layer, Whitening):
            layer.fit(datamodule.sample(SAMPLE))


def _scheduler(config: DictConfig) -> Any:
    """What makes a scheduler from the forward optimiser; None if there is none."""
    chosen = config.get("scheduler")
    if not chosen:
        return None
    given = chosen.get("_partial_")
    require(given is True, "scheduler._partial_", "true, since the optimiser is made later", given)
    return build(chosen)


def evaluate(
    trainer: L.Trainer, module: Classifier, datamodule: ImageDataModule, checkpoint: str | None, views: str | None
) -> dict[str, Result]:
    """Accuracies of a checkpoint, or of the last weights, on validation (if there is any) and test set.

    With views there are those of the mean over them as well, as "validation_mirror" beside "validation".
    """
    module.views = None if views is None else VIEWS[views]
    if checkpoint:
        log.info("Evaluating %s", checkpoint)
    results = {}
    for part, key, run in (("validation", "val", trainer.validate), ("test", "test", trainer.test)):
        if key == "val" and datamodule.val_fraction == 0:
            continue
        measured = run(module, datamodule=datamodule, ckpt_path=checkpoint, weights_only=True, verbose=False)
        if measured and f"{key}/accuracy" in measured[0]:  # not where the number of batches is limited to 0
            for name, place in {part: key, f"{part}_{views}": f"{key}_views"}.items():
                if place in module.per_class:
                    accuracy, top5 = (measured[0][f"{place}/{metric}"] for metric in ("accuracy", "top5"))
                    results[name] = Result(accuracy, top5, module.per_class[place])
    return results


def _callbacks(config: DictConfig) -> list[L.Callback]:
    """The callbacks; without validation none that waits for its metrics."""
    made = build_members(config, "callbacks")
    if config.datamodule.val_fraction != 0:
        return made
    if any(isinstance(each, EarlyStopping) and each.monitor.startswith("val/") for each in made):
        message = "there is no validation to wait for, set datamodule.val_fraction=0.1"
        raise UserError(message, key="callbacks.early_stopping")
    return [each for each in made if not isinstance(each, BestCheckpoint)]
