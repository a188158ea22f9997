"""Runs on data sets of the user's own, and on a random teacher: by the command line's settings, from end to end."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig

from targetprop.app.overrides import check_overrides
from targetprop.app.run import check_configuration, train
from targetprop.utils.errors import UserError

Compose = Callable[..., DictConfig]
LONG = ("trainer.max_epochs=6", "trainer.limit_train_batches=1.0", "trainer.threads=1")


def own(name: str, *more: str) -> list[str]:
    return ["datamodule=own", f"datamodule.dataset=own_data.{name}", "datamodule.batch_size=20", *more]


@pytest.mark.parametrize(
    ("name", "network"),
    [("vectors", "mlp"), ("sequences", "mlp"), ("images", "mlp"), ("images", "tiny_vgg"), ("without_test", "mlp")],
)
def test_labelled_data_sets_train(compose: Compose, name: str, network: str) -> None:
    """The network sizes itself by the data, whatever the shape."""
    metrics = train(compose(*own(name, f"network={network}"), *LONG))
    assert metrics["validation/accuracy"] > 0.8  # chance is .33
    assert ("test/accuracy" in metrics) == (name != "without_test")


@pytest.mark.parametrize("model", ["dtp", "amortised_dtp", "lee_dtp", "delta_mirror", "backprop"])
def test_numbers_are_met(compose: Compose, tmp_path: Path, model: str) -> None:
    overrides = own("numbers", "task=regression", "network=mlp", f"model={model}", "model.hparams.f_optim.lr=0.05")
    metrics = train(compose(*overrides, *LONG))
    assert metrics["test/r2"] > 0.8
    assert metrics["test/mse"] < 0.7  # of 3
    results = json.loads((tmp_path / "run/results.json").read_text())
    assert results["test"] == {"mse": metrics["test/mse"], "r2": metrics["test/r2"]}


@pytest.fixture
def regression(compose: Compose, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> tuple[Path, str]:
    """A run on the teacher, and what it printed."""
    train(
        compose("datamodule=teacher", "datamodule.load.train=1000", "trainer.max_epochs=2", "callbacks=early_stopping")
    )
    return tmp_path / "run", capsys.readouterr().out


def test_nothing_speaks_of_accuracy_where_there_is_none(regression: tuple[Path, str]) -> None:
    folder, printed = regression
    texts = [
        printed,
        *(path.read_text() for path in folder.rglob("*") if path.suffix in (".json", ".csv", ".yaml", ".log")),
    ]
    assert len(texts) > 3
    assert not [text for text in texts if "accuracy" in text.lower()]
    assert "mean squared error" in printed


@pytest.mark.pictures
def test_the_best_checkpoint_is_that_of_the_least_error(regression: tuple[Path, str]) -> None:
    folder, _ = regression
    with (folder / "csv/metrics.csv").open(newline="") as file:
        errors = [float(row["val/loss"]) for row in csv.DictReader(file) if row.get("val/loss")]
    results = json.loads((folder / "results.json").read_text())
    assert results["validation"]["mse"] == pytest.approx(min(errors), rel=1e-5)
    assert results["validation"]["r2"] == pytest.approx(1 - min(errors), abs=0.1)
    assert (folder / "curves.png").stat().st_size > 1000


def test_targets_far_from_0_lose_nothing(compose: Compose) -> None:
    """In single precision the sums behind R^2 would be off by more than its value."""
    metrics = train(compose(*own("one_number", "task=regression", "network=mlp"), "model.hparams.f_optim.lr=0.0"))
    assert metrics["validation/r2"] == pytest.approx(-(metrics["validation/mse"] / 6), rel=0.5)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["datamodule=own"], r"^datamodule\.dataset: expected text, got None"),
        (own("nothing"), r"^datamodule\.dataset: own_data\.nothing gives no data set: .*nothing"),
        (own("failing"), r"^datamodule\.dataset: own_data\.failing gives no data set: FileNotFoundError: data\.csv"),
        (own("vectors", "+datamodule.arguments.size=3"), r"^datamodule\.dataset: .*unexpected keyword argument 'size'"),
        (own("stream"), r"^datamodule\.dataset: the training set: expected a Dataset with a length"),
        (own("labels_out_of_range"), r"^datamodule\.dataset: the training set: expected labels in 0\.\.1, got -1"),
        (own("numbers"), "^task: classification needs labels, .*; set task=regression"),
        (own("vectors", "task=regression"), "^task: regression needs numbers .*; set task=classification"),
        (own("vectors", "network=lenet"), r"an input of 5"),
        (own("vectors", "network=mlp", "views=mirror"), r"^views: expected null, since inputs of \(5,\) are no images"),
        (
            own("vectors", "network=mlp", "datamodule.batch_size=5000"),
            "5000 is larger than .* 270 examples",
        ),
        (own("vectors", "datamodule.classes=2"), r"^datamodule\.dataset: .* expected labels in 0\.\.1, got 2"),
        (
            own("numbers", "task=regression", "network=mlp", "model=as_printed"),
            "^model.loss: expected a loss of num",
        ),
        (own("numbers", "task=regression", "callbacks=legacy"), r"^callbacks\.accuracy_floor: it reads train/accuracy"),
        (["datamodule=teacher", "callbacks.best.monitor=val/accuracy"], r"^callbacks\.best\.monitor: .*val/r2"),
        (["datamodule=teacher", "datamodule.load.hidden=3"], r"^datamodule\.load\.hidden: expected a list of whole"),
        (["datamodule=teacher", "network=lenet"], "an input of 16"),
        (["datamodule=cifar100", "datamodule.load.labels=rough"], r"^datamodule\.load\.labels: .*rough"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(tmp_path: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message) as refused:
        train(check_overrides([*overrides, f"output_dir={tmp_path}", "trainer.max_epochs=1"]))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["cifar100", "svhn", "tiny_imagenet", "teacher"])
def test_new_data_sets_fit_the_default_model(name: str) -> None:
    check_configuration(check_overrides([f"datamodule={name}", "output_dir=nowhere"]))
