"""What a run was made with reaches its checkpoints, its results and every logger."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch.loggers.logger import Logger
from omegaconf import DictConfig
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from targetprop.app import provenance
from targetprop.app.run import train
from targetprop.version import __version__

Compose = Callable[..., DictConfig]
QUIET = ("callbacks.alignment=null", "callbacks.history=null", "trainer.limit_val_batches=1")


class Heard(Logger):
    """A logger of somebody else's."""

    name = version = "heard"
    params: Mapping[str, Any] = {}

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        pass

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        Heard.params = params


def started(folder: Path) -> Mapping[str, Any]:
    """The hyper-parameters in a folder of event files, by their names."""
    events = EventAccumulator(str(folder))
    events.Reload()
    told = [HParamsPluginData.FromString(each) for each in events.PluginTagToContent("hparams").values()]
    (info,) = [each.session_start_info for each in told if each.HasField("session_start_info")]
    return {name: value.number_value or value.string_value for name, value in info.hparams.items()}


def test_checkpoint_results_and_all_loggers_are_told(compose: Compose, tmp_path: Path) -> None:
    config = compose(*QUIET, "logger=default", "+logger.own={_target_:test_provenance.Heard}", "seed=7")
    train(config)
    run = Path(config.output_dir)
    saved = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    told = saved["hyper_parameters"]
    assert told["seed"] == 7
    assert told["model"]["hparams"]["beta"] == 0.7
    made_with = told["made_with"]
    assert made_with["versions"]["targetprop"] == __version__
    assert made_with["versions"]["torch"] == torch.__version__
    assert made_with["machine"]["cores"] >= 1
    assert saved["targetprop"]["made_with"] == made_with
    assert json.loads((run / "results.json").read_text())["made_with"] == made_with
    assert yaml.safe_load((run / "csv/hparams.yaml").read_text()) == told
    assert Heard.params == told
    shown = started(run / "tensorboard")
    assert shown["model.hparams.beta"] == pytest.approx(0.7)
    assert shown["made_with.versions.targetprop"] == __version__
    assert shown["model.hparams.noise"] == str(told["model"]["hparams"]["noise"])


def test_event_files_that_go_on_tell_once_and_a_new_directory_is_told_too(compose: Compose, tmp_path: Path) -> None:
    settings = (*QUIET, "logger=default", "trainer.max_epochs=2")
    train(compose(*settings, output="a"))
    train(compose(*settings, "ckpt_path=last", output="a"))
    train(compose(*settings, f"ckpt_path={tmp_path / 'a'}", output="b"))
    for name in "ab":
        assert started(tmp_path / name / "tensorboard")["seed"] == 123
    before = (tmp_path / "a/csv/hparams.yaml").read_text()
    train(compose(*settings[:-1], "trainer.max_epochs=3", "ckpt_path=last", output="a"))
    assert before in [each.read_text() for each in (tmp_path / "a/csv").glob("superseded-*-hparams.yaml")]
    assert yaml.safe_load((tmp_path / "a/csv/hparams.yaml").read_text())["trainer"]["max_epochs"] == 3


def git(folder: Path, *arguments: str) -> str:
    names = ["-c", "user.name=a", "-c", "user.email=a@b"]
    done = subprocess.run(["git", "-C", str(folder), *names, *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_commits_are_those_of_the_package_and_of_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "working directory" not in provenance.commits()  # no repository
    git(tmp_path, "init", "-q")
    (tmp_path / "mine.py").write_text("a = 1")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-qm", "one")
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert provenance.commits()["working directory"] == commit
    (tmp_path / "new.py").write_text("")  # which git does not know
    assert provenance.commits()["working directory"] == commit
    (tmp_path / "mine.py").write_text("a = 2")
    assert provenance.commits()["working directory"] == f"{commit} and changes"


def test_a_package_that_another_repository_only_surrounds_has_no_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git(tmp_path, "init", "-q")
    (tmp_path / "mine.py").write_text("")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-qm", "one")
    installed = tmp_path / "env/targetprop/app/provenance.py"
    installed.parent.mkdir(parents=True)
    (installed.parents[1] / "__init__.py").write_text("")
    monkeypatch.setattr(provenance, "__file__", str(installed))
    assert "targetprop" not in provenance.commits()


def test_without_git_there_are_no_commits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert provenance.commits() == {}


def test_the_command_is_one_that_a_shell_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["a folder/main.py"])
    made = provenance.provenance(torch.device("cpu"), ["network.hparams.channels=[4,6]", "seed=1"])
    assert made["command"] == "python 'a folder/main.py' 'network.hparams.channels=[4,6]' seed=1"
    assert provenance.provenance(torch.device("cpu"), None)["command"] is None
