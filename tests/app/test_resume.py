"""A resumed run gives bit for bit what the uninterrupted one gives."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from identical import assert_identical
from omegaconf import DictConfig

from targetprop.app.callbacks.history import History
from targetprop.app.run import train

SETTINGS = [
    "trainer.max_epochs=4",
    "scheduler=cosine",
    "scheduler.T_max=4",
    "callbacks.best.save_top_k=-1",
    "callbacks.best.filename='{epoch}'",
]


RESIDUAL = ["model=delta_mirror", "network=resnet18", "network.hparams.blocks=[1,1]"]


@pytest.mark.parametrize("model", [["model=dtp"], ["model=backprop"], RESIDUAL], ids=["dtp", "backprop", "residual"])
def test_resumed_run_equals_the_uninterrupted_one(
    compose: Callable[..., DictConfig], tmp_path: Path, model: list[str]
) -> None:
    train(compose(*SETTINGS, *model, output="whole"))
    middle = tmp_path / "whole" / "checkpoints" / "epoch=1.ckpt"
    train(compose(*SETTINGS, *model, f"ckpt_path='{middle}'", output="resumed"))
    whole, resumed = (load_last(tmp_path / run) for run in ("whole", "resumed"))
    assert whole["epoch"] == resumed["epoch"] == 3
    assert whole["global_step"] == resumed["global_step"] == 12
    for part in ("state_dict", "optimizer_states", "lr_schedulers"):
        assert_identical(whole[part], resumed[part], part)
    rows = whole["callbacks"]["History"]["epochs"], resumed["callbacks"]["History"]["epochs"]
    assert [without_times(row) for row in rows[0]] == [without_times(row) for row in rows[1]]


def test_a_killed_run_goes_on_to_the_same_results(
    compose: Callable[..., DictConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ["trainer.max_epochs=6", "scheduler=cosine", "model.hparams.f_optim.lr=1"]
    train(compose(*settings, output="whole"))
    scores = [row["val/accuracy"] for row in load_last(tmp_path / "whole")["callbacks"]["History"]["epochs"]]
    killed_after = scores.index(max(scores)) + 1
    assert killed_after < 6, "the best epoch must lie before the kill, or there is nothing to remember"

    start_epoch = History.on_train_epoch_start

    def killed(self: History, trainer: L.Trainer, module: L.LightningModule) -> None:
        if trainer.current_epoch == killed_after:
            raise RuntimeError("killed")
        start_epoch(self, trainer, module)

    with monkeypatch.context() as patched:
        patched.setattr(History, "on_train_epoch_start", killed)
        with pytest.raises(RuntimeError, match="killed"):
            train(compose(*settings, output="killed"))
    train(compose(*settings, f"ckpt_path='{tmp_path / 'killed' / 'checkpoints' / 'last.ckpt'}'", output="resumed"))
    whole, resumed = (json.loads((tmp_path / run / "results.json").read_text()) for run in ("whole", "resumed"))
    for part in ("validation", "test"):
        assert whole[part] == resumed[part]


def test_same_seed_gives_the_same_run_and_another_seed_another(
    compose: Callable[..., DictConfig], tmp_path: Path
) -> None:
    for run, seed in (("first", 1), ("second", 1), ("third", 2)):
        train(compose(f"seed={seed}", output=run))
    first, second, third = (load_last(tmp_path / run)["state_dict"] for run in ("first", "second", "third"))
    assert_identical(first, second, "state_dict")
    name = "learner.network.pairs.1.feedback.parts.0.map.weight"
    assert not torch.equal(first[name], third[name])


def test_a_run_may_move_and_says_where_it_has_been(
    compose: Callable[..., DictConfig], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """To another device, or to graphs and back: here from a checkpoint that says it was made on a GPU."""
    train(compose("trainer.max_epochs=2", "scheduler=cosine"))
    checkpoint = tmp_path / "run" / "checkpoints" / "last.ckpt"
    saved = torch.load(checkpoint, weights_only=True)
    here = {"epochs": 0, "device": "CPU", "cuda_graph": False}
    assert saved["targetprop"]["places"] == [here]
    elsewhere = {"epochs": 0, "device": "Some GPU", "cuda_graph": True}
    saved["targetprop"].update(places=[elsewhere], sealed=False)
    saved["targetprop"]["config"]["trainer"]["cuda_graph"] = True
    torch.save(saved, checkpoint)
    train(compose("trainer.max_epochs=3", "scheduler=cosine", f"ckpt_path='{checkpoint}'", output="moved"))
    assert "moves from Some GPU with CUDA graphs to CPU" in caplog.text
    results = json.loads((tmp_path / "moved" / "results.json").read_text())
    assert results["places"] == [elsewhere, {**here, "epochs": 2}]
    assert load_last(tmp_path / "moved")["targetprop"]["places"] == results["places"]
    caplog.clear()
    again = tmp_path / "moved" / "checkpoints" / "last.ckpt"
    train(compose("trainer.max_epochs=4", "scheduler=cosine", f"ckpt_path='{again}'", output="stayed"))
    assert "moves" not in caplog.text
    assert load_last(tmp_path / "stayed")["targetprop"]["places"] == results["places"]


@pytest.mark.gpu
@pytest.mark.parametrize("model", ["amortised_dtp", "dtp"])
def test_a_run_moves_to_a_gpu_and_back(compose: Callable[..., DictConfig], tmp_path: Path, model: str) -> None:
    places = (("cpu", "0", "false"), ("graphs", "1", "true"), ("back", "0", "false"))
    start: list[str] = []
    for epochs, (output, gpus, graph) in enumerate(places, start=1):
        there = [f"trainer.gpus={gpus}", f"trainer.cuda_graph={graph}", f"trainer.max_epochs={epochs}"]
        train(compose(f"model={model}", "scheduler=cosine", *there, *start, output=output))
        start = [f"ckpt_path='{tmp_path / output / 'checkpoints' / 'last.ckpt'}'"]
    been = load_last(tmp_path / "back")["targetprop"]["places"]
    assert [(each["epochs"], each["cuda_graph"]) for each in been] == [(0, False), (1, True), (2, False)]


def load_last(run: Path) -> dict[str, Any]:
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=False)


def without_times(row: dict[str, float]) -> dict[str, float]:
    return {key: value for key, value in row.items() if key != "seconds"}
