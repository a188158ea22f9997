"""What users of Lightning and of other projects with Hydra type by habit, and how it is said here.

What means the same here is taken as it is (`translated`); for the rest `hint` says what to type.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from targetprop.app.schema import scheduler
from targetprop.app.schema.trainer import LIGHTNING

CONF = Path(__file__).parent / "conf"
SCHEDULERS = {"interval", *(name for keys in scheduler.TARGETS.values() for name in keys)}
"""All settings of schedules that are known; which of them one has is seen when it is made."""

EMPTY = ("logger", "callbacks", "scheduler")
"""Groups with a choice `none`."""
OPTIMIZERS = ("model.hparams.f_optim", "model.hparams.b_optim")
OPTIONS = ("nesterov", "betas", "eps", "dampening", "amsgrad", "alpha", "centered", "foreach", "fused")
"""Of torch's optimisers, which not every file of the configuration names."""
RATES = {"sgd": "1e-3", "adam": "1e-3", "adamw": "1e-3", "rmsprop": "1e-2"}
"""Torch's, by the type of the optimiser."""
RENAMED = {
    "data": "datamodule",
    "dataset": "datamodule",
    "model.optimizer": "model.hparams.f_optim",
    "model.optim": "model.hparams.f_optim",
    "optimizer": "model.hparams.f_optim",
    "optim": "model.hparams.f_optim",
    "model.f_optim": "model.hparams.f_optim",
    "model.b_optim": "model.hparams.b_optim",
    "model.lr": "model.hparams.f_optim.lr",
    "model.learning_rate": "model.hparams.f_optim.lr",
    "model.weight_decay": "model.hparams.f_optim.weight_decay",
    "lr": "model.hparams.f_optim.lr",
    "learning_rate": "model.hparams.f_optim.lr",
    "weight_decay": "model.hparams.f_optim.weight_decay",
    "momentum": "model.hparams.f_optim.momentum",
    "beta": "model.hparams.beta",
    "noise": "model.hparams.noise",
    "model.scheduler": "scheduler",
    "lr_scheduler": "scheduler",
    "model.net": "network.hparams",
    "model.network": "network",
    "net": "network",
    "arch": "network",
    "channels": "network.hparams.channels",
    "batch_size": "datamodule.batch_size",
    "num_workers": "datamodule.num_workers",
    "epochs": "trainer.max_epochs",
    "max_epochs": "trainer.max_epochs",
    "trainer.epochs": "trainer.max_epochs",
    "precision": "trainer.precision",
    "gpus": "trainer.gpus",
    "paths.data_dir": "data_dir",
    "datamodule.train_val_test_split": "datamodule.val_fraction",
    "paths.output_dir": "hydra.run.dir",
    "paths.log_dir": "hydra.run.dir",
    "extras.print_config": "print_config",
    "callbacks.model_checkpoint": "callbacks.best",
    "callbacks.rich_progress_bar": "callbacks.progress",
    "callbacks.tqdm_progress_bar": "callbacks.progress",
    "callbacks.model_summary": "trainer.enable_model_summary",
    "resume_from_checkpoint": "ckpt_path",
    "trainer.resume_from_checkpoint": "ckpt_path",
    "resume": "ckpt_path",
    "experiment_name": "task_name",
    "name": "task_name",
}
"""Keys of others, also of everything below them, and the key here."""
EXPLAINED = {
    "trainer.accelerator": "trainer.gpus says where a run is: trainer.gpus=0 is the CPU, null a GPU if there is one.",
    "trainer.devices": "trainer.gpus says how many: 0 is the CPU, null a GPU if there is one; "
    "trainer=layer_parallel trains in several processes.",
    "trainer.strategy": "trainer=layer_parallel trains in several processes.",
    "trainer.num_nodes": "trainer=layer_parallel trains on several machines (docs/layer_parallel.md).",
    "trainer.sync_batchnorm": "Processes that train together see statistics of their own batches.",
    "trainer=ddp": "Several processes, each with batches of its own: "
    "trainer=layer_parallel trainer.processes=1 trainer.data_parallel=2.",
    "trainer=ddp_sim": "Two processes on the CPU, each with batches of its own: "
    "trainer=layer_parallel trainer.gpus=0 trainer.processes=1 trainer.data_parallel=2.",
    "trainer=mps": "Runs are on NVIDIA's and AMD's GPUs and on the CPU: trainer=cpu.",
    "trainer=tpu": "Runs are on NVIDIA's and AMD's GPUs and on the CPU: trainer=cpu.",
    "paths": "Runs and data lie where hydra.run.dir and data_dir say; the rest is where the command is given.",
    "extras": "A run says what it is by itself; print_config=true has it say all. tags=[...] names it, "
    "PYTHONWARNINGS=ignore silences warnings.",
    "callbacks=model_checkpoint": "callbacks=default keeps the best and the last checkpoint: callbacks.best and "
    "callbacks.last.",
    "callbacks=rich_progress_bar": "It is callbacks.progress of callbacks=default.",
    "callbacks=model_summary": "It is trainer.enable_model_summary=true.",
    "model.compile": "Nothing here is compiled; on a GPU trainer.cuda_graph=true replays whole steps.",
    "compile": "Nothing here is compiled; on a GPU trainer.cuda_graph=true replays whole steps.",
    "hydra.run": "It is hydra.run.dir.",
}
"""Keys, or choices of groups, and what to say of them."""
IN_A_CHOICE = {
    "callbacks.early_stopping": "callbacks=early_stopping",
    "callbacks.measures": "callbacks=measures",
    "callbacks.feedback_figure": "callbacks=feedback_figure",
    "logger.wandb": "logger=wandb",
    "logger.mlflow": "logger=mlflow",
    "logger.trackio": "logger=trackio",
}
"""Sections that only one choice of their group has."""


