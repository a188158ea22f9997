"""The command line: published commands compose, mistakes are explained, help explains itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from targetprop.app.cli import CONF, check_overrides
from targetprop.utils.errors import UserError

PUBLISHED = ["model=dtp", "network=simple_vgg", "datamodule=cifar10", "trainer=default", "scheduler=cosine"]


def command(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    call = [sys.executable, "-m", "targetprop", *arguments]
    return subprocess.run(call, cwd=cwd, capture_output=True, text=True, timeout=300)


def test_the_published_command_has_the_published_settings() -> None:
    config = check_overrides(PUBLISHED)
    hparams = OmegaConf.to_container(config.model.hparams, resolve=True)
    assert hparams == {
        "beta": 0.7,
        "feedback_training_iterations": [20, 30, 35, 55, 20],
        "noise": [0.4, 0.4, 0.2, 0.2, 0.08],
        "noise_samples": 1,
        "init_symmetric_weights": False,
        "b_optim": {"type": "sgd", "lr": [1e-4, 3.5e-4, 8e-3, 8e-3, 0.18], "momentum": 0.9, "weight_decay": 0.0},
        "f_optim": {"type": "sgd", "lr": 0.08, "momentum": 0.9, "weight_decay": 1e-4},
    }
    assert config.network.hparams.channels == [128, 128, 256, 256, 512]
    assert (config.scheduler.T_max, config.scheduler.eta_min) == (85, 1e-5)
    assert (config.trainer.max_epochs, config.datamodule.batch_size, config.seed) == (90, 128, 123)
    assert [round(255 * m, 1) for m in config.datamodule.mean] == [125.3, 123.0, 113.9]
    assert [round(255 * s, 1) for s in config.datamodule.std] == [63.0, 62.1, 66.7]


def test_published_keys_can_be_overridden() -> None:
    config = check_overrides(
        [
            *PUBLISHED,
            "seed=123",
            "datamodule.batch_size=256",
            "datamodule.num_workers=1",
            "trainer.gpus=6",
            "model.hparams.feedback_training_iterations=[25,35,40,60,25]",
            "model.hparams.f_optim.lr=0.01",
            "model.hparams.b_optim.momentum=0.9",
            "model.hparams.b_optim.lr=[1e-4,3.5e-4,8e-3,8e-3,0.18]",
        ]
    )
    assert config.model.hparams.b_optim.lr == [1e-4, 3.5e-4, 8e-3, 8e-3, 0.18]
    assert config.model.hparams.feedback_training_iterations[3] == 60


GROUPS = (
    "feedback",
    "model",
    "network",
    "datamodule",
    "trainer",
    "scheduler",
    "logger",
    "callbacks",
    "experiment",
    "debug",
)


@pytest.mark.parametrize(
    "choice", [f"{path.parent.name}={path.stem}" for group in GROUPS for path in sorted((CONF / group).glob("*.yaml"))]
)
def test_every_choice_of_every_group_composes_and_resolves(choice: str) -> None:
    config = check_overrides([choice, "output_dir=out"])
    OmegaConf.to_container(config, resolve=True, throw_on_missing=True)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("network=simple_vg", ["network", "'simple_vg'", "Did you mean 'simple_vgg'", "lenet, mlp"]),
        ("datamodule=cifar", ["datamodule", "'cifar10'", "digits"]),
        ("model.hparams.nois=3", ["model.hparams.nois", "Did you mean 'noise'"]),
        ("model.hparam.noise=3", ["model.hparam", "Did you mean 'hparams'"]),
        ("modl=dtp", ["modl", "'model'"]),
        ("trainer.max_epoch=3", ["trainer.max_epoch", "'max_epochs'"]),
        ("seed", ["seed"]),
        ("model=backprop model.hparams.beta=.5", ["model.hparams.beta", "has: f_optim."]),
        ("network=lenet network.hparams.hiden=3", ["network.hparams.hiden", "Did you mean 'hidden'"]),
        ("model.hparams.noise=[1,2", ["noise"]),
    ],
)
def test_unknown_names_are_answered_with_the_nearest(override: str, words: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        check_overrides(override.split())
    for word in words:
        assert word in str(caught.value)


def test_a_mistake_ends_the_command_without_traceback(tmp_path: Path) -> None:
    for override in ("network=simple_vg", "model.hparams.noise=[1,2,3]"):
        ended = command(override, cwd=tmp_path)
        assert ended.returncode == 1
        assert "Error: " in ended.stdout + ended.stderr
        assert "Traceback" not in ended.stdout + ended.stderr


def test_help_shows_groups_choices_and_keys(tmp_path: Path) -> None:
    shown = command("--help", cwd=tmp_path).stdout
    for words in (
        "model: amortised_dtp, as_printed, backprop, baseline, dtp, ",
        "feedback: amortised, exact, expected, kolen_pollack, lee, textbook",
        "network: lenet, mlp, norm_vgg, resnet18, resnet34, simple_vgg",
        "feedback_training_iterations",
        "Examples",
    ):
        assert words in shown


def test_a_run_from_any_directory_writes_below_it(tmp_path: Path) -> None:
    short = ["trainer.max_epochs=1", "trainer.limit_train_batches=1", "model.hparams.feedback_training_iterations=1"]
    ended = command(*short, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert "top-1" in ended.stdout
    (run,) = tmp_path.glob("runs/*/*")
    assert {"config.yaml", "run.log", "csv", "checkpoints", "curves.png", "results.json"} <= {
        p.name for p in run.iterdir()
    }
