"""A checkpoint that anybody may have written is taken over only if everything in it has its form."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig

from targetprop import UserError
from targetprop.app.checkpoint.files import WholeFiles, read
from targetprop.app.run import train

Compose = Callable[..., DictConfig]
SHORT = ("trainer.max_epochs=2", "trainer.limit_train_batches=3", "trainer.limit_val_batches=1", "trainer.threads=1",
         "callbacks.last.every_n_steps=2", "callbacks=early_stopping", "logger=csv")  # fmt: skip
WEIGHTS = "learner._extra_state"
GONE = object()
ROWS = ("callbacks", "History", "epochs")
FORGED: dict[str, tuple[tuple[Any, ...], object]] = {
    "a counter of another kind": (("loops", "fit_loop", "epoch_progress", "total", "ready"), torch.tensor([1, 1])),
    "a counter that is not there": (("loops", "fit_loop", "epoch_progress", "total", "ready"), GONE),
    "a counter below zero": (("loops", "fit_loop", "epoch_loop.scheduler_progress", "total", "ready"), -1),
    "rows that are none": (ROWS, torch.tensor([1])),
    "a row without numbers": (ROWS, [{"epoch": "one"}]),
    "a score that is no tensor": (("callbacks", "BestCheckpoint", "current_score"), float("nan")),
    "patience that is a word": (("callbacks", "EarlyStopping", "wait_count"), "two"),
    "files of loggers": (("targetprop", "running", "journals"), "abc"),
    "a random state": (("targetprop", "running", "random", "cpu"), torch.zeros(3)),
    "momentum of another shape": (("optimizer_states", 0, "state", 0, "momentum_buffer"), torch.zeros(3)),
    "momentum of no parameter": (("optimizer_states", 0, "state", "0?"), {"momentum_buffer": torch.zeros(3)}),
    "momentum of feedback": (
        ("state_dict", WEIGHTS, "feedback", "blocks", 1, "state", 0, "momentum_buffer"), torch.zeros(3)
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def half(compose_once: Compose) -> Path:
    """The checkpoint of a run that has one of its two epochs behind it."""
    config = compose_once(*SHORT, "model=dtp", "trainer.max_epochs=1")
    train(config)
    return Path(config.output_dir, "checkpoints", "last.ckpt")


def forge(source: Path, target: Path, path: tuple[Any, ...], value: object) -> None:
    """Copy a checkpoint with another value at a path; callbacks stand there by the beginnings of their keys."""
    saved: dict[str, Any] = read(source)
    node: Any = saved
    for key in path[:-1]:
        if node is saved["callbacks"]:
            key = next(each for each in node if each.startswith(key))
        node = node[key]
    if value is GONE:
        del node[path[-1]]
    else:
        node[path[-1]] = value
    WholeFiles().save_checkpoint(saved, target)


@pytest.mark.parametrize("name", FORGED)
def test_what_has_another_form_is_refused_in_one_line_that_names_the_file(
    compose: Compose, tmp_path: Path, half: Path, name: str
) -> None:
    forge(half, tmp_path / "given.ckpt", *FORGED[name])
    with pytest.raises(UserError) as refusal:
        train(compose(*SHORT, "model=dtp", f"ckpt_path='{tmp_path / 'given.ckpt'}'"))
    assert str(refusal.value).startswith("ckpt_path: ")
    assert "given.ckpt" in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_copy_in_which_nothing_is_changed_goes_on(compose: Compose, tmp_path: Path, half: Path) -> None:
    saved = read(half)
    forge(half, tmp_path / "given.ckpt", ("global_step",), saved["global_step"])
    assert "test/accuracy" in train(compose(*SHORT, "model=dtp", f"ckpt_path='{tmp_path / 'given.ckpt'}'"))
