"""What is typed by habit, as whole runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers.logger import Logger
from omegaconf import DictConfig

from targetprop.app.run import train
from targetprop.app.task import Classification, Regression, searched, worst
from targetprop.utils.errors import UserError

Compose = Callable[..., DictConfig]
SHORT = ("model=backprop", "trainer.limit_val_batches=1")


class Unwilling(Logger):
    """One that wants an account."""

    name, version = "unwilling", None

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        raise RuntimeError("api_key not configured\nlog in first")

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None: ...

    def log_metrics(self, metrics: Any, step: int | None = None) -> None: ...


HABITS = (
    "debug=fdr",
    "debug=default",
    "debug=profiler",
    "+trainer.deterministic=true",
    "+trainer.accumulate_grad_batches=2 callbacks.alignment=null",
    "scheduler=none",
    "logger=none",
    "trainer.fast_dev_run=true logger=default",
)


@pytest.mark.parametrize("habit", HABITS)
def test_a_habit_is_a_run(compose: Compose, habit: str) -> None:
    try:
        assert "test/accuracy" in train(compose(*SHORT, *habit.split(), "model=dtp"))
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.pictures
def test_a_limited_run_leaves_everything_behind(compose: Compose, tmp_path: Path) -> None:
    train(compose(*SHORT, "debug=limit"))
    left = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"config.yaml", "csv", "checkpoints", "curves.png", "results.json"} <= left


def test_a_logger_that_cannot_begin_is_one_line_before_anything_is_lost(compose: Compose, tmp_path: Path) -> None:
    unwilling = f"+logger.unwilling._target_={__name__}.Unwilling"
    with pytest.raises(UserError, match=r"^logger\.unwilling: it cannot begin: api_key not configured log in first$"):
        train(compose(*SHORT, unwilling))
    assert not (tmp_path / "run/checkpoints/last.ckpt").exists()


def test_a_search_looks_at_what_it_is_told_to() -> None:
    metrics = {"validation/accuracy": 0.5, "test/accuracy": 0.25, "validation_mirror/accuracy": 0.75}
    for wanted, value in (
        (None, 0.5), ("test/accuracy", 0.25), ("val/accuracy", 0.5), ("val_mirror/accuracy", 0.75), ("test/r2", None),
    ):  # fmt: skip
        assert searched(metrics, wanted, Classification("val/accuracy", "max")) == value
    assert [worst(each, Classification("val/accuracy", "max")) for each in (None, "test/accuracy")] == [0.0, 0.0]
    assert [worst(each, Regression("val/loss", "min")) for each in (None, "val/mse")] == [0.0, float("inf")]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["optimized_metric=val/acc"], "Did you mean 'validation/accuracy'"),
        (["optimized_metric=test/r2"], "unknown value"),
        (["optimized_metric=val/accuracy", "datamodule.val_fraction=0"], "Valid: test/accuracy"),
        (["optimized_metric=test/accuracy", "test=false"], "set test=true"),
    ],
)
def test_a_search_cannot_look_at_what_is_not_measured(compose: Compose, settings: list[str], words: str) -> None:
    with pytest.raises(UserError, match=rf"^optimized_metric: .*{words}"):
        train(compose(*SHORT, *settings))


@pytest.mark.pictures
def test_curves_say_what_they_are_of(compose: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    titles: list[str] = []
    monkeypatch.setattr("matplotlib.figure.Figure.suptitle", lambda figure, title, **_: titles.append(title))
    train(compose(*SHORT, "+callbacks.history.redraw_seconds=0"))
    assert titles[-1].startswith("backprop simple_vgg digits: best validation accuracy ")
    train(compose(*SHORT, "datamodule=teacher", "datamodule.load.train=500", "task_name=$mine", output="two"))
    assert titles[-1].startswith("$mine: best validation loss ")
    train(compose(*SHORT, "datamodule.val_fraction=0", output="three"))
    assert ": training accuracy " in titles[-1]
