"""The legacy command line is the present one in another spelling."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import hydra
import pytest
from omegaconf import OmegaConf

from targetprop.app.legacy import claim_folder, translate
from targetprop.app.overrides import CONF, check_overrides
from targetprop.utils.errors import UserError

PUBLISHED = shlex.split(
    "--batch-size 128 --C 128 128 256 256 512 --iter 20 30 35 55 20 --epochs 90 --lr_b 1e-4 3.5e-4 8e-3 8e-3 0.18 "
    "--noise 0.4 0.4 0.2 0.2 0.08 --lr_f 0.08 --beta 0.7 --path CIFAR-10 --scheduler --wdecay 1e-4"
)


def test_the_published_command_line_has_the_published_settings() -> None:
    config, sgd = check_overrides(translate(PUBLISHED)), {"type": "sgd", "momentum": 0.9, "nesterov": False}
    assert OmegaConf.to_container(config.model.hparams, resolve=True) == {
        "beta": 0.7,
        "output_follows_loss": False,
        "divide_by_beta": False,
        "feedback_training_iterations": [20, 30, 35, 55, 20],
        "noise": [0.4, 0.4, 0.2, 0.2, 0.08],
        "noise_samples": 1,
        "init_symmetric_weights": False,
        "gradient": "closed_form",
        "style": "published",
        "b_optim": {**sgd, "lr": [1e-4, 3.5e-4, 8e-3, 8e-3, 0.18], "weight_decay": 0.0},
        "f_optim": {**sgd, "lr": 0.08, "weight_decay": 1e-4},
    }
    assert config.model.algorithm == "dtp"
    assert config.network.hparams == {"channels": [128, 128, 256, 256, 512], "activation": "elu"}
    assert (config.scheduler.T_max, config.scheduler.eta_min, config.trainer.max_epochs) == (85, 1e-5, 90)
    data = config.datamodule
    assert (data.batch_size, data.val_fraction, data.augmentation.flip, data.augmentation.crop) == (128, 0, 0.5, 4)
    assert data.mean == [0.4914, 0.4822, 0.4465]
    assert data.std == pytest.approx([3 * 0.2023, 3 * 0.1994, 3 * 0.2010])
    assert config.callbacks.accuracy_floor.least == 0.3


def test_flags_that_are_not_given_have_the_published_values() -> None:
    bare, whole = (check_overrides([*translate(flags), "output_dir=here"]) for flags in (["--epochs", "90"], PUBLISHED))
    for group in ("model", "network", "datamodule", "trainer"):
        assert OmegaConf.to_container(bare[group], resolve=True) == OmegaConf.to_container(whole[group], resolve=True)
    assert bare.scheduler == {}


@pytest.mark.parametrize(
    ("flags", "override"),
    [
        ("--seed 7", "seed=7"),
        ("--batch-size=32", "datamodule.batch_size=32"),
        ("--activation relu", "network.hparams.activation='relu'"),
        ("--device-label -1", "trainer.gpus=0"),
        ("--device-label 0", "+hydra.job.env_set.CUDA_VISIBLE_DEVICES='0'"),
        ("--device-label 2", "+hydra.job.env_set.CUDA_VISIBLE_DEVICES='2'"),
        ("--C 8 8 trainer.max_epochs=1 +trainer.profiler=simple", "network.hparams.channels=[8,8]"),
        ("--C 8 8 trainer.max_epochs=1 +trainer.profiler=simple", "+trainer.profiler=simple"),
        ("--noise .4 .2", "model.hparams.noise=[0.4,0.2]"),
    ],
)
def test_each_flag_is_an_override(flags: str, override: str) -> None:
    overrides = translate(flags.split())
    assert override in overrides
    check_overrides(overrides)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--epoch 3", ["'--epoch'", "Did you mean '--epochs'"]),
        ("--lr-f 3", ["'--lr-f'", "'--lr_f'"]),
        ("--multirn seed=1,2", ["'--multirn'", "Did you mean '--multirun'"]),
        ("--epochs three", ["--epochs", "'three'"]),
        ("--epochs 3 -m", ["-m", "does not go together"]),
        ("--device-label -2", ["--device-label", "-1 for the CPU", "-2"]),
        ("--C", ["--C", "expected at least one argument"]),
        ("--epochs 3 stray --seed 1", ["stray"]),
        ("-cp conf/reproduce -cn", ["expected one argument"]),
    ],
)
def test_mistakes_name_the_flag_and_the_nearest(arguments: str, words: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        translate(arguments.split())
    for word in words:
        assert word in str(caught.value)


def test_each_trial_gets_the_next_folder_and_last_trial_the_latest_again(tmp_path: Path) -> None:
    path = str(tmp_path / "it's mine")
    given = [claim_folder(["--path", path]) for _ in range(2)]
    assert [Path(path, f"Trial-{k}").is_dir() for k in (1, 2, 3)] == [True, True, False]
    assert check_run_dir(given[1]) == f"{path}/Trial-2"
    assert claim_folder(["--path", path, "--last-trial"]) == [*given[1], "overwrite=true"]
    Path(path, "Trial-7").mkdir()
    assert check_run_dir(claim_folder(["--path", path])) == f"{path}/Trial-8"
    assert claim_folder(["--seed", "1"]) == claim_folder(["seed=1"]) == []


def check_run_dir(overrides: list[str]) -> str:
    (override,) = overrides
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        return hydra.compose("config", [override], return_hydra_config=True).hydra.run.dir


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="--path"):
        claim_folder(["--path", str(tmp_path / "file")])


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short trial on the digits, from the command line to its folder; it does not learn enough."""
    folder = tmp_path_factory.mktemp("legacy")
    flags = "--batch-size 64 --C 4 6 --iter 2 2 --epochs 3 --lr_b 5e-3 0.1 --noise 0.2 0.1 --lr_f 1e-4 --path TRIALS"
    call = [sys.executable, "-m", "targetprop", *flags.split(), "--device-label", "-1", "--scheduler"]
    ended = subprocess.run(
        [*call, "datamodule=digits", "datamodule.val_fraction=0", "trainer.limit_train_batches=2"],
        cwd=folder, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert "is below 30.00 %" in " ".join(ended.stdout.split())
    return folder / "TRIALS" / "Trial-1"


def test_a_trial_leaves_its_record_as_json(trial: Path) -> None:
    record = json.loads((trial / "trial.json").read_text())
    assert record["hyperparameters"]["model"]["b_optim"]["lr"] == [5e-3, 0.1]
    assert record["hyperparameters"]["batch_size"] == 64
    assert record["test_accuracy"] == json.loads((trial / "results.json").read_text())["test"]["accuracy"]
    assert record["command"].startswith("python main.py --batch-size 64 --C 4 6 ")
    assert record["command"].endswith("trainer.limit_train_batches=2")


def test_a_trial_that_does_not_learn_ends_after_its_epoch(trial: Path) -> None:
    accuracies = json.loads((trial / "trial.json").read_text())["train_accuracy"]
    assert len(accuracies) == 1
    assert accuracies[0] < 0.3
