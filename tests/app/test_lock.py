"""A run owns its directory: for as long as it lives, whatever ends it, and no longer."""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from targetprop.app.lock import NAME, owned
from targetprop.utils.errors import UserError

HOLDER = """
import sys, time
from pathlib import Path
from targetprop.app.lock import owned
with owned(Path(sys.argv[1])):
    {inside}
    print("owned", flush=True)
    time.sleep(600)
"""
FORK = """
    import os
    child = os.fork()
    if child == 0:
        time.sleep(600)
    print(child, flush=True)
"""
SPAWN = """
    import subprocess
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], stdout=subprocess.DEVNULL)
    print(child.pid, flush=True)
"""


def hold(folder: Path, inside: str = "pass") -> subprocess.Popen[str]:
    """A process that owns a directory until it is killed."""
    command = [sys.executable, "-c", HOLDER.format(inside=inside.strip()), str(folder)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def said_by(holder: subprocess.Popen[str]) -> str:
    assert holder.stdout is not None
    return holder.stdout.readline().strip()


def test_a_second_run_is_refused_and_told_whose_the_directory_is(tmp_path: Path) -> None:
    holder = hold(tmp_path / "run")
    try:
        assert said_by(holder) == "owned"
        with pytest.raises(UserError) as refused, owned(tmp_path / "run"):
            pass
    finally:
        holder.kill()
        holder.communicate()
    said = str(refused.value)
    assert "\n" not in said
    assert f"{tmp_path / 'run'} belongs to a run" in said
    assert re.search(rf"process {holder.pid} on {re.escape(socket.gethostname())} since \d{{4}}-\d\d-\d\d \d\d:", said)
    assert "hydra.run.dir" in said


def test_two_runs_of_one_process_are_two_runs(tmp_path: Path) -> None:
    with owned(tmp_path), pytest.raises(UserError, match=f"process {os.getpid()} "), owned(tmp_path):
        pass


def test_a_refused_run_leaves_the_first_one_its_directory(tmp_path: Path) -> None:
    with owned(tmp_path):
        for _ in range(2):
            with pytest.raises(UserError), owned(tmp_path):
                pass


def test_nothing_is_left_of_a_run_that_has_ended(tmp_path: Path) -> None:
    for _ in range(2):
        with owned(tmp_path / "run"):
            pass
    assert not list((tmp_path / "run").iterdir())


@pytest.mark.parametrize("inside", ["pass", FORK, SPAWN], ids=["alone", "forked", "spawned"])
def test_a_killed_run_owns_nothing_even_if_its_children_live_on(tmp_path: Path, inside: str) -> None:
    holder = hold(tmp_path, inside)
    child = None if inside == "pass" else int(said_by(holder))
    try:
        assert said_by(holder) == "owned"
        holder.kill()
        holder.wait()
        assert (tmp_path / NAME).exists(), "a killed process cannot remove it"
        with owned(tmp_path):
            pass
    finally:
        holder.kill()
        if child is not None:
            os.kill(child, signal.SIGKILL)
        holder.communicate()


def test_a_forked_process_that_is_slow_to_let_go_is_waited_for(tmp_path: Path) -> None:
    """A run that is killed at the very fork: its child lets go of the lock when it is given the processor next."""
    ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], stdout=subprocess.PIPE, check=True)
    with (tmp_path / NAME).open("w") as left:
        json.dump({"pid": int(ended.stdout), "host": socket.gethostname(), "since": "just now"}, left)
        left.flush()
        fcntl.flock(left, fcntl.LOCK_EX)
        late = threading.Timer(0.5, fcntl.flock, (left, fcntl.LOCK_UN))
        late.start()
        with owned(tmp_path):
            pass
        late.join()


def test_a_file_that_its_owner_removes_in_between_is_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the opening of the file and its locking."""
    lock, calls = fcntl.flock, []

    def late(file: int, operation: int) -> None:
        calls.append(file)
        if len(calls) == 1:
            (tmp_path / NAME).unlink()
        lock(file, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    with owned(tmp_path):
        assert len(calls) == 2
        with pytest.raises(UserError), owned(tmp_path):
            pass


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'{"pid": 1}', b"\xff\x00"])
def test_what_is_not_readable_in_the_file_does_not_matter(tmp_path: Path, content: bytes) -> None:
    with owned(tmp_path):
        (tmp_path / NAME).write_bytes(content)
        with pytest.raises(UserError, match="belongs to a run that is under way"), owned(tmp_path):
            pass


def test_without_locks_a_run_goes_on_and_says_so_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def unsupported(file: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", unsupported)
    with caplog.at_level(logging.WARNING), owned(tmp_path):
        pass
    assert [record.message.startswith(f"No lock for {tmp_path}") for record in caplog.records] == [True]


def test_a_directory_that_cannot_be_made_is_a_mistake_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"hydra.run.dir.*file/run cannot be written to"), owned(tmp_path / "file/run"):
        pass
