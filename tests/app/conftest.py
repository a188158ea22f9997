"""Runs as the command line makes them, small enough for a test."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import hydra
import pytest
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig

from targetprop.app.callbacks import feedback_figure, history, measures
from targetprop.app.overrides import CONF

Compose = Callable[..., DictConfig]
ITERATED = ("dtp", "layer_parallel_dtp", "vanilla_dtp", "lee_dtp", "tp", "parallel_dtp")
"""Models whose feedback learns by a loss, in iterations."""


NARROW = {"mlp": "hidden=[6,5]", "small_mlp": "hidden=[6,5]", "invertible_mlp": "depth=2", "rnn": "width=6",
          "decoder": "width=8", "vit": "width=8", "mlp_mixer": "width=8", "conv_mixer": "width=8",
          "cifar_resnet18": "width=4"}  # fmt: skip
"""What makes a network small that has no channels."""
USUAL = {"teacher": "small_mlp", "tiny_shakespeare": "decoder", "copying": "rnn", "adding": "rnn",
         "sequential_digits": "rnn"}  # fmt: skip
"""The networks of data sets that have others than the usual one."""


DRAWING = ((history, "draw_curves"), (measures, "draw_measures"), (feedback_figure, "draw_feedback"))


@pytest.fixture(autouse=True)
def _pictures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs draw none, which would take longer than all else of them, but for tests with the mark of this name."""
    if not request.node.get_closest_marker("pictures"):
        for module, name in DRAWING:
            monkeypatch.setattr(module, name, lambda *given, **named: None)


@pytest.fixture
def compose(tmp_path: Path) -> Compose:
    """Compose a configuration from overrides: a tiny network, few batches, files below tmp_path."""
    return partial(_compose, tmp_path)


@pytest.fixture(scope="module")
def compose_once(tmp_path_factory: pytest.TempPathFactory) -> Compose:
    """As `compose`, with files below a directory that the tests of a module share."""
    return partial(_compose, tmp_path_factory.mktemp("shared"))


def _compose(directory: Path, *overrides: str, output: str = "run") -> DictConfig:
    GlobalHydra.instance().clear()
    small = [
        f"output_dir={directory / output}",
        _narrow(overrides),
        "trainer.max_epochs=1",
        "trainer.limit_train_batches=3",
        "trainer.enable_progress_bar=false",
        "logger=csv",
    ]
    model = next((each for each in overrides if each.startswith("model=")), "model=dtp")
    if model.removeprefix("model=") in ITERATED:
        small.append("model.hparams.feedback_training_iterations=2")
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        return hydra.compose("config", [*small, *overrides])


def _narrow(overrides: Sequence[str]) -> str:
    data = next((each for each in overrides if each.startswith("datamodule=")), "").removeprefix("datamodule=")
    usual = f"network={USUAL[data]}" if data in USUAL else ""
    network = next((each for each in reversed(overrides) if each.startswith("network=")), usual)
    return f"network.hparams.{NARROW.get(network.removeprefix('network='), 'channels=[4,6]')}"
