"""Networks that other people defined, on the command line, by rules of every kind."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig

from targetprop.app.run import train
from targetprop.utils.errors import UserError

Compose = Callable[..., DictConfig]
DIGITS = ["datamodule.batch_size=16", "trainer.limit_val_batches=1"]
SMALL = {
    "cifar_resnet18": DIGITS,
    "conv_mixer": ["network.hparams.depth=2", *DIGITS],
    "mlp_mixer": ["network.hparams.depth=2", "network.hparams.channel_hidden=16", *DIGITS],
    "vit": ["network.hparams.depth=2", "network.hparams.hidden=16", *DIGITS],
    "decoder": ["datamodule=tiny_shakespeare", "network.hparams.depth=1", "datamodule.load.length=8"],
    "rnn": ["datamodule=adding", "datamodule.load.length=6", "datamodule.load.train=400", "datamodule.load.test=50"],
}
FEW = ["trainer.limit_train_batches=2", "trainer.limit_test_batches=2", "callbacks=none", "logger=none"]


@pytest.fixture
def text(tmp_path: Path) -> str:
    """A text in place of the published one, and where it is."""
    folder = tmp_path / "data/tiny_shakespeare"
    folder.mkdir(parents=True)
    (folder / "input.txt").write_text("Speak, speak. Before we proceed any further, hear me speak.\n" * 200)
    return f"data_dir={tmp_path / 'data'}"


@pytest.mark.filterwarnings("ignore:Tiny Shakespeare")
@pytest.mark.parametrize("model", ["backprop", "amortised_dtp", "delta_mirror"])
@pytest.mark.parametrize("network", SMALL)
def test_they_train(compose: Compose, text: str, network: str, model: str) -> None:
    overrides = [f"model={model}", f"network={network}", text, *SMALL[network]]
    metrics = train(compose(*overrides, *FEW))
    assert metrics
    assert all(map(math.isfinite, metrics.values()))


@pytest.mark.parametrize("model", ["tptt", "tpri", "tpri_linearized", "backprop"])
@pytest.mark.parametrize("data", ["adding", "copying", "sequential_digits"])
def test_recurrent_ones_train_by_targets_through_time(compose: Compose, data: str, model: str, tmp_path: Path) -> None:
    small = [] if data == "sequential_digits" else ["datamodule.load.train=400", "datamodule.load.test=50"]
    train(compose(f"model={model}", f"datamodule={data}", *small, *FEW))
    assert json.loads((tmp_path / "run/results.json").read_text())["test"]


@pytest.mark.parametrize("model", ["tptt", "tpri"])
def test_others_than_tanh_units_are_refused(compose: Compose, model: str) -> None:
    overrides = [f"model={model}", "datamodule=adding", "network.hparams.cell=gru"]
    with pytest.raises(UserError, match=r"^network: expected a recurrent layer of tanh units.*got Gated and Linear"):
        train(compose(*overrides))
