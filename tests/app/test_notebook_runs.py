"""The course notebook's two complete settings, on a small network and small images."""

from __future__ import annotations

import csv
import importlib
import json
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig

from targetprop.app.overrides import check_overrides
from targetprop.app.run import train
from targetprop.utils.errors import UserError

SMALL = [
    "network.hparams.hidden=[20,16,12]", "datamodule=digits", "datamodule.mean=[0.3]", "datamodule.std=[0.4]",
    "trainer.enable_progress_bar=false", "logger=csv",
]  # fmt: skip


def settings(recipe: str, output: Path, *overrides: str) -> DictConfig:
    return check_overrides([f"reproduce={recipe}", *SMALL, f"output_dir={output}", *overrides])


def column(run: Path, name: str) -> list[float]:
    with (run / "csv" / "metrics.csv").open() as file:
        return [float(row[name]) for row in csv.DictReader(file) if row.get(name)]


def test_as_printed_only_the_output_layer_moves_and_accuracy_is_understated(tmp_path: Path) -> None:
    config = settings("cifar10_mlp_as_printed", tmp_path, "trainer.max_epochs=3")
    assert (config.datamodule.batch_size, config.datamodule.val_fraction) == (1024, 0.2)
    train(config)
    true, printed = column(tmp_path, "val/accuracy"), column(tmp_path, "val/accuracy_as_printed")
    assert printed[:3] == pytest.approx([each * 287 / 1024 for each in true[:3]], abs=1e-4)  # one batch, of 287 images
    assert column(tmp_path, "train/loss")[-1] < column(tmp_path, "train/loss")[0] < 0
    assert {each.name for each in (tmp_path / "checkpoints").iterdir()} == {"last.ckpt", "previous.ckpt"}
    checkpoint = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=False)
    assert checkpoint["global_step"] == 6  # of 1150 images, a full batch an epoch and the rest
    state = checkpoint["optimizer_states"][0]["state"]
    moments = [float(state[number]["square_avg"].abs().max()) for number in sorted(state)]
    assert [moment > 0 for moment in moments] == [False] * 6 + [True] * 2


@pytest.mark.parametrize("model", [[], ["model=backprop"]])
def test_with_targets_held_fixed_it_learns_the_digits(tmp_path: Path, model: list[str]) -> None:
    short = ["network.hparams.hidden=[100,100,100]", "datamodule.augmentation=null", "trainer.max_epochs=8"]
    rate = "model.hparams.f_optim.lr=1e-3"
    metrics = train(settings("cifar10_mlp_dtp", tmp_path, *short, rate, *model))
    assert metrics["test/accuracy"] > 0.8


def test_the_notebooks_own_numbers_are_part_of_it(tmp_path: Path) -> None:
    config = settings("cifar10_mlp_as_printed", tmp_path, "+model.hparams.beta=0.5")
    with pytest.raises(UserError, match=r"model\.hparams\.beta: model=as_printed has the notebook's numbers"):
        train(config)


def test_records_of_runs_keep_accuracies_and_epochs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    folders = [tmp_path / "1", tmp_path / "2"]
    for seed, folder in enumerate(folders, start=1):
        train(settings("cifar10_mlp_as_printed", folder, "trainer.max_epochs=2", f"seed={seed}"))
    path = tmp_path / "records.json"
    runs = ["--runs", "as printed", *map(str, folders)]
    picture = tmp_path / "records.png"
    importlib.import_module("runs").main(["record", *runs, "--json", str(path), "--picture", str(picture)])
    assert picture.stat().st_size > 10_000
    records = json.loads(path.read_text())["as printed"]
    assert [record["seed"] for record in records] == [1, 2]
    for record, folder in zip(records, folders, strict=True):
        assert record["epochs"]["val/accuracy"] == pytest.approx(column(folder, "val/accuracy")[:2], abs=1e-4)
        assert {len(values) for values in record["epochs"].values()} == {2}
    mean = 50 * sum(record["test"] for record in records)
    assert f"{mean:.2f} +- " in capsys.readouterr().out
    assert str(tmp_path) not in path.read_text()


def test_records_of_runs_on_all_training_images_have_no_validation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    train(settings("cifar10_mlp_as_printed", tmp_path, "trainer.max_epochs=1", "datamodule.val_fraction=0"))
    path = tmp_path / "records.json"
    importlib.import_module("runs").main(["record", "--runs", "all", str(tmp_path), "--json", str(path)])
    (record,) = json.loads(path.read_text())["all"]
    assert record["validation"] is None
    assert set(record["epochs"]) == {"train/loss", "train/accuracy"}
    assert f"{100 * record['test']:.2f}" in capsys.readouterr().out
