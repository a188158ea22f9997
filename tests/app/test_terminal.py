"""The command in a terminal, as it is seen: no line of the log is lost, and Ctrl-C says how to go on."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from pseudo_terminal import CONTROL_C, Keys, Seen, run_in_terminal

from targetprop.app.report.summary import MOST

QUICK = ("model=backprop", "trainer.threads=1", "datamodule.batch_size=16", "callbacks.genuineness=null")
COMMAND = (sys.executable, "-m", "targetprop")
FOREIGN = ("Lightning", "HPU", "dirpath", "Restor", "Detected", "Traceback", "Warning", "LOCAL_RANK")


def epochs(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"Epoch (\d+)/\d+: loss", text)]


@pytest.mark.slow
@pytest.mark.parametrize("columns", [80, 110, 200])
def test_every_epoch_has_its_line_at_any_width(columns: int, tmp_path: Path) -> None:
    drawn: set[str] = set()

    def watch(seen: Seen, press: Keys) -> None:
        drawn.update(re.findall(r"^Epoch (\d+/20)[ ,]", seen.text, re.MULTILINE))

    call = (*COMMAND, *QUICK[1:], "model=dtp", "trainer.limit_train_batches=30", "trainer.max_epochs=20",
            "model.hparams.feedback_training_iterations=2", "callbacks.progress.refresh_rate=3")  # fmt: skip
    code, seen = run_in_terminal(call, tmp_path, columns, watch=watch)
    assert code == 0, seen.text
    assert epochs("".join(seen.lines)) == [*range(1, 21)]
    assert {f"{number}/20" for number in range(1, 21)} >= drawn >= {"1/20", "20/20"}
    assert seen.lines.index(next(line for line in seen.lines if "Training into" in line)) <= MOST
    before_the_table = seen.text.partition("Accuracy (%)")[0]
    assert "━" not in before_the_table
    assert not any(word in seen.text for word in FOREIGN)


def test_control_c_says_how_to_go_on_and_so_it_does(tmp_path: Path) -> None:
    pressed: list[str] = []

    def watch(seen: Seen, press: Keys) -> None:
        if "Epoch 2/3 " in seen.text and not pressed:
            pressed.append(seen.text)
            press(CONTROL_C)

    code, seen = run_in_terminal((*COMMAND, *QUICK, "trainer.max_epochs=3"), tmp_path, 110, watch=watch)
    assert code == 130, seen.text
    assert epochs(seen.text) == [1]
    assert not any(word in seen.text for word in FOREIGN)
    assert "━" not in seen.text
    said = "".join(seen.lines).partition("To go on: ")[2].partition("ckpt_path=last")[0] + "ckpt_path=last"
    assert said.startswith("python -m targetprop hydra.run.dir=")
    ended = subprocess.run(
        [*COMMAND, *shlex.split(said)[3:]], cwd=tmp_path, capture_output=True, text=True, timeout=600
    )
    assert ended.returncode == 0, ended.stderr
    assert epochs(ended.stdout) == [2, 3]
    assert not ended.stderr
    assert not any(word in ended.stdout for word in FOREIGN)
    messages = [line for line in ended.stdout.splitlines() if line.startswith("[")]
    assert all(re.match(r"\[\d\d:\d\d:\d\d\] \S", line) for line in messages)
    assert any(line.endswith("checkpoints/best.ckpt") for line in messages), "in one line, however long"


def test_control_c_before_there_is_a_run_is_one_line(tmp_path: Path) -> None:
    start = "import sys\nsys.argv = ['main.py', 'model=dtp']\n"
    late = "import targetprop.app.cli as cli\ncli.run = lambda: (_ for _ in ()).throw(KeyboardInterrupt)\ncli.main()\n"
    code, seen = run_in_terminal((sys.executable, "-c", start + late), tmp_path, 80)
    assert code == 130
    assert seen.text.strip() == "Interrupted: nothing was under way that could go on."
