"""Settings that fit by themselves, and not each other."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from omegaconf import DictConfig, OmegaConf

from targetprop.app.callbacks.checkpoint import LastCheckpoint
from targetprop.app.checkpoint.names import LAST
from targetprop.app.optimizers import forward_optimizer
from targetprop.app.schedule import INTERVAL, Schedule, scheduler_of
from targetprop.app.schedules import Plateau
from targetprop.app.schema.data_sets import size_of
from targetprop.app.schema.objects import described, find_target, plain_value
from targetprop.app.schema.rates import try_rates
from targetprop.utils.errors import UserError, require, unknown

TINY = 1e-4
"""A final rate up to here, as the published 1e-5, fits any first one, also a smaller one."""
BY_BLOCK = re.compile(r"(feedback_loss|local_loss)/block\d+")


def refuse_combinations(config: DictConfig) -> None:
    """Raise `UserError` for settings that do not fit each other, named by the one that is to be changed."""
    if not config.train and config.ckpt_path is None:
        raise UserError("train=false evaluates a checkpoint: say which.", key="ckpt_path")
    _refuse_runs_for_ever(config)
    _refuse_wide_crops(config.datamodule)
    _refuse_rates(config)
    _refuse_metrics(config)
    _refuse_unreported(config)
    _refuse_one_file_twice(config)


def _refuse_runs_for_ever(config: DictConfig) -> None:
    trainer = config.trainer
    if trainer.get("max_epochs") != -1:
        return
    if trainer.get("max_steps", -1) == -1 and trainer.get("max_time") is None:
        message = "expected a number of epochs, since neither trainer.max_steps nor trainer.max_time is set, got -1"
        raise UserError(message, key="trainer.max_epochs")
    for place in _references(config.get("scheduler"), "trainer.max_epochs"):
        raise UserError(f"expected a number of epochs, which {place} is, got -1", key="trainer.max_epochs")


def _references(config: Any, key: str) -> Iterator[str]:
    """Settings of a section that are those of a key."""
    for name in config or ():
        node = config._get_node(name)
        if OmegaConf.is_interpolation(config, name) and node._value() == f"${{{key}}}":
            yield str(config._get_full_key(name))


def _refuse_wide_crops(datamodule: DictConfig) -> None:
    size, augmentation = size_of(datamodule), datamodule.get("augmentation")
    crop = augmentation.get("crop", 0) if augmentation else 0
    if size and size.fixed and augmentation and isinstance(crop, int):
        side = min(size.shape[1:])
        require(crop < side, "datamodule.augmentation.crop", f"less than {side}, the size of the images", crop)


def _refuse_rates(config: DictConfig) -> None:
    scheduler = config.get("scheduler")
    if not scheduler:
        return
    f_optim = forward_optimizer(plain_value(config.model.hparams))
    lowest = scheduler.get("eta_min", 0)
    if isinstance(lowest, int | float) and isinstance(f_optim.lr, int | float):
        most = max(f_optim.lr, TINY)
        expected = f"a number, at most {most:g}, where model.hparams.f_optim.lr is {f_optim.lr:g}"
        require(lowest <= most, "scheduler.eta_min", expected, lowest)
    interval, made = scheduler.get(INTERVAL), instantiate(scheduler_of(scheduler))
    for place in _references(scheduler, "trainer.max_epochs") if interval == "step" else ():
        if place != "scheduler.epochs":
            message = (
                "expected a number of steps, or null for those of the run, since scheduler.interval=step, got epochs"
            )
            raise UserError(message, key=place)
    try_rates(Schedule(made, interval), f_optim, config.trainer.get("max_epochs"))
    _refuse_waiting(config, find_target(scheduler), scheduler.get("monitor"))


def _refuse_waiting(config: DictConfig, target: Any, monitor: str | None) -> None:
    """Refuse a schedule that waits for a metric that there is not."""
    if target is not Plateau:
        return
    if monitor not in (metrics := _metrics(config)):
        raise unknown("scheduler.monitor", monitor, metrics)
    validated = config.trainer.get("limit_val_batches") != 0 and config.datamodule.get("val_fraction") != 0
    if str(monitor).startswith("val/") and not validated:
        message = "there is no validation to wait for; train/loss is there in every run"
        raise UserError(f"{message}, got {monitor!r}", key="scheduler.monitor")


def _refuse_metrics(config: DictConfig) -> None:
    """Refuse to wait for metrics that there are not; a callback of the user's own may log any."""
    members = dict(_observers(config))
    if any(
        not described(target) and not str(target.__module__).startswith("targetprop.") for target in members.values()
    ):
        return
    metrics = _metrics(config)
    for name, target in members.items():
        for read in getattr(target, "reads", ()):
            if read not in metrics:
                message = (
                    f"it reads {read}, which runs for this task do not have ({', '.join(metrics)}); set it to null"
                )
                raise UserError(message, key=f"callbacks.{name}")
        monitor = config.callbacks[name].get("monitor")
        waits = isinstance(target, type) and issubclass(target, EarlyStopping | ModelCheckpoint)
        if not waits or monitor is None:
            continue
        key = f"callbacks.{name}.monitor"
        if monitor not in metrics and not BY_BLOCK.fullmatch(monitor):
            referred = OmegaConf.is_interpolation(config.callbacks[name], "monitor")
            raise unknown(
                "task.monitor" if referred else key, monitor, [*metrics, "feedback_loss/blockN", "local_loss/blockN"]
            )
        ends = issubclass(target, EarlyStopping) and monitor.startswith("val/")
        if ends and config.trainer.get("limit_val_batches") == 0:
            raise UserError(
                f"there is no validation to wait for, since trainer.limit_val_batches=0, got {monitor!r}", key=key
            )


