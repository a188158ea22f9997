"""Processes that die, stop, or are told to end: the run ends soon, says why, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import idle_workers
import pytest
import torch.distributed as dist
from kill_workers import processes

from targetprop.app.processes import speaks_for_run
from targetprop.app.workers.signs import INTERVAL, STARTING, Board, Progress, Roll, Sign, worker_timeout
from targetprop.utils.errors import UserError

PATIENCE = 180.0
"""Seconds to wait for anything: far more than it takes."""


def sign(number: int, *, left: bool = False) -> Sign:
    return Sign(100 + number, "somewhere", number, "training step 7", 0.5, "runs/1", left)


@pytest.mark.parametrize("given", [4.9, 0, -1, "abc", None, True, float("nan"), float("inf"), [60]])
def test_a_timeout_that_is_no_number_or_too_short_is_refused(given: Any) -> None:
    with pytest.raises(UserError, match=r"^trainer.worker_timeout: expected a number of seconds, 5 or more, got"):
        worker_timeout({"trainer": {"worker_timeout": given}})


def test_a_configuration_without_a_timeout_is_refused() -> None:
    with pytest.raises(UserError, match=r"^trainer.worker_timeout: expected .* got None"):
        worker_timeout({"trainer": {}})


def test_only_a_new_sign_is_a_sign_of_life() -> None:
    roll = Roll(2, limit=5)
    for number in range(9):
        roll.look({0: sign(number), 1: sign(0)}, seconds=1)
    assert roll.silent == [0, 8]
    assert roll.lost(roll.present) == 1
    assert roll.lost([0]) is None
    roll.look({0: sign(9), 1: sign(1)}, seconds=1)
    assert roll.lost(roll.present) is None


def test_of_several_the_one_that_is_silent_for_longest_is_named() -> None:
    roll = Roll(3, limit=5)
    roll.look({0: sign(1), 1: sign(1), 2: sign(1)}, seconds=1)
    roll.look({0: sign(1), 1: sign(2), 2: sign(1)}, seconds=1)
    roll.look({0: sign(1), 1: sign(3), 2: sign(2)}, seconds=1)
    for _ in range(20):
        roll.look({}, seconds=1)
    assert roll.lost(roll.present) == 0
    said = roll.does_not_respond(0)
    assert "Process 0 (pid 101 on somewhere)" in said
    assert "22 s ago" in said
    assert "training step 7" in said
    assert "trainer.worker_timeout=5" in said


def test_while_the_one_who_looks_is_stopped_nobody_is_silent() -> None:
    """Ctrl-Z, a suspended job, a laptop that sleeps."""
    roll = Roll(2, limit=5)
    roll.look({0: sign(1), 1: sign(1)}, seconds=1)
    roll.look({0: sign(1), 1: sign(1)}, seconds=3600)
    assert roll.silent == [2 * INTERVAL] * 2
    assert roll.lost(roll.present) is None


def test_who_has_ended_is_not_missed() -> None:
    roll = Roll(2, limit=5)
    for number in range(20):
        roll.look({0: sign(number), 1: sign(1, left=True)}, seconds=1)
    assert roll.present == [0]
    assert roll.lost(roll.present) is None


def test_a_process_that_is_starting_has_longer_for_its_first_sign() -> None:
    roll = Roll(1, limit=5)
    for _ in range(int(STARTING)):
        roll.look({}, seconds=1)
    assert roll.lost([0]) is None
    roll.look({}, seconds=1)
    assert roll.lost([0]) == 0


def test_the_clock_on_the_wall_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    progress = Progress()
    first = progress.sign("")
    monkeypatch.setattr(time, "time", lambda: 0.0)
    later = progress.sign("")
    assert later.number == first.number + 1
    assert 0 <= first.seconds <= later.seconds < PATIENCE


def test_signs_go_through_a_store() -> None:
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # type: ignore[attr-defined]
    boards = [Board(store, 3), Board(store, 3)]
    assert boards[0].read() == {}
    boards[0].put(2, sign(1))
    assert boards[1].read() == {2: sign(1)}
    boards[1].put(0, sign(2, left=True))
    boards[0].put(2, sign(3))
    assert boards[0].read() == boards[1].read() == {0: sign(2, left=True), 2: sign(3)}


def test_the_directory_of_a_run_belongs_to_one_of_its_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert speaks_for_run(), "alone"
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert not speaks_for_run()
    monkeypatch.setenv("RANK", "0")
    assert speaks_for_run(), "under torchrun"
    monkeypatch.setenv("TARGETPROP_LAUNCHED", "1")
    assert not speaks_for_run(), "its parent does"


def test_only_a_sibling_is_killed() -> None:
    sleeping = [sys.executable, "-c", "import time; time.sleep(600)"]
    sibling = subprocess.Popen(sleeping)
    script = "import sys; from targetprop.app.workers.watch import kill_sibling as k; [k(int(p)) for p in sys.argv[1:]]"
    subprocess.run([sys.executable, "-c", script, str(os.getpid()), str(sibling.pid), "999999999"], check=True)
    assert sibling.wait() == -signal.SIGKILL


@dataclass
class Idle:
    """Processes that run `idle_workers`.

    Attributes:
        command: what started them, with a session of its own.
        directory: where they write.
    """

    command: subprocess.Popen[str]
    directory: Path

    def pid(self, rank: int) -> int:
        """Of a process, once it has joined the others."""
        return int(self.appearing(self.directory / "pids" / str(rank)).read_text())

    def appearing(self, file: Path) -> Path:
        self.until(file.is_file)
        return file

    def until(self, met: Callable[[], bool]) -> None:
        limit = time.monotonic() + PATIENCE
        while not met():
            assert time.monotonic() < limit, "nothing happens"
            assert self.command.poll() is None or met(), self.command.communicate()[0]
            time.sleep(0.05)

    def end(self) -> tuple[int, str]:
        """Its exit code, and what it has said, on one line."""
        said, _ = self.command.communicate(timeout=PATIENCE)
        return self.command.returncode, " ".join(said.split())

    def left(self, patience: float = 20.0) -> list[int]:
        """Processes left behind, after a while."""
        limit = time.monotonic() + patience
        while processes(self.command.pid) and time.monotonic() < limit:
            time.sleep(0.1)
        return processes(self.command.pid)


Start = Callable[..., Idle]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts processes, and leaves none."""
    started: list[subprocess.Popen[str]] = []
    (tmp_path / "temporary").mkdir()

    def start(do: str, *options: str, launcher: tuple[str, ...] = ()) -> Idle:
        command = [sys.executable, *launcher, idle_workers.__file__, str(tmp_path), f"--do={do}", *options]
        environment = {**os.environ, "TMPDIR": str(tmp_path / "temporary"), "GLOO_SOCKET_IFNAME": "lo"}
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        started.append(subprocess.Popen(command, env=environment, start_new_session=True, **pipes))
        return Idle(started[-1], tmp_path)

    yield start
    for run in started:
        of_torchrun = [int(each.parent.name) for each in Path("/proc").glob("[0-9]*/cmdline") if names(each, tmp_path)]
        for pid in {*processes(run.pid), *of_torchrun}:
            os.kill(pid, signal.SIGKILL)
        run.communicate()


