"""The command line: published commands compose, mistakes are explained, help explains itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from targetprop.app.moved import refuse_moved
from targetprop.app.overrides import CONF, check_overrides, one_line
from targetprop.utils.errors import UserError

PUBLISHED = ["model=dtp", "network=simple_vgg", "datamodule=cifar10", "trainer=default", "scheduler=cosine"]


SGD = {"type": "sgd", "momentum": 0.9, "nesterov": False}


def command(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    call = [sys.executable, "-m", "targetprop", *arguments]
    return subprocess.run(call, cwd=cwd, capture_output=True, text=True, timeout=300)


def test_the_published_command_has_the_published_settings() -> None:
    config = check_overrides(PUBLISHED)
    hparams = OmegaConf.to_container(config.model.hparams, resolve=True)
    assert hparams == {
        "beta": 0.7,
        "output_follows_loss": False,
        "divide_by_beta": False,
        "feedback_training_iterations": [20, 30, 35, 55, 20],
        "noise": [0.4, 0.4, 0.2, 0.2, 0.08],
        "noise_samples": 1,
        "init_symmetric_weights": False,
        "gradient": "closed_form",
        "style": "published",
        "b_optim": {**SGD, "lr": [1e-4, 3.5e-4, 8e-3, 8e-3, 0.18], "weight_decay": 0.0},
        "f_optim": {**SGD, "lr": 0.08, "weight_decay": 1e-4},
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
        ("network.hparams={chanels:[8]}", ["network.hparams.chanels: there is no", "Did you mean 'channels'"]),
        ("model.hparams={f_optim:{lrr:1}}", ["model.hparams.f_optim.lrr: there is no", "Did you mean 'lr'"]),
        ("trainer={max_epoch:3}", ["trainer.max_epoch", "Did you mean 'max_epochs'"]),
        ("modl=dtp", ["modl", "'model'"]),
        ("trainer.max_epoch=3", ["trainer.max_epoch", "'max_epochs'"]),
        ("seed", ["seed"]),
        ("model=backprop model.hparams.beta=.5", ["model.hparams.beta", "Valid: f_optim."]),
        ("network=lenet network.hparams.hiden=3", ["network.hparams.hiden", "Did you mean 'hidden'"]),
        ("model.hparams.noise=[1,2", ["noise"]),
        (
            "model=delta_mirror model.hparams.noise=.1",
            ["model.hparams.noise", "Valid: adaptive, beta"],
        ),
        ("model.hparams.b_optim.momentun=.9", ["model.hparams.b_optim.momentun", "Did you mean 'momentum'"]),
    ],
)
def test_unknown_names_are_answered_with_the_nearest(override: str, words: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        check_overrides(override.split())
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("feedback=exact", ["feedback=exact", "model.hparams.gradient=closed_form"]),
        ("feedback=textbook", ["feedback=textbook", "model.hparams.gradient=autograd"]),
        ("feedback=expected", ["feedback=expected", "gone", "model.hparams.gradient=closed_form"]),
        ("feedback=amortised", ["feedback=amortised", "model=delta_mirror"]),
        ("feedback=kolen_pollack", ["feedback=kolen_pollack", "model=kolen_pollack"]),
        ("feedback=lee", ["feedback=lee", "model=lee_dtp"]),
        ("+feedback.rule=amortised", ["feedback.rule=amortised", "model=delta_mirror"]),
        ("feedback.twin=linear", ["feedback.twin", "model.hparams.style"]),
        ("feedback.budget=.2", ["feedback.budget", "model.hparams.budget"]),
        ("++feedback.adaptive=false", ["feedback.adaptive", "model.hparams.adaptive"]),
        ("+feedback.feedback_loss=null", ["feedback.feedback_loss", "model=dtp"]),
        ("network.dtp.beta=.3", ["network.dtp.beta", "model.hparams.beta now"]),
        ("network.dtp.noise=.3", ["network.dtp.noise", "model.hparams.noise now"]),
        ("network.dtp.f_lr=.3", ["network.dtp.f_lr", "model.hparams.f_optim.lr now"]),
        ("network.dtp.f_lr_aligned=.3", ["network.dtp.f_lr_aligned", "model.hparams.f_optim.lr of model=delta_mirror"]),
        ("network.dtp.b_lr=[.3]", ["network.dtp.b_lr", "model.hparams.b_optim.lr now"]),
        ("network.dtp.feedback_training_iterations=3", ["model.hparams.feedback_training_iterations now"]),
        ("~network.dtp", ["network.dtp", "model.hparams"]),
        ("model.recipe=tp", ["model.recipe", "model=NAME", "model.algorithm=NAME"]),
        ("model.feedback.twin=linear", ["model.feedback.twin", "model=dtp"]),
    ],
)
def test_settings_of_the_first_edition_are_answered_with_where_they_are_now(override: str, words: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        check_overrides([override])
    for word in words:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


def test_settings_of_the_first_edition_are_answered_in_sweeps_and_in_files_too(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="model=delta_mirror"):
        refuse_moved(["-m", "seed=1,2", "feedback=amortised"])
    refuse_moved(["-m", "network.hparams.channels=[4,6]", "model=dtp,tp", "--help"])
    (tmp_path / "experiment").mkdir()
    override = "# @package _global_\ndefaults:\n  - override /feedback: amortised\n"
    (tmp_path / "experiment" / "feedback.yaml").write_text(override)
    with pytest.raises(UserError, match="feedback"):
        check_overrides([f"hydra.searchpath=[file://{tmp_path}]", "experiment=feedback"])


def test_a_mistake_ends_the_command_without_traceback(tmp_path: Path) -> None:
    for override in ("network=simple_vg", "model.hparams.noise=[1,2,3]"):
        ended = command(override, cwd=tmp_path)
        assert ended.returncode == 1
        assert ended.stderr.startswith("Error: ")
        assert ended.stderr.count("\n") == 1, "in one line, however narrow the terminal"
        assert "Error: " not in ended.stdout
    assert "Error: model.hparams.noise" in next(tmp_path.glob("runs/*/*/run.log")).read_text()


@pytest.mark.parametrize("given", [["model", "dtp"], ["model:dtp"], ["model", "=", "dtp"]])
def test_what_is_no_override_is_answered_with_what_one_is(given: list[str]) -> None:
    with pytest.raises(UserError, match=rf"^expected KEY=VALUE, without spaces, got '{given[0]}'\.$"):
        check_overrides(given)


def test_a_plus_is_proposed_only_where_something_reads_the_key() -> None:
    for key, read in (("lr", False), ("network.width", False), ("datamodule.foo", False), ("trainer.max_steps", True)):
        with pytest.raises(UserError) as caught:
            check_overrides([f"{key}=1"])
        assert ("A + before it" in str(caught.value)) == read
    for model, read in (("own", True), ("kolen_pollack", False)):
        with pytest.raises(UserError) as caught:
            check_overrides([f"model={model}", "model.hparams.noise=1"])
        assert ("A + before it" in str(caught.value)) == read


def test_errors_of_the_configuration_are_one_line_with_their_key() -> None:
    with pytest.raises(OmegaConfBaseException) as caught:
        OmegaConf.create({"a": {"b": "${nothing}"}}).a.b  # noqa: B018
    said = one_line(caught.value)
    assert said.startswith("a.b: ")
    assert "nothing" in said
    assert "\n" not in said
    assert one_line(UserError("two\n lines")) == "two lines"
    assert one_line(UserError("Process 1 failed:\nTraceback ...\n")).count("\n") == 2


def test_help_shows_groups_choices_and_keys(tmp_path: Path) -> None:
    shown = command("--help", cwd=tmp_path).stdout
    for words in (
        "model: amortised_dtp, analytic_dtp, as_printed, backprop, baseline, ",
        "network: cifar_resnet18, conv_mixer, decoder, invertible_mlp, lenet, mlp, mlp_mixer, norm_vgg, own",
        "convert_imagenet SOURCE TARGET",
        "feedback_training_iterations",
        "Examples",
    ):
        assert words in shown


def test_converting_imagenet_is_a_command(tmp_path: Path) -> None:
    assert "train/CLASS/*.JPEG" in command("convert_imagenet", "--help", cwd=tmp_path).stdout
    ended = command("convert_imagenet", "nowhere", "target", cwd=tmp_path)
    assert ended.returncode == 1
    assert "Error: nowhere/train: expected a folder" in ended.stderr


def test_a_run_from_any_directory_writes_below_it(tmp_path: Path) -> None:
    short = ["trainer.max_epochs=1", "trainer.limit_train_batches=1", "model.hparams.feedback_training_iterations=1"]
    ended = command(*short, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert "top-1" in ended.stdout
    (run,) = tmp_path.glob("runs/*/*")
    assert {"config.yaml", "run.log", "csv", "checkpoints", "curves.png", "results.json"} <= {
        p.name for p in run.iterdir()
    }
