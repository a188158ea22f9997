"""Rules that were published for multi-layer perceptrons learn the digits on one, with the numbers of their models."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

MAIN = Path(__file__).parents[1] / "main.py"
LEAST = {
    "fw_dtp": 0.95,
    "fw_dtp network.hparams.norm=all": 0.95,
    "itp": 0.95,
    "itp network.hparams.norm=hidden": 0.95,
    "shibuya_tp": 0.93,
    "shibuya_dtp": 0.93,
    "shibuya_drl": 0.93,
    "shibuya_l_drl": 0.93,
    "analytic_dtp": 0.95,
}
"""Test accuracy that is asked for, by what is chosen; chance is .1."""


@pytest.mark.slow
@pytest.mark.parametrize("chosen", LEAST)
def test_on_a_multi_layer_perceptron(chosen: str, tmp_path: Path) -> None:
    options = ["network=mlp", "trainer.threads=1", "trainer.enable_progress_bar=false", f"hydra.run.dir={tmp_path}"]
    command = [sys.executable, str(MAIN), *f"model={chosen}".split(), *options]
    subprocess.run(command, check=True, capture_output=True)
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["test"]["accuracy"] > LEAST[chosen]
