"""Going on with a run by its command line, in its directory, and after it has diverged."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from targetprop.app import rewind
from targetprop.app.checkpoint.files import WholeFiles
from targetprop.app.command import command
from targetprop.app.errors import DivergenceError
from targetprop.app.going_on import with_recorded
from targetprop.app.run import train
from targetprop.app.signals import requeue
from targetprop.utils.errors import UserError

Compose = Callable[..., DictConfig]
QUICK = ("model=delta_mirror", "test=false", "callbacks.alignment=null", "callbacks.best=null", "scheduler=none")


def run_of(folder: Path, *overrides: str) -> Path:
    """A run that says by what command line it was made."""
    record = {"config": {}, "overrides": list(overrides), "sealed": True}
    WholeFiles().save_checkpoint({"state_dict": {}, "targetprop": record}, folder / "checkpoints/last.ckpt")
    return folder


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ([], ["model=backprop", "seed=4", "+trainer.max_steps=9"]),
        (["seed=5"], ["model=backprop", "+trainer.max_steps=9", "seed=5"]),
        (["+trainer.max_steps=10"], ["model=backprop", "seed=4", "+trainer.max_steps=10"]),
        (["~trainer.max_steps"], ["model=backprop", "seed=4", "~trainer.max_steps"]),
        (["train=false"], ["model=backprop", "seed=4", "+trainer.max_steps=9", "train=false"]),
    ],
)
def test_what_was_typed_then_holds_until_it_is_typed_anew(
    tmp_path: Path, typed: list[str], expected: list[str]
) -> None:
    then = ("model=backprop", "seed=4", "+trainer.max_steps=9", "hydra.run.dir=x", "ckpt_path=y", "output_dir=z")
    run = run_of(tmp_path / "run", *then)
    for given in ([f"ckpt_path={run}"], ["ckpt_path=last", f"hydra.run.dir={run}"]):
        assert with_recorded([*given, *typed]) == [*expected[: len(expected) - len(typed)], *given, *typed]


def test_numbers_of_another_choice_are_not_taken_over(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", "model=dtp", "model.hparams.noise=0.1", "seed=4")
    assert with_recorded([f"ckpt_path={run}", "model=backprop"]) == ["seed=4", f"ckpt_path={run}", "model=backprop"]


@pytest.mark.parametrize("given", [[], ["ckpt_path=null"], ["ckpt_path=nowhere"], ["-m", "ckpt_path=last"]])
def test_without_a_checkpoint_nothing_is_added(given: list[str]) -> None:
    assert with_recorded([*given, "seed=1"]) == [*given, "seed=1"]


def test_the_command_that_goes_on_survives_a_shell(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "argv", ["main.py"])
    for name in ("plain", "with space", "quote's", "a=b", "[1]"):
        run = run_of(tmp_path / name, "seed=9")
        shown = subprocess.run(
            ["bash", "-c", f"printf '%s\\n' {command(str(run)).removeprefix('python main.py')}"],
            capture_output=True, text=True, check=True,
        ).stdout.splitlines()  # fmt: skip
        assert with_recorded(shown)[0] == "seed=9", name


def test_a_directory_is_of_one_run(compose: Compose, tmp_path: Path) -> None:
    train(compose(*QUICK))
    records = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    with pytest.raises(UserError, match=r"^output_dir: .*run holds a run already \(checkpoints and results.json\)"):
        train(compose(*QUICK, "seed=2"))
    evaluation = ("train=false", f"ckpt_path='{tmp_path / 'run'}'", "test=true", "seed=3")
    train(compose("model=delta_mirror", *evaluation))
    assert {path: path.read_bytes() for path in records} == records
    assert "test" in json.loads((tmp_path / "run" / "results-0.json").read_text())
    train(compose(*QUICK, "seed=2", "overwrite=true"))
    aside = tmp_path / "run" / "superseded-0"
    for path, content in records.items():
        if path.name != "results-0.json":
            assert (aside / path.relative_to(tmp_path / "run")).read_bytes() == content
    assert OmegaConf.load(tmp_path / "run" / "config.yaml").seed == 2


def test_what_an_attempt_left_without_a_checkpoint_is_put_aside(compose: Compose, tmp_path: Path) -> None:
    (tmp_path / "run" / "csv").mkdir(parents=True)
    (tmp_path / "run" / "csv" / "metrics.csv").write_text("step\n1\n")
    (tmp_path / "run" / "notes.txt").write_text("mine")
    train(compose(*QUICK))
    assert (tmp_path / "run" / "superseded-0" / "csv" / "metrics.csv").read_text() == "step\n1\n"
    assert (tmp_path / "run" / "notes.txt").read_text() == "mine"


def test_a_run_that_diverges_goes_back_with_lower_rates(
    compose: Compose, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Here the last checkpoint is of the first epoch; the second one is made to diverge by its rate."""
    settings = ("model=dtp", "test=false", "callbacks.best=null", "scheduler=none")
    train(compose(*settings))
    wild = (*settings, "trainer.max_epochs=3", "ckpt_path=last", "model.hparams.f_optim.lr=1e7")
    with pytest.raises(DivergenceError, match=r"last good checkpoint is .*last\.ckpt"):
        train(compose(*wild))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(rewind, "MOST", 40)
        train(compose(*wild, "on_divergence=rewind"))
    assert "previous.ckpt, with half the rates" in caplog.text, "the last one was on its way already"
    assert "last.ckpt, with half the rates" in caplog.text
    saved = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)
    assert saved["targetprop"]["position"]["epoch"] == 3
    assert 0 < saved["optimizer_states"][0]["param_groups"][0]["lr"] < 1e7
    assert all(value.isfinite().all() for value in saved["state_dict"].values() if isinstance(value, torch.Tensor))


def test_a_run_goes_back_so_often_only(compose: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rewind, "MOST", 2)
    with pytest.raises(DivergenceError):
        train(compose("model=dtp", "model.hparams.f_optim.lr=1e30", "on_divergence=rewind"))


def test_slurm_is_asked_to_start_a_preempted_job_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = tmp_path / "asked"
    script = tmp_path / "scontrol"
    script.write_text(f'#!/bin/sh\necho "$@" > {asked}\n')
    script.chmod(script.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    sigusr1, sigterm = 10, 15
    assert requeue(sigusr1) is None
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert requeue(sigterm) is None
    assert requeue(sigusr1) == "Job 7 was requeued."
    assert asked.read_text() == "requeue 7\n"
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "8")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    assert requeue(sigusr1) == "Job 8_3 was requeued."
    script.unlink()
    assert "could not requeue" in str(requeue(sigusr1))


def test_the_settings_that_a_run_began_with_stay_beside_the_new_ones(compose: Compose, tmp_path: Path) -> None:
    train(compose(*QUICK))
    train(compose(*QUICK, "ckpt_path=last", "trainer.max_epochs=2", "model.hparams.f_optim.lr=0.01"))
    run = tmp_path / "run"
    assert OmegaConf.load(run / "config.yaml").model.hparams.f_optim.lr == 0.01
    assert OmegaConf.load(run / "config-0.yaml").model.hparams.f_optim.lr == 0.04
