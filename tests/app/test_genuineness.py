"""Every run says whether it is target propagation."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from targetprop.app.callbacks.genuineness import verdict
from targetprop.app.overrides import check_overrides
from targetprop.app.run import train

SHORT = ("trainer.max_epochs=2", "trainer.limit_train_batches=2", "test=false", "logger=csv", "trainer.threads=1")


def run(folder: Path, *overrides: str) -> tuple[list[float], str]:
    """Its numbers in results.json, and its metrics."""
    train(check_overrides([*SHORT, f"output_dir={folder}", *overrides]))
    numbers = json.loads((folder / "results.json").read_text())["nonlinearity"]
    return numbers, (folder / "csv" / "metrics.csv").read_text()


def test_runs_keep_the_number_that_tells_target_propagation_from_mirrors(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    channels = "network.hparams.channels=[6,6,6]"
    caplog.set_level("INFO")
    genuine, metrics = run(tmp_path / "genuine", "model=amortised_dtp", channels)
    assert min(genuine[:2]) > 0.005
    assert max(genuine[2:]) < 1e-10
    assert "nonlinearity/block1" in metrics
    assert "How far targets are from linear" in caplog.text
    mirror, _ = run(tmp_path / "mirror", "model=delta_mirror", channels)
    assert max(mirror) < 1e-10
    assert "no activation is evaluated at a target" in caplog.text
    backprop, _ = run(tmp_path / "backprop", "model=backprop")
    assert backprop == []


def test_activations_that_do_not_suit_are_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    network = ("network=mlp", "network.hparams.hidden=[20,20]", "network.hparams.activation=relu")
    run(tmp_path, "model=amortised_dtp", *network)
    said = [line for line in caplog.messages if "degrees from backprop" in line]
    assert len(said) == len(set(said)) >= 1
    assert all("through ReLU" in line for line in said)


def test_the_verdict_names_every_block() -> None:
    assert verdict([0.0, 0.0]).endswith("for the learning rate.")
    assert verdict([0.0211, 0.0]).endswith("0.021, 0.000.")
