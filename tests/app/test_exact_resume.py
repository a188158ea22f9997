"""A run that is ended anywhere and goes on gives, bit for bit, what the uninterrupted one gives."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]

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
WALL_CLOCK = ("seconds", "elapsed")

MODELS = {
    "dtp": ["model=dtp"],
    "amortised": ["model=amortised_dtp"],
    "backprop with dropout": ["model=backprop", "+network.hparams.dropout=0.2"],
    "batch norm": ["model=amortised_dtp", "network=norm_vgg"],
    "schedule by steps": ["model=amortised_dtp", "scheduler=one_cycle"],
    "closed form": ["model=closed_form_dtp"],
}


@pytest.mark.parametrize("name", ["dtp", "amortised", "schedule by steps"])
def test_a_run_goes_on_from_any_step(compose: Compose, tmp_path: Path, name: str) -> None:
    settings = (*QUICK, *MODELS[name])
    train(compose(*settings, EVERY_STEP % (tmp_path / "steps"), output="whole"))
    for step in range(1, STEPS * EPOCHS):
        train(compose(*settings, f"ckpt_path='{tmp_path}/steps/{step}.ckpt'", output=f"from_{step}"))
        assert_same_run(tmp_path / "whole", tmp_path / f"from_{step}", metrics=False)


def assert_same_run(whole: Path, other: Path, *, metrics: bool = True) -> None:
    """Equal weights, states, measurements and results, and all that was logged, but for clocks and places."""
    first, second = (torch.load(run / "checkpoints/last.ckpt", weights_only=True) for run in (whole, other))
    for part in ("state_dict", "optimizer_states", "lr_schedulers", "loops", "global_step"):
        assert_identical(first[part], second[part], part)
    own = [
        {key: state for key, state in each["callbacks"].items() if "Checkpoint" not in key} for each in (first, second)
    ]
    assert_identical(own[0], own[1], "callbacks")
    if metrics:
        assert rows_of(whole) == rows_of(other)
        assert scalars_of(whole) == scalars_of(other)


def rows_of(run: Path) -> list[dict[str, str]]:
    with (run / "csv/metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def scalars_of(run: Path) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    return {tag: [(each.step, each.value) for each in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def assert_identical(a: Any, b: Any, where: str) -> None:
    assert type(a) is type(b), where
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            if key not in WALL_CLOCK:
                assert_identical(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_identical(x, y, f"{where}[{i}]")
    else:
        assert a == b, where