def translated(arguments: Sequence[str]) -> list[str]:
    """These arguments, with what is only spelled in another way as it is spelled here.

    `logger=null` is the choice none. A setting of Lightning's trainer, or of torch's optimisers, needs no + before it.
    """
    return [_translated(each) for each in arguments]


def _translated(argument: str) -> str:
    key, found, value = argument.partition("=")
    if not found:
        return argument
    if key in EMPTY and value.lower() in ("null", "none", "false"):
        return f"{key}=none"
    section, _, name = key.rpartition(".")
    adds = section in OPTIMIZERS and name in OPTIONS
    adds |= section == "trainer" and name in LIGHTNING and name not in _in_files("trainer")
    adds |= section == "scheduler" and name in SCHEDULERS and name not in _in_files("scheduler")
    adds |= section == "+trainer" and name in LIGHTNING
    return f"++{argument.removeprefix('+')}" if adds else argument


def _in_files(group: str) -> set[str]:
    """The keys that any choice of a group has: Hydra needs no + for them, or says which choice is another one."""
    return {key for path in (CONF / group).glob("*.yaml") for key in yaml.safe_load(path.read_text()) or ()}


def of_another_type(section: str, type_now: str, typed: Collection[str], before: Mapping[str, object]) -> list[str]:
    """What follows where of an optimiser nothing but its type is typed: torch's numbers, but for the decay of weights.

    Args:
        section: of the optimiser.
        type_now: that is typed.
        typed: all keys that are.
        before: the optimiser as it would be without.
    """
    if type_now not in RATES or before.get("type") == type_now:
        return []
    defaults = {"lr": RATES[type_now], "momentum": "0.0", "nesterov": "false"}
    defaults |= {name: "null" for name in ("betas", "eps", "alpha") if before.get(name) is not None}
    defaults |= {name: "false" for name in ("amsgrad", "centered") if before.get(name)}
    return [f"{section}.{key}={value}" for key, value in defaults.items() if f"{section}.{key}" not in typed]


def hint(override: str, missing: str) -> str | None:
    """What to type in place of an override, of which a key or a choice is missing; None where nobody knows.

    Args:
        missing: the key, or group=choice.
    """
    key, _, value = override.lstrip("+~").partition("=")
    for place in (key, missing):
        for name in _upward(place):
            if name in IN_A_CHOICE:
                return f"Only {IN_A_CHOICE[name]} has it: add that."
            if name in EXPLAINED:
                return EXPLAINED[name]
            if name in RENAMED:
                below = key.removeprefix(name) if key.startswith(name) else ""
                return f"Here it is {RENAMED[name]}{below}{'=' if value else ''}{value}"
    return None


def _upward(key: str) -> list[str]:
    """A key, and all that it stands below, from the inside."""
    if "=" in key:
        return [key]
    parts = key.split(".")
    return [".".join(parts[:end]) for end in range(len(parts), 0, -1)]


def first_of_sweep(override: str) -> str | None:
    """An override of a sweep with the first of its values; None of one whose values are not listed."""
    try:
        parsed = OverridesParser.create().parse_override(override)
        if not parsed.is_sweep_override():
            return override
        if not parsed.is_choice_sweep():
            return None
        first = next(iter(parsed.sweep_string_iterator()))
    except (HydraException, StopIteration):
        return None
    return f"{override.partition('=')[0]}={first}"
