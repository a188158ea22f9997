"""A run that is ended anywhere and goes on gives, bit for bit, what the uninterrupted one gives."""

from __future__ import annotations

import csv
import logging
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from identical import assert_identical
from omegaconf import DictConfig
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from targetprop.app.run import train

Compose = Callable[..., DictConfig]

STEPS = 4
EPOCHS = 2
QUICK = (
    f"trainer.max_epochs={EPOCHS}", f"trainer.limit_train_batches={STEPS}", "trainer.limit_val_batches=2",
    "trainer.threads=1", "trainer.log_every_n_steps=1", "callbacks.alignment.every_n_steps=2", "logger=default",
)  # fmt: skip
EVERY_STEP = (
    "+callbacks.steps={_target_:lightning.pytorch.callbacks.ModelCheckpoint,every_n_train_steps:1,save_top_k:-1,"
    "filename:'{step}',auto_insert_metric_name:false,dirpath:%s}"
)
WALL_CLOCK = ("seconds",)

MODELS = {
    "dtp": ["model=dtp"],
    "amortised": ["model=amortised_dtp"],
    "backprop": ["model=backprop"],
    "kolen_pollack": ["model=kolen_pollack"],
    "mixed precision": ["model=amortised_dtp", "trainer.precision=bf16-mixed"],
    "adam": ["model=dtp", "model.hparams.b_optim.type=adam", "model.hparams.b_optim.momentum=0"],
    "batch norm": ["model=amortised_dtp", "network=norm_vgg"],
    "schedule by steps": ["model=amortised_dtp", "scheduler=one_cycle"],
    "batchwise sign symmetry": ["model=batchwise_sign_symmetry"],
    "fixed sign symmetry": ["model=fixed_sign_symmetry"],
    "counter-current": ["model=counter_current", "network=mlp", "model.hparams.b_optim.momentum=0.9"],
    "lra-e": ["model=lra_e", "network=mlp"],
    "gait-prop": ["model=gait_prop", "network=invertible_mlp"],
    "drtp": ["model=drtp", "network=mlp"],
    "double precision": ["model=amortised_dtp", "trainer.precision=64-true"],
    "regression": ["model=dtp", "datamodule=teacher", "datamodule.load.train=1000"],
    "own data": ["model=dtp", "datamodule=own", "datamodule.dataset=own_data.vectors", "datamodule.batch_size=32",
                 "network=mlp"],
}  # fmt: skip


ANY = range(1, STEPS * EPOCHS)
WITHIN_EPOCHS = (3, 6)
"""Steps from which models go on, but for one that does from all, and where there is time: see the slow test of all
hooks."""


@pytest.mark.parametrize(
    ("name", "steps"),
    [("amortised", ANY), *((name, WITHIN_EPOCHS) for name in ("dtp", "counter-current", "own data"))],
)  # fmt: skip
def test_a_run_goes_on_from_any_step(compose: Compose, tmp_path: Path, name: str, steps: Sequence[int]) -> None:
    settings = (*QUICK, *MODELS[name])
    train(compose(*settings, EVERY_STEP % (tmp_path / "steps"), output="whole"))
    for step in steps:
        train(compose(*settings, f"ckpt_path='{tmp_path}/steps/{step}.ckpt'", output=f"from_{step}"))
        assert_same_run(tmp_path / "whole", tmp_path / f"from_{step}", metrics=False)


def assert_same_run(whole: Path, other: Path, *, metrics: bool = True) -> None:
    """Equal weights, states, measurements and results, and all that was logged, but for clocks and places."""
    first, second = (torch.load(run / "checkpoints/last.ckpt", weights_only=True) for run in (whole, other))
    for part in ("state_dict", "optimizer_states", "lr_schedulers", "loops", "global_step"):
        assert_identical(first[part], second[part], part, WALL_CLOCK)
    own = [
        {key: state for key, state in each["callbacks"].items() if "Checkpoint" not in key} for each in (first, second)
    ]
    assert_identical(own[0], own[1], "callbacks", WALL_CLOCK)
    if metrics:
        assert rows_of(whole) == rows_of(other)
        assert scalars_of(whole) == scalars_of(other)


