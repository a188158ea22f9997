"""Which settings a run that goes on may have other values of, and what becomes of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from targetprop.app.flat import flat
from targetprop.utils.errors import UserError

PLACES = (
    "output_dir", "data_dir", "datamodule.data_dir", "datamodule.load.cache_dir", "ckpt_path", "hydra",
    "trainer.default_root_dir",
)  # fmt: skip
PARTS = (
    "train", "test", "views", "on_divergence", "logger", "task.monitor", "task.mode", "task_name", "tags",
    "optimized_metric", "print_config",
)  # fmt: skip
DEVICES = (
    "trainer._target_", "trainer.gpus", "trainer.cuda_graph", "trainer.threads", "trainer.processes",
    "trainer.worker_timeout", "datamodule.num_workers",
)  # fmt: skip
OBSERVED = (
    "datamodule.download", "datamodule.eval_batch_size", "trainer.barebones", "trainer.benchmark",
    "trainer.check_val_every_n_epoch", "trainer.detect_anomaly", "trainer.deterministic",
    "trainer.enable_autolog_hparams", "trainer.enable_checkpointing", "trainer.enable_model_summary",
    "trainer.enable_progress_bar", "trainer.inference_mode", "trainer.limit_predict_batches",
    "trainer.limit_test_batches", "trainer.limit_val_batches", "trainer.log_every_n_steps",
    "trainer.num_sanity_val_steps", "trainer.profiler", "trainer.val_check_interval",
)  # fmt: skip
LENGTHS = tuple(f"trainer.{name}" for name in ("max_epochs", "min_epochs", "max_steps", "min_steps", "max_time"))
FREE = (*PLACES, *PARTS, *DEVICES, *OBSERVED)
"""What decides nothing of what the run computes."""

GROUPED = ("model.hparams.f_optim.lr", "model.hparams.f_optim.eps")
"""What makes a group of the forward optimiser for each block where it is a list."""
START = ("model.hparams.init_symmetric_weights", "model.hparams.error_std")
"""What only the first step of a run looks at."""
OPTIMIZERS = ("model.hparams.f_optim", "model.hparams.b_optim")
KINDS = ("model.hparams.style", "model.hparams.hidden_units", "model.hparams.recurrent", "model.hparams.feedback_bias",
         *(f"{each}.{name}" for each in OPTIMIZERS for name in ("type", "amsgrad", "centered")))  # fmt: skip
"""Numbers' neighbours that are none: with another one the states of a checkpoint would be those of something else."""
NUMBERS = ("model.hparams", "model.label_smoothing", "scheduler", "trainer.gradient_clip_val",
           "trainer.gradient_clip_algorithm", "trainer.matmul_precision")  # fmt: skip
"""What takes effect from where the run goes on."""
WHOLE_EPOCHS = ("datamodule.batch_size", "datamodule.augmentation", "datamodule.reshuffle", "datamodule.drop_last",
                "trainer.limit_train_batches", "trainer.accumulate_grad_batches")  # fmt: skip
"""What takes effect, too, but not within an epoch, whose images would come twice or never."""

UNSAID: dict[str, Any] = {
    "trainer.accumulate_grad_batches": 1, "trainer.data_parallel": 1,
    "task._target_": "targetprop.app.task.Classification",
    **{f"{each}.{name}": False for each in OPTIMIZERS for name in ("amsgrad", "centered", "nesterov")},
    **{f"{each}.dampening": 0.0 for each in OPTIMIZERS},
}  # fmt: skip
"""What settings are that are not there, unless they are null."""


class Change(NamedTuple):
    """A setting that is another one than it was."""

    key: str
    then: object
    now: object

    def __str__(self) -> str:
        return f"{self.key} {_shown(self.then)} -> {_shown(self.now)}"


def changes(then: Mapping[str, Any], now: Mapping[str, Any], *, within_epoch: bool) -> list[Change]:
    """The settings that take effect where a run goes on with another plain configuration than it had.

    Args:
        then: the run's configuration so far.
        now: from here on.
        within_epoch: whether it goes on between two batches of an epoch.

    Raises:
        UserError: a setting is another one without which it would be another run.
    """
    observers = {f"callbacks.{name}" for each in (then, now) for name in each.get("callbacks") or {}}
    stopping = {f"callbacks.{name}" for each in (then, now) for name in _stopping_early(each)}
    free = (*FREE, *observers - stopping)
    found = [each for each in _differences(then, now) if not _below(each.key, free)]
    for each in found:
        if _below(each.key, KINDS) or not _below(each.key, (*NUMBERS, *WHOLE_EPOCHS, *LENGTHS, *stopping)):
            raise _refused(each, "with another one it would be another run: start one without ckpt_path.")
    for each in found:
        if each.key in GROUPED and isinstance(each.then, list) != isinstance(each.now, list):
            raise _refused(each, "one number has one state for all blocks, a list has one for each.")
        if _lacks_state(each, now):
            raise _refused(each, "rmsprop without momentum has kept none to go on with.")
        if _below(each.key, START):
            raise _refused(each, "that matters where a run starts only.")
        if within_epoch and _below(each.key, WHOLE_EPOCHS):
            raise _refused(each, "it can change at the end of an epoch only, and this is within one.")
    return found


def _lacks_state(change: Change, now: Mapping[str, Any]) -> bool:
    """Whether an optimiser is to go on with what it has not kept."""
    section, _, name = change.key.rpartition(".")
    switched_on = section in OPTIMIZERS and name == "momentum" and not change.then
    return switched_on and flat(now).get(f"{section}.type") == "rmsprop"


def _stopping_early(config: Mapping[str, Any]) -> list[str]:
    """Names of the callbacks that may end a run."""
    callbacks: Mapping[str, Any] = config.get("callbacks") or {}
    return [name for name, each in callbacks.items() if each and "EarlyStopping" in str(each.get("_target_"))]


def _differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterable[Change]:
    first, second = flat(then), flat(now)
    for key in {**first, **second}:
        before, after = (each.get(key, UNSAID.get(key)) for each in (first, second))
        if not _same(key, before, after):
            yield Change(key, before, after)


def _refused(change: Change, reason: str) -> UserError:
    message = f"the run was made with {_shown(change.then)}, now it is {_shown(change.now)}; {reason}"
    return UserError(message, key=change.key)


def _below(key: str, places: Iterable[str]) -> bool:
    return any(key == each or key.startswith(f"{each}.") for each in places)


def _same(key: str, first: object, second: object) -> bool:
    """1 is one batch, and 1.0 are all; else numbers of both kinds are the same."""
    return first == second and (not key.endswith("_batches") or type(first) is type(second))


def _shown(value: object) -> str:
    """As it is written in a configuration."""
    return {"None": "null", "True": "true", "False": "false"}.get(str(value), str(value))
