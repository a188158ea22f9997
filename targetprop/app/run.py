"""One training run, from configuration to results."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import lightning as L
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from hydra.utils import get_method, instantiate
from lightning.pytorch.callbacks import EarlyStopping
from omegaconf import DictConfig, ListConfig, OmegaConf
from rich.console import Console

from targetprop.app.callbacks import BestCheckpoint, History
from targetprop.app.callbacks.find import find_callback
from targetprop.app.datamodule import ImageDataModule
from targetprop.app.models import optimizer_spec
from targetprop.app.module import Classifier
from targetprop.app.processes import is_started, join, launch, rank, world_size
from targetprop.app.report import Result, config_tree, results_table, times_line
from targetprop.app.trainer import check_gpus
from targetprop.execution.graph import GraphedStep
from targetprop.execution.memory import keep_freed_memory
from targetprop.learner import Learner
from targetprop.utils.errors import UserError, require, require_whole

log = logging.getLogger(__name__)

GROUPS = ("model", "network", "datamodule", "trainer", "scheduler", "callbacks", "logger")


def train(config: DictConfig) -> dict[str, float]:
    """Train as configured, evaluate the best checkpoint once, and return the metrics (e.g. "test/accuracy").

    Writes into `config.output_dir`: config.yaml, metrics, checkpoints, curves.png and results.json. If the trainer is
    layer-parallel and this process is not one of several, it starts as many as there are pairs, and waits for them.

    Raises:
        UserError: something in the configuration, or in the data it names, cannot work; the message says what.
    """
    if "processes" not in config.trainer:
        if world_size() > 1:
            raise UserError("trainer: several processes train together with trainer=layer_parallel only.")
        return _train(config)
    check_gpus(config.trainer.gpus)
    threads = config.trainer.threads
    if threads is not None:
        require_whole("trainer.threads", threads, least=1)
    if is_started():
        with join(_plain(OmegaConf.merge(config, {"output_dir": ""})), config.trainer.gpus, threads):
            return _train(config)
    job_logging = _plain(HydraConfig.get().job_logging) if HydraConfig.initialized() else {}
    return launch(_train_plain, _plain(config), count_processes(config), job_logging)


def _train_plain(config: dict[str, Any]) -> dict[str, float]:
    try:
        return train(OmegaConf.create(config))
    except InstantiationException as error:
        if isinstance(error.__cause__, UserError):
            raise error.__cause__ from None  # which `launch` knows
        raise


def count_processes(config: DictConfig) -> int:
    """How many processes a layer-parallel run starts, all groups together.

    Raises:
        UserError: more than there are pairs to train, or anything else that would fail in every process.
    """
    learner = build_module(config, instantiate(config.datamodule)).learner
    if not isinstance(learner, Learner):
        raise UserError("trainer: model=backprop has no feedback to train layer-parallel; use trainer=default.")
    pairs, asked, groups = len(learner.network.trained), config.trainer.processes, config.trainer.data_parallel
    if not pairs:
        raise UserError("trainer: a network of one block has no feedback to train layer-parallel; use trainer=default.")
    require_whole("trainer.data_parallel", groups, least=1)
    if asked is not None:
        require_whole("trainer.processes", asked, least=1)
        at_most = f"at most {pairs}, one for each pair with trained feedback"
        require(asked <= pairs, "trainer.processes", at_most, asked)
    return groups * (asked or pairs)


def _train(config: DictConfig) -> dict[str, float]:
    require_whole("seed", config.seed, least=0)
    require(config.seed < 2**32, "seed", "a number below 2**32", config.seed)
    if not config.train and config.ckpt_path is None:
        raise UserError("ckpt_path: train=false evaluates a checkpoint: say which.")
    output_dir = Path(config.output_dir)
    console = Console(quiet=rank() > 0)
    console.print(config_tree(config, GROUPS))
    if rank() == 0:
        output_dir.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(config, output_dir / "config.yaml", resolve=True)
    keep_freed_memory()
    L.seed_everything(config.seed, workers=True, verbose=False)

    datamodule: ImageDataModule = instantiate(config.datamodule)
    module = build_module(config, datamodule)
    trainer: L.Trainer = instantiate(config.trainer, callbacks=_callbacks(config), logger=_members(config, "logger"))
    start = _checkpoint(config.ckpt_path, module)

    if config.train:
        log.info("Training into %s", output_dir)
        trainer.fit(module, datamodule=datamodule, ckpt_path=start, weights_only=True)
    history = find_callback(trainer, History)  # read before evaluation, which restores that of the best checkpoint
    seconds = [row["seconds"] for row in history.epochs] if history else []
    results = evaluate(trainer, module, datamodule, _best(trainer) if config.train else start) if config.test else {}
    if results:
        console.print(results_table(results, datamodule.classes))
    if seconds:
        console.print(times_line(seconds))
    if rank() == 0:
        _save_results(output_dir / "results.json", results, seconds)
    return {f"{part}/accuracy": result.accuracy for part, result in results.items()}


def build_module(config: DictConfig, datamodule: ImageDataModule) -> Classifier:
    """The network for the images of `datamodule`, its learner and its forward optimiser."""
    network = _call("network.hparams", config.network, datamodule.image_shape, datamodule.num_classes)
    model = _plain(config.model)
    hparams = model.pop("hparams")
    loss = get_method(model.pop("loss", "torch.nn.functional.cross_entropy"))
    learner = get_method(model.pop("_target_"))(network, hparams, seed=config.seed, **model)
    scheduler = instantiate(config.scheduler) if config.get("scheduler") else None
    graphed = None
    if config.trainer.get("cuda_graph") is True:
        require(isinstance(learner, Learner), "trainer.cuda_graph", "false for model=backprop", True)
        graphed = GraphedStep(learner, loss)
    return Classifier(learner, optimizer_spec("f_optim", hparams), datamodule.classes, scheduler, graphed, loss)


def evaluate(
    trainer: L.Trainer, module: Classifier, datamodule: ImageDataModule, checkpoint: str | None
) -> dict[str, Result]:
    """Accuracies of a checkpoint, or of the last weights, on validation (if there is any) and test set."""
    if checkpoint:
        log.info("Evaluating %s", checkpoint)
    results = {}
    for part, key, run in (("validation", "val", trainer.validate), ("test", "test", trainer.test)):
        if key == "val" and datamodule.val_fraction == 0:
            continue
        measured = run(module, datamodule=datamodule, ckpt_path=checkpoint, weights_only=True, verbose=False)
        if measured and f"{key}/accuracy" in measured[0]:  # not where the number of batches is limited to 0
            metrics = measured[0]
            results[part] = Result(metrics[f"{key}/accuracy"], metrics[f"{key}/top5"], module.per_class[key])
    return results


def _members(config: DictConfig, group: str) -> list[Any]:
    """The objects that the members of a group describe."""
    return [instantiate(each) for each in (config.get(group) or {}).values() if each is not None]


def _callbacks(config: DictConfig) -> list[L.Callback]:
    """The callbacks; without validation none that waits for its metrics."""
    made = _members(config, "callbacks")
    if config.datamodule.val_fraction != 0:
        return made
    if any(isinstance(each, EarlyStopping) and each.monitor.startswith("val/") for each in made):
        raise UserError("callbacks.early_stopping: there is no validation to wait for, set datamodule.val_fraction=0.1")
    return [each for each in made if not isinstance(each, BestCheckpoint)]


def _best(trainer: L.Trainer) -> str | None:
    """The checkpoint that was best in validation, if there is one."""
    best = find_callback(trainer, BestCheckpoint)
    if best is None or not best.best_model_path:
        return None
    if Path(best.best_model_path).is_file():
        return best.best_model_path
    log.warning("The best checkpoint %s is gone: the last weights are evaluated.", best.best_model_path)
    return None


def _checkpoint(path: str | None, module: Classifier) -> str | None:
    """The path of a checkpoint that fits the module."""
    if path is None:
        return None
    if not Path(path).is_file():
        raise UserError(f"ckpt_path: there is no file {path}.")
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    except Exception as error:
        raise UserError(f"ckpt_path: {path} is no checkpoint of targetprop: {error}") from None
    here, there = _shapes(module.state_dict()), _shapes(saved)
    differing = [name for name in {**here, **there} if here.get(name) != there.get(name)]
    if differing:
        raise UserError(f"ckpt_path: {path} was made with other settings of model or network: {differing[0]} differs.")
    return path


def _shapes(state: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(getattr(value, "shape", ())) for name, value in state.items()}


def _call(key: str, config: DictConfig, *arguments: Any) -> Any:
    """Call the `_target_` of a configuration with its hparams; `key` is where they stand."""
    try:
        return get_method(config._target_)(*arguments, **_plain(config.hparams))
    except TypeError as error:
        raise UserError(f"{key}: {error}") from error


def _plain(config: DictConfig | ListConfig | dict[str, Any]) -> dict[str, Any]:
    container = OmegaConf.to_container(config, resolve=True)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


def _save_results(path: Path, results: dict[str, Result], seconds: list[float]) -> None:
    parts = {part: vars(result) for part, result in results.items()}
    path.write_text(json.dumps({**parts, "epoch_seconds": seconds}, indent=2) + "\n")
