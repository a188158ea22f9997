"""A run from configuration to results, and what it leaves behind."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from targetprop.app.run import train
from targetprop.app.trainer import build_trainer
from targetprop.utils.errors import UserError

Compose = Callable[..., DictConfig]


@pytest.mark.pictures
def test_a_run_leaves_config_metrics_checkpoints_curves_and_results(
    compose: Compose, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = train(compose("trainer.max_epochs=2", "logger=default", "callbacks.alignment.every_n_steps=2"))
    run = tmp_path / "run"
    assert OmegaConf.load(run / "config.yaml").model.hparams.noise == [0.2, 0.1]
    header = (run / "csv" / "metrics.csv").read_text().splitlines()[0].split(",")
    expected = {"train/loss", "train/accuracy", "val/loss", "val/accuracy", "val/top5", "angle/block1"}
    assert expected | {"norm_ratio/block3", "feedback_angle/block2", "feedback_loss/block2"} <= set(header)
    assert list((run / "tensorboard").glob("events.out.tfevents*"))
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt", "previous.ckpt"}
    assert (run / "curves.png").read_bytes().startswith(b"\x89PNG")
    results = json.loads((run / "results.json").read_text())
    assert results["test"]["accuracy"] == metrics["test/accuracy"]
    assert len(results["validation"]["per_class"]) == 10
    assert len(results["epoch_seconds"]) == 2
    printed = capsys.readouterr().out
    assert "simple_vgg digits, seed 123" in printed
    assert "_target_" not in printed, "that is in config.yaml"
    assert "top-5" in printed
    assert "2 epochs" in printed


def test_the_checkpoint_that_was_best_in_validation_is_evaluated(compose: Compose, tmp_path: Path) -> None:
    train(compose("trainer.max_epochs=3"))
    best = torch.load(tmp_path / "run" / "checkpoints" / "best.ckpt", weights_only=False)
    last = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=False)
    scores = [row["val/accuracy"] for row in last["callbacks"]["History"]["epochs"]]
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert scores[best["epoch"]] == max(scores)
    assert len(results["epoch_seconds"]) == len(scores) == 3
    assert results["validation"]["accuracy"] == pytest.approx(max(scores), abs=1e-6)


def test_without_validation_the_last_weights_are_tested(compose: Compose, tmp_path: Path) -> None:
    metrics = train(compose("datamodule.val_fraction=0", "trainer.max_epochs=2"))
    assert set(metrics) == {"test/accuracy"}
    assert not (tmp_path / "run" / "checkpoints" / "best.ckpt").exists()
    kept = tmp_path / "run" / "checkpoints" / "last.ckpt"
    assert torch.load(kept, weights_only=False)["epoch"] == 1


def test_views_stand_beside_the_plain_result(
    compose: Compose, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = train(compose(output="plain"))
    path = tmp_path / "plain" / "checkpoints" / "best.ckpt"
    capsys.readouterr()
    viewed = train(compose("train=false", f"ckpt_path='{path}'", "views=mirror", output="viewed"))
    assert {key: viewed[key] for key in plain} == plain
    assert set(viewed) == {*plain, "validation_mirror/accuracy", "test_mirror/accuracy"}
    results = json.loads((tmp_path / "viewed" / "results.json").read_text())
    assert results["test_mirror"]["accuracy"] == viewed["test_mirror/accuracy"]
    assert results["test_mirror"] != results["test"], "mirrored digits are other digits"
    assert results["test"] == json.loads((tmp_path / "plain" / "results.json").read_text())["test"]
    assert "test_mirror" in " ".join(capsys.readouterr().out.split())


def test_a_checkpoint_can_be_evaluated_alone(compose: Compose, tmp_path: Path) -> None:
    trained = train(compose(output="trained"))
    path = tmp_path / "trained" / "checkpoints" / "best.ckpt"
    assert train(compose("train=false", f"ckpt_path='{path}'", output="evaluated")) == trained


def test_backprop_trains_the_same_network_from_the_same_weights_on_the_same_batches(
    compose: Compose, tmp_path: Path
) -> None:
    runs = {}
    for model in ("dtp", "backprop"):
        train(compose(f"model={model}", "model.hparams.f_optim.lr=0", output=model))
        runs[model] = torch.load(tmp_path / model / "checkpoints" / "last.ckpt", weights_only=False)
    for name, weight in runs["backprop"]["state_dict"].items():
        if ".block." in name:
            assert torch.equal(weight, runs["dtp"]["state_dict"][name]), name
    losses = [run["callbacks"]["History"]["epochs"][0]["train/loss"] for run in runs.values()]
    assert losses[0] == losses[1]


@pytest.mark.parametrize(
    ("override", "words"),
    [
        (
            "model.hparams.noise=[0.1,0.2,0.3]",
            ["model.hparams.noise", "2 (Conv2d, ELU, MaxPool2d)", "3 (Flatten, Linear)"],
        ),
        ("model.hparams.b_optim.lr=[0.1]", ["model.hparams.b_optim.lr", "expected 2 values", "got 1"]),
        ("model.hparams.beta=-1", ["model.hparams.beta", "-1"]),
        ("model.hparams.f_optim.type=sdg", ["model.hparams.f_optim.type", "'sdg'", "Did you mean 'sgd'"]),
        ("model.algorithm=dpt", ["model.algorithm", "Did you mean 'dtp'"]),
        ("network.hparams.activation=eluu", ["network.hparams.activation", "'elu'"]),
        ("network.hparams.channels=[4,4,4,4,4]", ["conv4", "too small"]),
        ("trainer.max_epochs=soon", ["trainer.max_epochs", "'soon'"]),
        ("trainer.gpus=-1", ["trainer.gpus", "-1"]),
        ("trainer.precision=16-mixed", ["trainer.precision", "32-true", "bf16-mixed", "'16-mixed'"]),
        ("trainer.precision=bf16-mixed", ["autocast", "amortised_dtp"]),
        ("trainer.matmul_precision=tf32", ["trainer.matmul_precision", "Valid: high, highest, medium", "'tf32'"]),
        ("trainer.cuda_graph=1.5", ["trainer.cuda_graph", "true or false", "1.5"]),
        ("network.hparams.channels=32", ["network.hparams.channels", "a list", "32"]),
        ("network.hparams.channels=[-1,3]", ["network.hparams.channels", "-1"]),
        ("+network.hparams.foo=1", ["network.hparams.foo", "Valid: activation, channels"]),
        ("+model.hparams.nois=1", ["model.hparams.nois", "Did you mean 'noise'", "noise_samples"]),
        ("+model.hparams.f_optim.maximize=true", ["model.hparams.f_optim.maximize", "Valid: alpha, amsgrad, betas"]),
        ("model.hparams.f_optim.lr=[0.1,0.2]", ["model.hparams.f_optim.lr", "one number"]),
        ("+model.hparams.b_optim.maximize=true", ["model.hparams.b_optim.maximize", "Valid: alpha, amsgrad, betas"]),
        ("model.hparams.b_optim=3", ["model.hparams.b_optim", "an optimiser", "3"]),
        ("model.hparams.gradient=exact", ["model.hparams.gradient", "'exact'", "closed_form"]),
        ("model.hparams.style=publisht", ["model.hparams.style", "Did you mean 'published'"]),
        ("model.algorithm=tests.nowhere.MINE", ["model.algorithm", "tests.nowhere.MINE", "cannot be imported"]),
        ("model.algorithm=math.pi", ["model.algorithm", "import path of an Algorithm", "math.pi"]),
        ("model.algorithm=delta_mirror", ["model.hparams.feedback_training_iterations", "Valid: adaptive"]),
        ("datamodule.val_fraction=2", ["datamodule.val_fraction", "[0, 1)"]),
        ("datamodule.std=[1,2]", ["datamodule.std", "one per channel"]),
        ("callbacks.alignment.every_n_steps=0", ["callbacks.alignment.every_n_steps", "0"]),
        ("datamodule=cifar10 datamodule.augmentation.flip=2", ["datamodule.augmentation.flip", "[0, 1]", "2"]),
        ("+model.label_smoothing=1", ["model.label_smoothing", "[0, 1)", "1"]),
        (
            "+model.label_smoothing=0.1 +model.loss=torch.nn.functional.nll_loss",
            ["model.label_smoothing", "torch.nn.functional.nll_loss has none"],
        ),
        ("views=mirrored", ["views", "'mirrored'", "Did you mean 'mirror'"]),
        ("seed=-1", ["seed", "-1"]),
        ("train=false", ["ckpt_path", "train=false"]),
        ("+trainer.no_such_option=1", ["trainer.no_such_option", "no such setting"]),
        ("+trainer.max_epoch=1", ["trainer.max_epoch", "Did you mean 'max_epochs'"]),
        ("+trainer.accelerator=gpu", ["trainer.accelerator", "trainer.gpus"]),
        ("+trainer.strategy=ddp", ["trainer.strategy", "trainer=layer_parallel"]),
        ("+foo=1", ["foo: there is no such setting", "datamodule"]),
        ("callbacks.last.dirpath=/proc/nowhere", ["callbacks.last.dirpath: /proc/nowhere cannot be made"]),
        ("+model.foo=1", ["model.foo: there is no such setting", "algorithm"]),
        ("+datamodule.batchsize=1", ["datamodule.batchsize", "Did you mean 'batch_size'"]),
        ("+scheduler.foo=1", ["scheduler.foo", "T_max"]),
        ("~scheduler._partial_", ["scheduler._partial_", "true", "None"]),
        (
            "~scheduler.T_max ~scheduler.eta_min scheduler._target_=torch.optim.lr_scheduler.ReduceLROnPlateau",
            ["scheduler._target_", "scheduler=plateau", "ReduceLROnPlateau"],
        ),
        ("scheduler.T_max=abc", ["scheduler.T_max", "a whole number", "'abc'"]),
        ("+callbacks.foo=1", ["callbacks.foo", "an object", "1"]),
        ("+callbacks.alignment.every=3", ["callbacks.alignment.every", "Did you mean 'every_n_steps'"]),
        ("callbacks=early_stopping callbacks.early_stopping.patience=x", ["callbacks.early_stopping.patience", "'x'"]),
        ("callbacks=default callbacks.best.monitor=val/acc", ["val/acc", "val/accuracy"]),
        ("datamodule.load._target_=targetprop.data.digits.laod", ["datamodule.load._target_", "laod"]),
        ("datamodule.drop_last=no", ["datamodule.drop_last", "true or false", "'no'"]),
        ("train=no", ["train", "true or false", "'no'"]),
        ("test=maybe", ["test", "true or false", "'maybe'"]),
        ("model=own", ["model.algorithm", "import path", "None"]),
        ("model.hparams.b_optim.momentum=2", ["model.hparams.b_optim.momentum", "[0, 1)", "2"]),
        ("ckpt_path=nowhere.ckpt", ["ckpt_path", "nowhere.ckpt"]),
        ("datamodule.batch_size=5000", ["datamodule.batch_size", "5000"]),
    ],
)
def test_bad_values_are_named(compose: Compose, override: str, words: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        train(compose(*override.split()))
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(("network", "rate"), [("simple_vgg", 0.04), ("lenet", 0.03618)])
def test_a_model_has_a_forward_rate_of_its_own_where_settings_name_one(
    compose: Compose, network: str, rate: float
) -> None:
    assert compose("model=delta_mirror", f"network={network}").model.hparams.f_optim.lr == rate


def test_numbers_added_to_models_that_lack_them_are_refused(compose: Compose) -> None:
    for model in ("backprop", "delta_mirror"):
        with pytest.raises(UserError, match=r"^model\.hparams\.noise: "):
            train(compose(f"model={model}", "+model.hparams.noise=0.1"))


def test_what_is_refused_is_neither_shown_nor_written(
    compose: Compose, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError):
        train(compose("+model.hparams.foo=1"))
    assert "foo" not in capsys.readouterr().out
    assert not (tmp_path / "run").exists()


def test_a_checkpoint_that_does_not_fit_is_refused(compose: Compose, tmp_path: Path) -> None:
    train(compose(output="other"))
    path = tmp_path / "other" / "checkpoints" / "last.ckpt"
    for misfit in ("network.hparams.channels=[4,8]", "model=backprop"):
        with pytest.raises(UserError, match=r"^ckpt_path: .* (other settings|another model)"):
            train(compose(misfit, "train=false", f"ckpt_path='{path}'"))
        with pytest.raises(UserError, match=r"it would be another run"):
            train(compose(misfit, f"ckpt_path='{path}'"))
    checkpoint = torch.load(path, weights_only=True)
    del checkpoint["state_dict"]["learner._extra_state"]["format"]
    checkpoint["targetprop"]["sealed"] = False
    torch.save(checkpoint, tmp_path / "old.ckpt")
    with pytest.raises(UserError, match=r"^ckpt_path: .*old\.ckpt was written by another edition"):
        train(compose(f"ckpt_path='{tmp_path / 'old.ckpt'}'"))
    junk = tmp_path / "junk.ckpt"
    junk.write_bytes(b"not a checkpoint")
    with pytest.raises(UserError, match=r"junk.ckpt is no checkpoint"):
        train(compose(f"ckpt_path='{junk}'"))


@pytest.mark.parametrize(
    "override",
    ["trainer.max_epochs=0", "trainer.limit_val_batches=0", "callbacks=none",
     "scheduler=none", "logger=none", "debug=default", "debug=overfit", "model.hparams.gradient=autograd",
     "trainer.precision=64-true", "model=kolen_pollack", "model=delta_mirror", "model=fixed_dtp", "model=lee_dtp"],
)  # fmt: skip
def test_unusual_runs_end_well(compose: Compose, override: str) -> None:
    settings = [override] if override != "debug=overfit" else [override, "trainer.max_epochs=2"]
    assert "test/accuracy" in train(compose(*settings))


@pytest.mark.parametrize("model", [["model=delta_mirror"], ["model=kolen_pollack"], ["model=backprop"]])
def test_mixed_precision_is_bfloat16_and_learns_as_float32(compose: Compose, tmp_path: Path, model: list[str]) -> None:
    losses = []
    for precision in ("32-true", "bf16-mixed"):
        train(compose(*model, f"trainer.precision={precision}", "scheduler=none", output=precision))
        checkpoint = torch.load(tmp_path / precision / "checkpoints" / "last.ckpt", weights_only=False)
        weights = [value for value in checkpoint["state_dict"].values() if isinstance(value, torch.Tensor)]
        assert not any(weight.dtype == torch.bfloat16 for weight in weights)
        losses.append(checkpoint["callbacks"]["History"]["epochs"][0]["train/loss"])
    assert losses[0] != losses[1]
    assert losses[1] == pytest.approx(losses[0], rel=0.02)


def test_without_callbacks_nothing_is_kept(compose: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    train(compose("callbacks=none", "logger=none"))
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["config.yaml", "results.json"]
    assert not list((tmp_path / "here").iterdir())


def test_precision_of_products_holds_for_convolutions_too(recwarn: pytest.WarningsRecorder) -> None:
    for precision, fast in (("high", True), ("highest", False)):
        build_trainer(matmul_precision=precision)
        assert torch.get_float32_matmul_precision() == precision
        assert torch.backends.cudnn.allow_tf32 == fast
    assert not any("TF32" in str(warning.message) for warning in recwarn)


@pytest.mark.parametrize(
    ("model", "words"),
    [("model=backprop", "got Backprop"), ("model=delta_mirror", "run is on the CPU")],
)
def test_graphs_are_refused_where_there_can_be_none(compose: Compose, model: str, words: str) -> None:
    with pytest.raises(UserError, match=r"trainer\.cuda_graph") as caught:
        train(compose(model, "trainer.cuda_graph=true", "trainer.gpus=0"))
    assert words in str(caught.value)