def names(command_line: Path, directory: Path) -> bool:
    """Whether the command line of a process, which may have ended, names a directory."""
    try:
        return os.fsencode(directory) in command_line.read_bytes()
    except OSError:
        return False


def temporary(idle: Idle) -> list[str]:
    """What of ours is left in the directory of temporary files; torch has a cache of its own there."""
    return [each.name for each in (idle.directory / "temporary").iterdir() if not each.name.startswith("torchinductor")]


TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
HERE = socket.gethostname()


def test_a_stopped_process_ends_the_run_and_is_named(start: Start) -> None:
    idle = start("exchange")
    stopped, other = idle.pid(1), idle.pid(0)
    time.sleep(3 * INTERVAL)  # so that a sign tells of steps
    os.kill(stopped, signal.SIGSTOP)
    code, said = idle.end()
    assert code == 1
    assert f"Process 1 (pid {stopped} on {HERE}) does not respond (trainer.worker_timeout=5): last sign of life" in said
    assert "at training step" in said
    assert "There was no checkpoint yet." in said
    assert not idle.left()
    assert not temporary(idle)
    assert not [each for each in (stopped, other) if Path(f"/proc/{each}").exists()]


def test_a_killed_process_ends_the_run_and_is_named(start: Start) -> None:
    idle = start("exchange")
    killed = idle.pid(1)
    idle.pid(0)
    os.kill(killed, signal.SIGKILL)
    code, said = idle.end()
    assert code == 1
    assert f"Process 1 (pid {killed}) was ended by SIGKILL on {HERE}, and so did the run; last sign of life" in said
    assert not idle.left()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends what is stopped")
def test_nothing_outlives_a_killed_parent_not_even_what_is_stopped(start: Start) -> None:
    idle = start("exchange")
    os.kill(idle.pid(1), signal.SIGSTOP)
    idle.pid(0)
    os.kill(idle.command.pid, signal.SIGKILL)
    idle.command.wait()
    assert not idle.left()
    assert not temporary(idle)