def rows_of(run: Path) -> list[dict[str, str]]:
    with (run / "csv/metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def scalars_of(run: Path) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    # Files of two processes are read in the order of their names, which two within a second decide by their numbers.
    return {tag: sorted((each.step, each.value) for each in events.Scalars(tag)) for tag in events.Tags()["scalars"]}


# Ends of processes


class EndedError(Exception):
    """In place of a signal that nothing can catch."""


class EndAt(L.Callback):
    """Ends the process, as far as a test may, in a hook after so many steps; what is in memory is lost."""

    def __init__(self, hook: str, step: int) -> None:
        def end(trainer: L.Trainer, *others: Any) -> None:
            if trainer.global_step == step and trainer.state.fn == "fit":
                for logger in trainer.loggers:
                    logger.__dict__.update(_waiting=[])
                raise EndedError

        setattr(self, hook, end)


def resumed_in_place(compose: Compose, settings: Sequence[str], hook: str, step: int, output: str) -> None:
    """End a run in this hook, after so many steps, and go on with it until it is done."""
    end = f"+callbacks.end={{_target_:{__name__}.EndAt,hook:{hook},step:{step}}}"
    every = "callbacks.last.every_n_steps=3"
    with pytest.raises(EndedError):
        train(compose(*settings, every, end, output=output))
    train(compose(*settings, every, "ckpt_path=auto", output=output))


@pytest.mark.parametrize(
    ("hook", "step"),
    [("on_train_batch_start", 2), ("on_train_batch_end", 4), ("on_validation_start", 4), ("on_validation_batch_end", 4),
     ("on_train_epoch_start", 4), ("on_train_batch_start", 5), ("on_train_batch_end", 7), ("on_train_end", 8)],
)  # fmt: skip
def test_files_of_a_run_that_is_killed_and_goes_on_in_place_are_whole(
    compose: Compose, tmp_path: Path, whole: Path, hook: str, step: int
) -> None:
    resumed_in_place(compose, (*QUICK, *MODELS["amortised"]), hook, step, "run")
    assert_same_run(whole, tmp_path / "run")


@pytest.fixture(scope="module")
def whole(compose_once: Compose) -> Path:
    """A run that nothing interrupts."""
    config = compose_once(*QUICK, *MODELS["amortised"], output="whole")
    train(config)
    return Path(config.output_dir)


EARLY = (*QUICK, *MODELS["amortised"], "callbacks=early_stopping", "model.hparams.f_optim.lr=0", "trainer.max_epochs=6")
"""Nothing improves after the first epoch."""


@pytest.mark.parametrize(
    ("hook", "step"),
    [("on_train_epoch_end", 12),
     *(pytest.param(hook, 12, marks=pytest.mark.slow) for hook in ("on_validation_end", "on_train_end", "on_fit_end"))],
)  # fmt: skip
def test_early_stopping_ends_a_run_that_was_killed_where_it_ends_the_whole_one(
    compose: Compose, tmp_path: Path, hook: str, step: int
) -> None:
    settings = (*EARLY, "callbacks.early_stopping.patience=2")
    train(compose(*settings, "callbacks.last.every_n_steps=3", output="whole"))
    assert len(rows_of(tmp_path / "whole")) > 0
    resumed_in_place(compose, settings, hook, step, "run")
    assert_same_run(tmp_path / "whole", tmp_path / "run")


def test_a_run_that_early_stopping_has_ended_goes_on_with_more_patience(
    compose: Compose, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "targetprop")
    train(compose(*EARLY, "callbacks.early_stopping.patience=1"))
    train(compose(*EARLY, "callbacks.early_stopping.patience=1", "ckpt_path=last"))
    assert "Early stopping has ended this run" in caplog.text
    assert _epochs(tmp_path / "run") == 2
    train(compose(*EARLY, "callbacks.early_stopping.patience=3", "ckpt_path=last"))
    assert "callbacks.early_stopping.patience 1 -> 3" in caplog.text
    assert _epochs(tmp_path / "run") == 4


def _epochs(run: Path) -> int:
    last: dict[str, Any] = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    return len(last["callbacks"]["History"]["epochs"])


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("more", [[], ["trainer.val_check_interval=2"], ["trainer.limit_val_batches=0"]])
def test_every_model_goes_on_from_any_hook(compose: Compose, tmp_path: Path, name: str, more: list[str]) -> None:
    more = [*more, "callbacks.best=null"] if "trainer.limit_val_batches=0" in more else more
    settings = (*QUICK, *MODELS[name], *(f"+{each}" if "interval" in each else each for each in more))
    train(compose(*settings, output="whole"))
    for hook in ("on_train_batch_start", "on_train_batch_end"):
        for step in (1, 3, 4, 6):
            resumed_in_place(compose, settings, hook, step, f"{hook}_{step}")
            assert_same_run(tmp_path / "whole", tmp_path / f"{hook}_{step}")


class Signal(L.Callback):
    """Sends this process a signal in a hook, after so many steps."""

    def __init__(self, hook: str, step: int, number: int) -> None:
        self.sent = False

        def send(trainer: L.Trainer, *others: Any) -> None:
            if trainer.global_step == step and not self.sent:
                self.sent = True
                os.kill(os.getpid(), number)

        setattr(self, hook, send)


ENDS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP, signal.SIGINT)


@pytest.mark.parametrize(
    ("hook", "step", "number"),
    [
        *(("on_train_batch_start", 2, number) for number in ENDS),
        *(("on_validation_batch_start", 4, number) for number in ENDS[:1]),
        *(("on_train_epoch_end", 4, number) for number in ENDS[:1]),
        *(pytest.param("on_validation_batch_start", 4, number, marks=pytest.mark.slow) for number in ENDS[1:]),
        *(pytest.param("on_train_epoch_end", 4, number, marks=pytest.mark.slow) for number in ENDS[1:]),
    ],
)
def test_a_signal_ends_a_run_with_a_checkpoint(
    compose: Compose,
    tmp_path: Path,
    whole: Path,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    hook: str,
    step: int,
    number: int,
) -> None:
    settings = (*QUICK, *MODELS["amortised"])
    send = f"+callbacks.end={{_target_:{__name__}.Signal,hook:{hook},step:{step},number:{int(number)}}}"
    before = signal.getsignal(number)
    with pytest.raises(SystemExit) as ended:
        train(compose(*settings, send))
    assert ended.value.code == 128 + number
    assert signal.getsignal(number) is before
    assert f"ended by {signal.Signals(number).name}" in caplog.text
    assert f"hydra.run.dir={tmp_path / 'run'} ckpt_path=last" in capsys.readouterr().out
    train(compose(*settings, "ckpt_path=last"))
    assert_same_run(whole, tmp_path / "run")


def test_a_signal_that_was_ignored_stays_ignored(compose: Compose) -> None:
    send = f"+callbacks.end={{_target_:{__name__}.Signal,hook:on_train_batch_start,step:1,number:{int(signal.SIGHUP)}}}"
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert "test/accuracy" in train(compose(*QUICK, *MODELS["amortised"], send))
    finally:
        signal.signal(signal.SIGHUP, before)
