"""A class at every place of a sequence, through the whole stack: bits per token where accuracy stands elsewhere."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from omegaconf import DictConfig
from rich.console import Console
from torch import nn

from targetprop.app.checkpoint import files
from targetprop.app.described import Described, describe
from targetprop.app.fitting import refuse_misfit
from targetprop.app.objects import build
from targetprop.app.run import train
from targetprop.app.task import Classification, Regression, Task, score_of, searched, worst
from targetprop.app.tokens import Tokens
from targetprop.utils.errors import UserError
from targetprop.utils.losses import token_cross_entropy

Compose = Callable[..., DictConfig]
COPYING = ["model=backprop", "datamodule=copying", "datamodule.load.wait=3", "datamodule.load.copied=2",
           "datamodule.load.train=300", "datamodule.load.test=100", "datamodule.batch_size=20"]  # fmt: skip


@pytest.mark.pictures
def test_a_run_tells_bits_in_its_files_and_in_what_it_prints(
    compose: Compose, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = compose(*COPYING, "trainer.max_epochs=3", "trainer.limit_train_batches=13", "callbacks=early_stopping")
    metrics = train(config)
    said = " ".join(capsys.readouterr().out.split())
    assert "Bits per token" in said
    results = json.loads((tmp_path / "run/results.json").read_text())
    assert metrics["test/bits"] == results["test"]["bits"]
    for part in ("validation", "test"):
        bits, perplexity, loss = (results[part][name] for name in ("bits", "perplexity", "loss"))
        assert perplexity == pytest.approx(2**bits, rel=1e-5)
        assert loss == pytest.approx(bits * math.log(2), rel=1e-5)
        assert 0 < bits < math.log2(10) + 0.5
    with (tmp_path / "run/csv/metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    bits = [float(row["val/bits"]) for row in rows if row["val/bits"]]
    assert min(bits[:3]) == pytest.approx(results["validation"]["bits"], rel=1e-5)
    assert bits[2] < bits[0]
    trained = [row for row in rows if row["train/bits"]]
    for row in trained:
        assert float(row["train/loss"]) == pytest.approx(float(row["train/bits"]) * math.log(2), rel=1e-5)
    assert len(trained) == 3
    assert (tmp_path / "run/curves.png").is_file()
    assert not [key for key in rows[0] if "accuracy" in key]


def test_evaluation_is_that_of_all_tokens() -> None:
    task = Tokens("val/bits", "min", unit="letter")
    metrics = task.evaluation_metrics(4)
    outputs, tokens = torch.randn(10, 6, 4), torch.randint(4, (10, 6))
    for part in (slice(0, 7), slice(7, 10)):  # of two sizes
        metrics.update(outputs[part], tokens[part])
    values = metrics.compute()
    assert float(values["loss"]) == pytest.approx(float(token_cross_entropy(outputs, tokens)), rel=1e-5)
    result = task.result(values, metrics)
    console = Console(record=True, width=80)
    console.print(task.table({"test": result}, (), ""))
    printed = console.export_text()
    assert f"{result.bits:.4f}" in printed
    assert "bits per letter" in printed
    assert task.score.title == "bits per letter"
    assert [curve.name for curve in task.curves] == ["bits", "loss"]


def described(**facts: Any) -> Described:
    return Described((3,), 4)._replace(**facts)


LABELLED = {"classes": tuple("abcd")}


@pytest.mark.parametrize(
    ("task", "facts", "loss", "message"),
    [
        (Tokens, LABELLED, token_cross_entropy, "^task: tokens needs .* one label for each example; set task=class"),
        (Tokens, {}, token_cross_entropy, "^task: tokens needs .* numbers to be met; set task=regression"),
        (Classification, {**LABELLED, "places": 3}, F.cross_entropy, "^task: .* for every place; set task=tokens"),
        (Regression, {**LABELLED, "places": 3}, F.mse_loss, "^task: .* set task=tokens"),
        (Tokens, {**LABELLED, "places": 3}, F.cross_entropy, "^model.loss: expected a loss of outputs .batch, time"),
        (Tokens, {**LABELLED, "places": 3}, F.mse_loss, "^model.loss: expected a loss of outputs .batch, time"),
    ],
)
def test_data_and_losses_of_another_task_are_refused_by_its_name(
    task: Callable[[str, str], Task], facts: dict[str, Any], loss: Any, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        task("val/loss", "min").check(described(**facts), loss)


def test_the_score_of_a_task_says_what_is_better() -> None:
    bits = score_of({"task": {"_target_": "targetprop.app.tokens.Tokens", "monitor": "val/bits", "mode": "min"}})
    assert (bits.sign, bits.name, bits.unit) == (-1, "bits", "bits")
    assert bits.reaches(1.2, 1.3)
    assert not bits.reaches(1.4, 1.3)
    accuracy = score_of({})
    assert (accuracy.shown(0.5), accuracy.difference(0.01, 0.002)) == ("50.00 %", "+1.00 ± 0.20")
    assert accuracy.reaches(0.9, 0.8)
    task = Tokens("val/bits", "min")
    metrics = {"validation/bits": 2.0, "test/bits": 1.0, "test/perplexity": 2.0}
    assert [searched(metrics, each, task) for each in (None, "test/bits", "val/bits")] == [2.0, 1.0, 2.0]
    assert [worst(each, task) for each in (None, "test/perplexity")] == [math.inf, math.inf]


def test_the_checkpoint_of_the_fewest_bits_is_kept_and_others_are_no_metrics(compose: Compose, tmp_path: Path) -> None:
    config = compose(*COPYING, "callbacks.best.monitor=val/accuracy")
    with pytest.raises(UserError, match=r"^callbacks.best.monitor: unknown value 'val/accuracy'"):
        train(config)
    train(compose(*COPYING))
    kept = files.read(tmp_path / "run/checkpoints/best.ckpt")["callbacks"]
    monitored = [key for key in kept if "val/bits" in key]
    assert monitored
    assert "'min'" in monitored[0]


def test_what_networks_are_told_of_data(compose: Compose) -> None:
    copying = describe(build(compose(*COPYING).datamodule))
    assert (copying.facts, copying.outputs, copying.shape) == ({"vocabulary": 10, "places": 7}, 10, (7,))
    small = compose("datamodule=adding", "datamodule.load.train=20", "datamodule.load.test=5")
    adding = describe(build(small.datamodule))
    assert adding.facts == {"vocabulary": None, "places": None}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["datamodule=copying", "network=mlp"], r"^network: it cannot take this data's inputs of \(40,\) tokens: "),
        (["datamodule=adding", "network=decoder"], "^network: it cannot take this data: expected sequences of tokens"),
        (["datamodule=digits", "network=rnn"], r"^network: .* expected sequences, \(time, features\)"),
        (["datamodule=sequential_digits", "network=vit"], "^network: it cannot take this data: expected images"),
        (["datamodule=copying", "task=classification"], "^task: classification needs .* set task=tokens"),
        (["datamodule=adding", "network=simple_vgg"], "takes images"),
    ],
)
def test_networks_that_are_for_other_data_are_refused_in_one_line(
    compose: Compose, overrides: list[str], message: str
) -> None:
    with pytest.raises(UserError, match=message) as refused:
        train(compose("model=backprop", *overrides))
    assert "\n" not in str(refused.value)


def test_outputs_that_no_target_is_for_are_refused() -> None:
    with pytest.raises(UserError, match=r"^network: expected outputs of \(3,\) .* got \(4,\) for inputs of \(5,\)"):
        refuse_misfit(nn.Linear(5, 4), torch.zeros(2, 5), (3,))
    with pytest.raises(UserError, match=r"^network: it cannot take this data's inputs of \(6,\): "):
        refuse_misfit(nn.Linear(5, 4), torch.zeros(2, 6), (4,))
    norm = nn.Sequential(nn.BatchNorm1d(5), nn.Linear(5, 4))
    refuse_misfit(norm, torch.ones(2, 5), (4,))
    assert norm.training
    assert not norm[0].running_mean.any()  # type: ignore[operator]
