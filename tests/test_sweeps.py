"""Sweeps and searches: what they maximise, runs that diverge, and the plugins of Hydra that they may use."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from omegaconf import OmegaConf, open_dict

from targetprop.app.cli import run
from targetprop.app.overrides import CONF, check_overrides, check_search
from targetprop.app.sweep import FAILED
from targetprop.utils.errors import UserError

SMALL = [
    "network.hparams.channels=[4,6]",
    "trainer.max_epochs=1",
    "trainer.limit_train_batches=2",
    "model.hparams.feedback_training_iterations=1",
]
optuna = pytest.mark.skipif(not find_spec("optuna"), reason='needs the extra "sweeps"')
submitit = pytest.mark.skipif(not find_spec("submitit"), reason='needs the extra "cluster"')


def command(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    call = [sys.executable, "-m", "targetprop", *arguments, *SMALL]
    return subprocess.run(call, cwd=cwd, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize(("val_fraction", "part"), [(0.1, "validation"), (0, "test")])
def test_a_run_returns_the_accuracy_to_maximise(tmp_path: Path, val_fraction: float, part: str) -> None:
    config = check_overrides([*SMALL, f"datamodule.val_fraction={val_fraction}", f"output_dir={tmp_path}"])
    value = run.__wrapped__(config)
    assert value == json.loads((tmp_path / "results.json").read_text())[part]["accuracy"]


def test_a_sweep_goes_on_after_a_run_that_diverged(tmp_path: Path) -> None:
    ended = command("-m", "model.hparams.f_optim.lr=1e38,0.01", "hydra.sweep.dir=sweep", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert "Training diverged" in ended.stdout
    assert [(tmp_path / "sweep" / each / "results.json").is_file() for each in ("0", "1")] == [False, True]


def test_a_sweep_goes_on_after_a_job_with_a_bad_value_and_says_so_at_its_end(tmp_path: Path) -> None:
    (tmp_path / "sweep" / "7").mkdir(parents=True)
    (tmp_path / "sweep" / "7" / FAILED).write_text("of an earlier sweep")
    ended = command("-m", "model.hparams.f_optim.lr=0.01,abc,0.02", "hydra.sweep.dir=sweep", cwd=tmp_path)
    assert ended.returncode == 1
    assert [(tmp_path / "sweep" / each / "results.json").is_file() for each in "012"] == [True, False, True]
    first, *failed = ended.stderr.strip().splitlines()[-2:]
    assert first == "Error: 1 job of this sweep failed, the others have their results:"
    assert re.match(r"  sweep/1: .*f_optim.lr=abc.*: model.hparams.f_optim.lr: expected .*, got 'abc'$", failed[0])


@pytest.mark.parametrize(
    ("override", "module", "extra"),
    [("hparams_search=dtp", "optuna", "sweeps"), ("hydra/launcher=slurm", "submitit", "cluster")],
)
def test_a_plugin_that_is_not_there_is_named_with_its_extra(override: str, module: str, extra: str) -> None:
    if find_spec(module):
        check_overrides([override])
        return
    with pytest.raises(UserError, match=rf"targetprop\[{extra}\]"):
        check_overrides([override])


@pytest.mark.parametrize(
    ("model", "key"), [("delta_mirror", "model.hparams.b_optim.lr"), ("backprop", "model.hparams.beta")]
)
def test_a_search_over_numbers_that_a_model_does_not_have_is_refused(model: str, key: str) -> None:
    config = check_overrides([f"model={model}"])
    params = OmegaConf.load(CONF / "hparams_search" / "dtp.yaml").hydra.sweeper.params
    with open_dict(config):
        config.hydra = {"sweeper": {"params": params}}
    with pytest.raises(UserError, match=rf"^hparams_search: this search varies {key}, which the model .* not have"):
        check_search(config)


@optuna
def test_every_command_of_the_page_of_searches_is_one() -> None:
    page = (Path(__file__).parents[1] / "docs" / "searches.md").read_text()
    commands = [shlex.split(line)[2:] for line in re.findall(r"^python main\.py .*$", page, flags=re.MULTILINE)]
    assert len(commands) == 2
    for each in commands:
        assert check_overrides(each).callbacks.prune.monitor == "val/accuracy"


@optuna
def test_what_is_typed_to_be_varied_is_looked_at() -> None:
    with pytest.raises(UserError, match=r"^hparams_search: this search varies model\.hparams\.betta, which the model"):
        check_overrides(["hparams_search=dtp", "model.hparams.betta=interval(0, 1)"])
    with pytest.raises(UserError, match=r"^model\.hparams\.beta: Several values are for a sweep"):
        check_overrides(["model.hparams.beta=interval(0, 1)"])


@optuna
def test_a_search_tries_numbers_keeps_its_study_and_goes_on(tmp_path: Path) -> None:
    arguments = ["hparams_search=dtp", "hydra.sweep.dir=sweep", "seed=5"]
    for trials in (1, 2):
        ended = command(*arguments, f"hydra.sweeper.n_trials={trials}", cwd=tmp_path)
        assert ended.returncode == 0, ended.stderr
    assert "Going on with 1 trials of sweep." in " ".join(ended.stdout.split())
    best = OmegaConf.load(tmp_path / "sweep" / "optimization_results.yaml")
    assert set(best.best_params) == {"model.hparams.beta", "model.hparams.f_optim.lr", "model.hparams.b_optim.lr"}
    results = [json.loads((tmp_path / "sweep" / each / "results.json").read_text()) for each in ("0", "1")]
    assert best.best_value == max(each["validation"]["accuracy"] for each in results)
    assert all("test" not in each for each in results)
    assert (tmp_path / "sweep" / "search.png").is_file()


@submitit
def test_a_sweep_runs_as_jobs_of_submitit(tmp_path: Path) -> None:
    ended = command("-m", "hydra/launcher=submitit_local", "hydra.sweep.dir=sweep", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "sweep" / "0" / "results.json").is_file()


@submitit
def test_slurm_jobs_have_their_resources() -> None:
    call = [sys.executable, "-m", "targetprop", "hydra/launcher=slurm", "--cfg", "hydra", "-p", "hydra.launcher"]
    shown = subprocess.run(call, capture_output=True, text=True, timeout=300).stdout
    for line in ("timeout_min: 1440", "gpus_per_node: 1", "SlurmLauncher"):
        assert line in shown
