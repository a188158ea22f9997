"""One training run, from configuration to results."""

from __future__ import annotations

import json
import logging
import warnings
from pathlib import Path
from typing import Any

import lightning as L
from hydra.utils import get_method, instantiate
from lightning.pytorch.callbacks import ModelCheckpoint
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from targetprop.data import ImageDataModule
from targetprop.errors import UserError
from targetprop.report import Result, config_tree, results_table, times_line
from targetprop.training.callbacks import History
from targetprop.training.callbacks.find import find_callback
from targetprop.training.models import optimizer_spec
from targetprop.training.module import Classifier

log = logging.getLogger(__name__)

GROUPS = ("model", "network", "datamodule", "trainer", "scheduler", "callbacks", "logger")


def train(config: DictConfig) -> dict[str, float]:
    """Train as configured, evaluate the best checkpoint once, and return the metrics (e.g. "test/accuracy").

    Writes into `config.output_dir`: config.yaml, metrics, checkpoints, curves.png and results.json.

    Raises:
        UserError: something in the configuration, or in the data it names, cannot work; the message says what.
    """
    output_dir = Path(config.output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)
    console = Console()
    console.print(config_tree(config, GROUPS))
    OmegaConf.save(config, output_dir / "config.yaml", resolve=True)
    _quiet_warnings()
    L.seed_everything(config.seed, workers=True, verbose=False)

    datamodule: ImageDataModule = instantiate(config.datamodule)
    module = build_module(config, datamodule)
    callbacks = [instantiate(each) for each in (config.callbacks or {}).values() if each is not None]
    if config.datamodule.val_fraction == 0:
        callbacks = [each for each in callbacks if not (isinstance(each, ModelCheckpoint) and each.monitor)]
    loggers = [instantiate(each) for each in (config.logger or {}).values() if each is not None]
    trainer: L.Trainer = instantiate(config.trainer, callbacks=callbacks, logger=loggers)

    if config.train:
        log.info("Training into %s", output_dir)
        trainer.fit(module, datamodule=datamodule, ckpt_path=_checkpoint(config.ckpt_path), weights_only=False)
    history = find_callback(trainer, History)  # read before evaluation, which restores that of the best checkpoint
    seconds = [row["seconds"] for row in history.epochs] if history else []
    results = evaluate(trainer, module, datamodule, config) if config.test else {}
    if results:
        console.print(results_table(results, datamodule.classes))
    if seconds:
        console.print(times_line(seconds))
    _save_results(output_dir / "results.json", results, seconds)
    return {f"{part}/accuracy": result.accuracy for part, result in results.items()}


def build_module(config: DictConfig, datamodule: ImageDataModule) -> Classifier:
    """The network for the images of `datamodule`, its learner and its forward optimiser."""
    make_network = get_method(config.network._target_)
    network = make_network(datamodule.image_shape, datamodule.num_classes, **_plain(config.network.hparams))
    model = _plain(config.model)
    hparams = model["hparams"]
    learner = get_method(model.pop("_target_"))(network, model.pop("hparams"), seed=config.seed, **model)
    scheduler = instantiate(config.scheduler) if config.scheduler else None
    return Classifier(learner, optimizer_spec("f_optim", hparams), datamodule.classes, scheduler)


def evaluate(
    trainer: L.Trainer, module: Classifier, datamodule: ImageDataModule, config: DictConfig
) -> dict[str, Result]:
    """Accuracies of the checkpoint that was best in validation (else of the last weights), the test set's once."""
    best = [
        each.best_model_path
        for each in trainer.checkpoint_callbacks
        if isinstance(each, ModelCheckpoint) and each.monitor
    ]
    path = next(iter(best), None) if config.train else _checkpoint(config.ckpt_path)
    if path:
        log.info("Evaluating %s", path)
    results = {}
    for part, key, run in (("validation", "val", trainer.validate), ("test", "test", trainer.test)):
        if key == "val" and config.datamodule.val_fraction == 0:
            continue
        (metrics,) = run(module, datamodule=datamodule, ckpt_path=path, weights_only=False, verbose=False)
        results[part] = Result(metrics[f"{key}/accuracy"], metrics[f"{key}/top5"], module.per_class[key])
    return results


def _checkpoint(path: str | None) -> str | None:
    if path is not None and not Path(path).is_file():
        raise UserError(f"ckpt_path: there is no file {path}.")
    return path


def _plain(config: DictConfig) -> dict[str, Any]:
    container = OmegaConf.to_container(config, resolve=True)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


def _save_results(path: Path, results: dict[str, Result], seconds: list[float]) -> None:
    parts = {part: vars(result) for part, result in results.items()}
    path.write_text(json.dumps({**parts, "epoch_seconds": seconds}, indent=2) + "\n")


def _quiet_warnings() -> None:
    """Warnings as lines of the log, without the advice of Lightning's that does not hold here."""
    warnings.formatwarning = lambda message, *_, **__: str(message)
    logging.captureWarnings(True)
    for message in (
        ".*does not have many workers.*",
        ".*lower value for log_every_n_steps.*",
        ".*isinstance.treespec, LeafSpec.*",
        ".*Total length of `list` across ranks is zero.*",
        ".*The dirpath has changed.*",
    ):
        warnings.filterwarnings("ignore", message=message)
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
