"""A comparison of real runs on the digits, one rule of which is the user's own; killed, and gone on with."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from targetprop.compare import plan_file, probe_worker, results
from targetprop.compare.contest import Contest
from targetprop.compare.plan import Task
from targetprop.compare.probe import probe
from targetprop.compare.processes import run_all
from targetprop.compare.records import find, keep
from targetprop.compare.trial import Trial
from targetprop.utils.errors import UserError

ROOT = Path(__file__).parents[2]
OWN = "examples.your_own_rule.LOCAL_INVERSE"
PLAN = f"""
rules: [backprop, {OWN}]
networks:
  tiny_vgg:
    - network.hparams.channels=[8,8]
data:
  digits:
    - trainer.max_epochs=2
settings:
  - trainer.gpus=0
  - callbacks.alignment.every_n_steps=5
search:
  rates: [0.04, 0.08]
  most_rates: 2
  seeds: [1]
seeds: [2, 3]
"""
TASK = Task("tiny_vgg", "digits")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "real.yaml"
    made.write_text(PLAN)
    return made


def trial_of(path: Path, *more: str, rate: float = 0.04, rule: str = "backprop") -> Trial:
    plan = plan_file.load(path)
    contest = Contest(TASK, (rule,), 10, True, 0.1, {rule: 1.0})
    settings = (*contest.settings(plan, rule, rate), "trainer.limit_train_batches=6", *more)
    return Trial("search", contest.name, rule, rate, 3, settings)


def is_alive(process: str) -> bool:
    """Whether it still runs; one that has ended may wait for its parent to look."""
    try:
        return Path("/proc", process, "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until(met: object, seconds: float = 300.0) -> None:
    assert callable(met)
    deadline = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="reads Linux's /proc")
def test_a_killed_comparison_leaves_no_process_and_goes_on(path: Path, tmp_path: Path) -> None:
    """A rule of one's own, named by its import path, stands beside the others."""
    folder, log = tmp_path / "made", tmp_path / "log"
    command = [sys.executable, "-m", "targetprop", "compare", str(path), "--folder", str(folder), "--jobs", "2"]
    with log.open("w") as said:
        first = subprocess.Popen(command, cwd=ROOT, stdout=said, stderr=subprocess.STDOUT)
    wait_until(lambda: list(folder.glob("search/*/*.json")) or first.poll() is not None)
    children = Path(f"/proc/{first.pid}/task/{first.pid}/children").read_text().split()
    first.kill()
    first.wait()
    wait_until(lambda: not any(map(is_alive, children)))
    kept = {file: file.stat().st_mtime_ns for file in folder.glob("search/*/*.json")}
    assert kept, log.read_text()[-2000:]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert kept.items() <= {file: file.stat().st_mtime_ns for file in folder.glob("search/*/*.json")}.items()
    made = results.read(folder / "results.json")
    rows = {row.rule: row for board in made.boards for row in board.rows}
    assert set(rows) == {"backprop", OWN}
    mine = rows[OWN]
    assert mine.test is not None
    assert mine.difference is not None
    assert (mine.test.n, mine.difference.n, mine.failed) == (2, 2, 0)
    assert mine.needs == {"transports": [], "global_error": False, "noisy_phase": True, "passes": 1}
    assert mine.cost.step is not None
    assert mine.cost.step > 0
    assert mine.cost.host_bytes is not None
    assert mine.cost.host_bytes > 2**26
    assert set(mine.angles) == {"block1", "block2", "block3"}
    assert f"model.algorithm={OWN}" in mine.command
    assert mine.config["model"]["algorithm"] == OWN
    assert OWN in (folder / "page.html").read_text()
    assert not (folder / "under_way").exists()


def test_runs_that_diverge_are_kept_and_runs_that_fail_say_why(path: Path, tmp_path: Path) -> None:
    trials = [trial_of(path, rate=1e6), trial_of(path, "datamodule.batch_size=0")]
    said = []
    for run in run_all(trials, tmp_path / "under_way", jobs=2, threads=1, data=None, machine={}):
        try:
            keep(tmp_path, run.trial, run.result())
        except UserError as error:
            said.append(str(error))
    assert len(said) == 1
    assert "datamodule.batch_size" in said[0]
    record = find(tmp_path, trials[0])
    assert record is not None
    assert record["diverged"]
    assert str(tmp_path) not in str(record)


def test_an_interrupted_run_writes_a_checkpoint_from_which_the_next_one_goes_on(path: Path, tmp_path: Path) -> None:
    path.write_text(PLAN.replace("max_epochs=2", "max_epochs=400"))
    under_way = tmp_path / "under_way"
    runs = run_all([trial_of(path)], under_way, jobs=1, threads=1, data=None, machine={})
    previous = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        watcher = subprocess.Popen(
            ["sh", "-c", f"until ls {under_way}/*/checkpoints/last.ckpt; do sleep 0.2; done; kill -ALRM {os.getpid()}"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        with pytest.raises(KeyboardInterrupt):
            next(runs)
        watcher.wait()
    finally:
        signal.signal(signal.SIGALRM, previous)
        runs.close()
    (log,) = under_way.glob("*.log")
    assert "To go on" in log.read_text()


def test_a_rule_that_cannot_be_built_is_left_out_with_its_reason(path: Path, tmp_path: Path) -> None:
    mine = "rules: {backprop: , mine: [model=own, model.algorithm=a.B]}"
    path.write_text(PLAN.replace(f"rules: [backprop, {OWN}]", mine))
    made = probe(plan_file.load(path), TASK, tmp_path / "probe.json", 1, None)
    assert list(made.rules) == ["backprop"]
    assert made.rules["backprop"].ratio == 1
    assert "a.B cannot be imported" in made.failed["mine"]
    assert (made.steps, made.epochs, made.chance) == (10, 2, 0.1)


def test_what_the_feedback_alone_takes_is_timed() -> None:
    common = ["datamodule=digits", "trainer.max_epochs=2", "trainer.gpus=0", "network=mlp"]
    common += ["network.hparams.hidden=[8]", "model.hparams.f_optim.lr=0.01"]
    epochs = ["model.feedback_epochs.before=3", "model.feedback_epochs.after_each=1"]
    rules = {"backprop": ["model=backprop"], "drl": ["model=drl"], "longer": ["model=drl", *epochs]}
    made = probe_worker.measured({rule: [*own, *common] for rule, own in rules.items()}, "backprop")
    assert not made.failed
    assert made.rules["backprop"].feedback == made.rules["drl"].feedback == 0.0
    assert made.rules["longer"].feedback > 0.0