def _refuse_unreported(config: DictConfig) -> None:
    """Refuse to search by a number that a run's results do not have."""
    wanted = config.optimized_metric
    if wanted is None:
        return
    names = getattr(find_target(config.task), "reported", ())
    parts = ["validation"] * (config.datamodule.get("val_fraction") != 0) + ["test"]
    parts += [f"{part}_{config.views}" for part in parts if config.views is not None]
    valid = [f"{part}/{name}" for part in parts for name in names]
    if not config.test:
        raise UserError("it is measured at the end of a run, set test=true", key="optimized_metric")
    if re.sub("^val(?=[/_])", "validation", wanted) not in valid:
        raise unknown("optimized_metric", wanted, valid)


def _metrics(config: DictConfig) -> list[str]:
    """Metrics of every run for the task."""
    task = find_target(config.task)
    evaluated, trained = getattr(task, "evaluated", ()), getattr(task, "trained", ())
    return [*(f"val/{name}" for name in evaluated), *(f"train/{name}" for name in trained)]


def _refuse_one_file_twice(config: DictConfig) -> None:
    """Refuse checkpoints that replace each other, or have each other's names."""
    members = dict(_observers(config))
    files: dict[tuple[str, str], str] = {}
    for name, target in members.items():
        if not (isinstance(target, type) and issubclass(target, ModelCheckpoint | LastCheckpoint)):
            continue
        callback = config.callbacks[name]
        file = Path(LAST).stem if issubclass(target, LastCheckpoint) else callback.get("filename")
        if file is None:
            continue
        others = sorted(set(members) - {name})
        key = f"callbacks.{name}.{'dirpath' if issubclass(target, LastCheckpoint) else 'filename'}"
        require(file not in others, key, "another name than that of another callback", file)
        place = (str(callback.get("dirpath")), str(file))
        require(place not in files, key, f"another name than that of callbacks.{files.get(place)}", file)
        files[place] = name


def _observers(config: DictConfig) -> Iterator[tuple[str, Any]]:
    """Names and targets of the callbacks that are not null."""
    for name, each in (config.get("callbacks") or {}).items():
        if each is not None:
            yield str(name), find_target(each)
