"""Faults planted in the oracle's own path: each must be counted wrong, and what is right must not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.tensorboard import SummaryWriter

from . import oracle, records
from .child import End, Launch, Process

ERROR = "Error: model.hparams.beta: expected a number above 0, got -1\n"
ROWS = ["step,val/accuracy,seconds", "0,,1.5", "5,0.25,1.75", "6,0.5,2.0"]
STOPPED = "Stopped by SIGTERM. python main.py trainer.max_epochs=3 'hydra.run.dir=a b' ckpt_path=last\n"


def write_run(run: Path) -> Path:
    """A directory as a run leaves it, as small as can be."""
    (run / "checkpoints").mkdir(parents=True)
    (run / "csv").mkdir()
    saved = {
        "state_dict": {"weight": torch.arange(4.0)},
        "optimizer_states": [{"state": {0: {"momentum_buffer": torch.ones(2)}}, "param_groups": [{"lr": 0.04}]}],
        "lr_schedulers": [{"last_epoch": 2}],
        "global_step": 7,
        "epoch": 1,
        "callbacks": {"History": {"epochs": [{"train/loss": 1.5, "seconds": 0.3}]}},
    }
    for name in ("last", "best"):
        torch.save(saved, run / "checkpoints" / f"{name}.ckpt")
    (run / "csv" / "metrics.csv").write_text("\n".join(ROWS) + "\n")
    write_events(run, range(4))
    (run / "results.json").write_text(json.dumps({"test": {"accuracy": 0.5}, "epoch_seconds": [0.3]}))
    return run


def write_events(run: Path, steps: range | list[int]) -> None:
    with SummaryWriter(str(run / "tensorboard")) as writer:
        for step in steps:
            writer.add_scalar("loss", 0.5 * step, step)


def change_checkpoint(change: Callable[[Any], object]) -> Callable[[Path], object]:
    def fault(run: Path) -> None:
        path = run / "checkpoints" / "last.ckpt"
        saved = torch.load(path, weights_only=True)
        change(saved)
        torch.save(saved, path)

    return fault


def flip_a_bit(saved: Any) -> None:
    saved["state_dict"]["weight"].view(torch.uint8)[5] ^= 1


def replace_rows(rows: list[str]) -> Callable[[Path], object]:
    return lambda run: (run / "csv" / "metrics.csv").write_text("\n".join(rows) + "\n")


def replace_events(steps: list[int]) -> Callable[[Path], object]:
    def fault(run: Path) -> None:
        shutil.rmtree(run / "tensorboard")
        write_events(run, steps)

    return fault


OTHER_RECORDS: dict[str, Callable[[Path], object]] = {
    "one bit of a weight": change_checkpoint(flip_a_bit),
    "a momentum": change_checkpoint(lambda c: c["optimizer_states"][0]["state"][0]["momentum_buffer"].zero_()),
    "a learning rate": change_checkpoint(lambda c: c["optimizer_states"][0]["param_groups"][0].update(lr=0.05)),
    "no schedule": change_checkpoint(lambda c: c.pop("lr_schedulers")),
    "a step": change_checkpoint(lambda c: c.update(global_step=8)),
    "a row of the history": change_checkpoint(lambda c: c["callbacks"]["History"]["epochs"].pop()),
    "no checkpoint": lambda run: (run / "checkpoints" / "best.ckpt").unlink(),
    "a row missing": replace_rows(ROWS[:-1]),
    "a row doubled": replace_rows([*ROWS[:2], *ROWS[1:]]),
    "rows in another order": replace_rows([ROWS[0], *ROWS[:0:-1]]),
    "another number in a row": replace_rows([*ROWS[:-1], "6,0.50001,2.0"]),
    "a step missing in TensorBoard": replace_events([0, 1, 3]),
    "a step doubled in TensorBoard": lambda run: write_events(run, [3]),
    "other results": lambda run: (run / "results.json").write_text('{"test": {"accuracy": 0.51}}'),
    "no results": lambda run: (run / "results.json").unlink(),
}


@pytest.mark.parametrize("fault", OTHER_RECORDS.values(), ids=OTHER_RECORDS)
def test_another_record_is_wrong(tmp_path: Path, fault: Callable[[Path], object]) -> None:
    expected = records.read(write_run(tmp_path / "first"))
    run = write_run(tmp_path / "second")
    fault(run)
    assert oracle.equal(End(0), run, expected)


def test_an_equal_run_is_right_whatever_the_clock_says(tmp_path: Path) -> None:
    expected = records.read(write_run(tmp_path / "first"))
    run = write_run(tmp_path / "second")
    replace_rows([line[:-1] + "9" if line[-1].isdigit() else line for line in ROWS])(run)
    change_checkpoint(lambda c: c["callbacks"]["History"]["epochs"][0].update(seconds=9.0))(run)
    assert oracle.equal(End(0), run, expected) == []


def test_steps_that_come_again_after_a_declared_restart_are_right(tmp_path: Path) -> None:
    """TensorBoard itself drops what stands behind the step from which a new file says that it goes on."""
    expected = records.read(write_run(tmp_path / "first"))
    run = write_run(tmp_path / "second")
    with SummaryWriter(str(run / "tensorboard"), purge_step=3, filename_suffix=".later") as writer:
        writer.add_scalar("loss", 1.5, 3)
    assert oracle.equal(End(0), run, expected) == []


BAD_ENDS = {
    "a code": End(1, stderr=ERROR),
    "a signal": End(-9),
    "a hang": End(None),
    "a process left": End(0, left=("python main.py",)),
    "a traceback with code 0": End(0, stdout="Traceback (most recent call last):\n  ...\n"),
}


@pytest.mark.parametrize("end", BAD_ENDS.values(), ids=BAD_ENDS)
def test_equal_records_do_not_excuse_a_bad_end(tmp_path: Path, end: End) -> None:
    run = write_run(tmp_path / "run")
    assert oracle.equal(end, run, records.read(run))


def test_one_line_with_the_key_is_right() -> None:
    assert oracle.refused(End(1, stderr=ERROR), ["model.hparams.beta"]) == []
    assert oracle.refused(End(1, stderr=ERROR), ["model.hparams"]) == []  # a value in place of the whole section


BAD_REFUSALS = {
    "code 0": End(0, stderr=ERROR),
    "a signal": End(-6, stderr=ERROR),
    "a hang": End(None, stderr=ERROR),
    "a process left": End(1, stderr=ERROR, left=("python main.py",)),
    "another key": End(1, stderr="Error: model.hparams.beta2: expected a number, got -1\n"),
    "another section": End(1, stderr="Error: other_model.hparams.beta: expected a number, got -1\n"),
    "two lines": End(1, stderr=ERROR * 2),
    "a line before": End(1, stderr="Error executing job with overrides: []\n" + ERROR),
    "no line": End(1),
    "no error": End(1, stderr="model.hparams.beta\n"),
    "a traceback": End(1, stderr="Traceback (most recent call last):\n" + ERROR),
    "a traceback beside it": End(1, stdout="Traceback (most recent call last):\n", stderr=ERROR),
    "an endless line": End(1, stderr=ERROR[:-1] + "!" * 10_000),
}


@pytest.mark.parametrize("end", BAD_REFUSALS.values(), ids=BAD_REFUSALS)
def test_any_other_refusal_is_wrong(end: End) -> None:
    assert oracle.refused(end, ["model.hparams.beta"])


def test_a_run_that_means_something_is_right(tmp_path: Path) -> None:
    assert oracle.finite(End(0), write_run(tmp_path / "run"), least_accuracy=0.5) == []


NONSENSE: dict[str, Callable[[Path], object]] = {
    "weights that are no numbers": change_checkpoint(lambda c: c["state_dict"]["weight"].fill_(torch.nan)),
    "a result that is no number": lambda run: (run / "results.json").write_text('{"test": {"accuracy": NaN}}'),
    "no result": lambda run: (run / "results.json").unlink(),
    "chance": lambda run: (run / "results.json").write_text('{"test": {"accuracy": 0.1}}'),
}


@pytest.mark.parametrize("fault", NONSENSE.values(), ids=NONSENSE)
def test_code_0_with_nonsense_is_wrong(tmp_path: Path, fault: Callable[[Path], object]) -> None:
    run = write_run(tmp_path / "run")
    fault(run)
    assert oracle.finite(End(0), run, least_accuracy=0.3)


def test_a_signal_that_is_answered_is_right() -> None:
    end = End(128 + 15, stdout=STOPPED)
    assert oracle.stopped(end, 15, had_begun=True) == []
    assert oracle.command_that_goes_on(end) == ["trainer.max_epochs=3", "hydra.run.dir=a b", "ckpt_path=last"]
    assert oracle.stopped(End(-9), 9, had_begun=True) == []
    assert oracle.stopped(End(-15), 15, had_begun=False) == []


BAD_STOPS = {
    "code 0": End(0, stdout=STOPPED),
    "no checkpoint": End(-15),
    "no command": End(128 + 15, stdout="Stopped by SIGTERM.\n"),
    "a command in two lines": End(128 + 15, stdout=STOPPED.replace(" ckpt", "\nckpt")),
    "another signal's code": End(128 + 2, stdout=STOPPED),
    "a traceback": End(128 + 15, stdout=STOPPED, stderr="Traceback (most recent call last):\n"),
    "a hang": End(None, stdout=STOPPED),
}


@pytest.mark.parametrize("end", BAD_STOPS.values(), ids=BAD_STOPS)
def test_any_other_answer_to_a_signal_is_wrong(end: End) -> None:
    assert oracle.stopped(end, 15, had_begun=True)


def test_a_record_that_is_gone_is_wrong(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    before = records.fingerprint(run)
    assert len(before) == 5
    (run / "results.json").rename(run / "results.old.json")
    assert oracle.kept(before, run) == []
    replace_rows(ROWS[:-1])(run)
    assert oracle.kept(before, run) == ["csv/metrics.csv of the first run is gone"]


def test_a_hang_and_what_is_left_behind_are_seen_in_real_processes(tmp_path: Path) -> None:
    main = "import subprocess, sys, time\nsubprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
    (tmp_path / "main.py").write_text(main + "time.sleep(60 if sys.argv[1:] else 0)\n")
    left = Process(tmp_path, Launch([], tmp_path), tmp_path).end()
    assert left.code == 0
    assert len(left.left) == 1
    hung = Process(tmp_path, Launch(["hang"], tmp_path), tmp_path).end(patience=1.0)
    assert hung.code is None
    assert [said.startswith(oracle.HUNG) for said in oracle.refused(replace(hung, left=()), ["x"])] == [True]