def test_who_is_long_at_something_is_not_taken_for_dead(start: Start) -> None:
    """Process 0 validates, or writes, for longer than the timeout, while process 1 waits for it."""
    code, said = start("wait").end()
    assert code == 0, said
    assert said.endswith("{'rank': 0.0}")


def test_a_mistake_is_told_by_whoever_finds_it(start: Start) -> None:
    code, said = start("leave").end()
    assert code == 1
    assert said.endswith("Error: mistake: expected another one, got this")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_reaches_each_process_once_and_ends_the_run_as_signals_do(start: Start, number: int) -> None:
    """One for the whole group, as Ctrl-C is, and twice for the parent, as `timeout` sends it."""
    idle = start("stop")
    for rank in (0, 1):
        idle.pid(rank)
    os.killpg(idle.command.pid, number)
    os.kill(idle.command.pid, number)
    code, said = idle.end()
    assert code == 128 + number, said
    assert [(idle.directory / f"heard-{rank}").read_text() for rank in (0, 1)] == ["1", "1"]
    assert not idle.left()


def test_a_second_signal_ends_the_run_at_once(start: Start) -> None:
    idle = start("exchange", "--timeout=1000")
    idle.pid(0)
    os.kill(idle.pid(1), signal.SIGSTOP)
    os.kill(idle.command.pid, signal.SIGTERM)  # which a stopped process does not hear
    time.sleep(2)
    assert idle.command.poll() is None
    os.kill(idle.command.pid, signal.SIGTERM)
    assert idle.end()[0] == 128 + signal.SIGTERM
    assert not idle.left()


@pytest.mark.slow
def test_processes_pause_with_their_parent_and_go_on_with_it(start: Start) -> None:
    """Ctrl-Z, for longer than a process may be silent."""
    idle = start("exchange")
    workers = [idle.pid(rank) for rank in (0, 1)]
    os.kill(idle.command.pid, signal.SIGTSTP)
    idle.until(lambda: [state(pid) for pid in (idle.command.pid, *workers)] == ["T"] * 3)
    time.sleep(10)
    os.kill(idle.command.pid, signal.SIGCONT)
    time.sleep(10)
    assert idle.command.poll() is None, idle.end()
    assert "T" not in [state(pid) for pid in (idle.command.pid, *workers)]


def state(pid: int) -> str:
    """Of a process, as the kernel calls it: T is stopped."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


@pytest.mark.slow
def test_a_stopped_parent_does_not_keep_its_processes(start: Start) -> None:
    idle = start("exchange")
    workers = [idle.pid(rank) for rank in (0, 1)]
    os.kill(idle.command.pid, signal.SIGSTOP)
    idle.until(lambda: all(state(pid) == "Z" for pid in workers))
    os.kill(idle.command.pid, signal.SIGCONT)
    code, said = idle.end()
    assert code == 1
    assert "has not answered process 0 for" in said


@pytest.mark.slow
@pytest.mark.parametrize("stopped", [0, 1])
def test_a_stopped_process_is_named_under_torchrun(start: Start, stopped: int) -> None:
    idle = start("exchange", launcher=TORCHRUN)
    pids = [idle.pid(rank) for rank in (0, 1)]
    os.kill(pids[stopped], signal.SIGSTOP)
    code, said = idle.end()
    assert code == 1
    assert f"Process {stopped} (pid {pids[stopped]} on {HERE}) does not respond (trainer.worker_timeout=5): " in said
    assert said.count("does not respond") == 1, said
    idle.until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))


@pytest.mark.slow
def test_a_killed_process_is_named_under_torchrun(start: Start) -> None:
    idle = start("exchange", launcher=TORCHRUN)
    pids = [idle.pid(rank) for rank in (0, 1)]
    os.kill(pids[1], signal.SIGKILL)
    code, said = idle.end()
    assert code == 1
    assert f"Process 1 (pid {pids[1]} on {HERE}) has ended: last sign of life" in said


@pytest.mark.slow
def test_a_mistake_is_all_that_is_told_under_torchrun(start: Start) -> None:
    code, said = start("leave", launcher=TORCHRUN).end()
    assert code == 1
    assert "Error: mistake: expected another one, got this" in said
    assert "has ended" not in said
    assert "does not respond" not in said


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends what is stopped")
def test_nothing_outlives_a_killed_torchrun(start: Start) -> None:
    idle = start("exchange", launcher=TORCHRUN)
    pids = [idle.pid(rank) for rank in (0, 1)]
    os.kill(pids[1], signal.SIGSTOP)
    os.kill(idle.command.pid, signal.SIGKILL)
    idle.command.wait()
    limit = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() and state(pid) != "Z" for pid in pids) and time.monotonic() < limit:
        time.sleep(0.1)
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists() and state(pid) != "Z"]
