"""A network of numbers that are not finite is never evaluated, whatever watches the training."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig

from targetprop.app.errors import DivergenceError
from targetprop.app.finite import first_not_finite
from targetprop.app.run import train
from targetprop.utils.errors import UserError

Compose = Callable[..., DictConfig]
HOT = ("model.hparams.f_optim.lr=1e30", "trainer.max_epochs=2")
NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize("unwatched", ["callbacks=none", "callbacks.divergence=null"])
@pytest.mark.parametrize("validated", ["datamodule.val_fraction=0.1", "datamodule.val_fraction=0"])
@pytest.mark.parametrize("model", ["dtp", "backprop"])
def test_a_run_that_diverged_ends_in_an_error_though_nothing_watched_it(
    compose: Compose, tmp_path: Path, unwatched: str, validated: str, model: str
) -> None:
    with pytest.raises(DivergenceError, match="not finite"):
        train(compose(f"model={model}", *HOT, unwatched, validated))
    assert not (tmp_path / "run" / "results.json").exists()


def test_a_run_that_evaluates_nothing_does_not_end_well_either(compose: Compose) -> None:
    with pytest.raises(DivergenceError, match="not finite"):
        train(compose(*HOT, "callbacks=none", "datamodule.val_fraction=0", "test=false"))


@pytest.mark.parametrize("value", [NAN, INF, -INF])
@pytest.mark.parametrize("callbacks", ["callbacks=default", "callbacks=none"])
def test_a_checkpoint_of_such_weights_is_not_evaluated(
    compose: Compose, tmp_path: Path, value: float, callbacks: str
) -> None:
    train(compose())
    path = tmp_path / "run" / "checkpoints" / "last.ckpt"
    saved = torch.load(path, weights_only=True)
    name = next(name for name, each in saved["state_dict"].items() if isinstance(each, torch.Tensor) and each.ndim > 1)
    saved["state_dict"][name].view(-1)[3] = value
    bare = {"state_dict": saved["state_dict"]}
    torch.save(bare, tmp_path / "bad.ckpt")
    with pytest.raises(
        UserError, match=r"weights of block 1 \(Conv2d, ELU, MaxPool2d\)|0\.block\.0\.weight is not finite"
    ):
        train(compose("train=false", f"ckpt_path={tmp_path / 'bad.ckpt'}", callbacks, output="evaluated"))
    assert not (tmp_path / "evaluated" / "results.json").exists()


def test_finite_weights_whose_outputs_are_not_have_no_accuracy_either(compose: Compose, tmp_path: Path) -> None:
    train(compose())
    saved = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    state = {
        k: v * 1e30 if isinstance(v, torch.Tensor) and v.is_floating_point() else v
        for k, v in saved["state_dict"].items()
    }
    assert first_not_finite(state) is None
    torch.save({"state_dict": state}, tmp_path / "bad.ckpt")
    with pytest.raises(DivergenceError, match="an output of the network on val images"):
        train(compose("train=false", f"ckpt_path={tmp_path / 'bad.ckpt'}", "views=mirror"))


def test_an_evaluation_does_not_remember_the_one_before_it(compose: Compose, tmp_path: Path) -> None:
    train(compose("callbacks=none"))
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert 0 < results["test"]["accuracy"] < 1


def test_the_first_tensor_that_is_not_finite_is_named() -> None:
    good = torch.ones(3)
    assert first_not_finite({}) is None
    assert first_not_finite({"a": good, "b": torch.tensor(1), "c": 5.0, "d": {"e": good}, "f": torch.empty(0)}) is None
    for value in (NAN, INF):
        bad = torch.tensor([1.0, value])
        assert first_not_finite({"a": good, "b": bad, "c": bad}) == "b"
        assert first_not_finite({"a": good, "b": {"c": good, "d": {"e": bad}}}) == "b.d.e"
    assert first_not_finite({"mask": torch.tensor([0.0, -INF])}) is None
