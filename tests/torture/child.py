"""Runs as child processes with limits: forked from a warm server, or real ones; and how they ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .triggers import Trigger

SUITE = Path(__file__).parents[2]
PATIENCE = 60.0
"""Seconds after which a run counts as hung."""
BOOT = (
    "import sys; sys.path.insert(0, {suite!r}); from tests.torture.server import serve; from pathlib import Path; "
    "sys.path[0] = {project!r}; serve(Path({project!r}))()"
)
QUIET: Mapping[str, str | None] = {"OMP_NUM_THREADS": "1", "COLUMNS": "80", "PYTHONWARNINGS": None}


@dataclass(frozen=True)
class Launch:
    """A run to be started.

    Attributes:
        arguments: of the command line.
        directory: the current one.
        environment: what is set, or with None unset, in it.
        memory: of address space, in bytes; 0 without a limit.
        ignored: numbers of signals that are ignored from the start, as under nohup.
        triggers: what happens to it while it runs.
        ordinary: whether modes of files hold for it, as for an ordinary user, also if the suite is root's.
        code: Python that is run in place of the command line.
    """

    arguments: Sequence[str]
    directory: Path
    environment: Mapping[str, str | None] = field(default_factory=dict)
    memory: int = 0
    ignored: Sequence[int] = ()
    triggers: Sequence[Trigger] = ()
    ordinary: bool = False
    code: str = ""


@dataclass(frozen=True)
class End:
    """How a run ended.

    Attributes:
        code: as subprocess counts it, minus the signal for one that a signal ended; None if it had to be ended.
        stdout: what it printed.
        stderr: and what it printed there.
        left: command lines of the processes that it left behind.
        seconds: how long it took.
    """

    code: int | None
    stdout: str = ""
    stderr: str = ""
    left: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def text(self) -> str:
        """All that it said."""
        return f"{self.stdout}\n{self.stderr}"


class Running:
    """A run under way, forked from a server."""

    def __init__(self, server: Server, pid: int, output: tuple[Path, Path]) -> None:
        self.pid = pid
        self._server, self._output, self._start = server, output, time.monotonic()

    def signal(self, number: int) -> None:
        """Send it one; it cannot have been reaped, so the number is still its own."""
        os.kill(self.pid, number)

    def ends_within(self, seconds: float) -> End | None:
        """How it ended; None if it has not within so many seconds."""
        answer = self._server.ask({"wait": self.pid, "seconds": seconds})
        return None if answer["code"] is None else self._end(answer["code"])

    def end(self, patience: float = PATIENCE) -> End:
        """How it ended, by itself or because of our patience."""
        found = self.ends_within(patience)
        if found is not None:
            return found
        _end_session(self.pid)
        self._server.ask({"wait": self.pid, "seconds": PATIENCE})
        return self._end(None)

    def _end(self, code: int | None) -> End:
        return _ended(code, self._output, self.pid, self._start)


def _ended(code: int | None, output: Sequence[Path], session: int, start: float) -> End:
    seconds = time.monotonic() - start
    stdout, stderr = (path.read_text(errors="replace") for path in output)
    for path in output:
        path.unlink()
    return End(code, stdout, stderr, left_behind(session), seconds)


class Server:
    """A warm process, of this suite's or of another checkout of the project, that forks runs."""

    def __init__(self, project: Path, scratch: Path) -> None:
        self._scratch, self._lock = scratch, threading.Lock()
        boot = BOOT.format(suite=str(SUITE), project=str(project))
        self._process = subprocess.Popen(
            [sys.executable, "-c", boot],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=surroundings(project),
        )
        self._read()

    def start(self, launch: Launch) -> Running:
        """Fork a run."""
        output = tuple(Path(tempfile.mkstemp(dir=self._scratch, prefix=name)[1]) for name in ("stdout", "stderr"))
        asked = {
            "arguments": list(launch.arguments),
            "directory": str(launch.directory),
            "environment": {**QUIET, **launch.environment},
            "memory": launch.memory,
            "ignored": list(launch.ignored),
            "triggers": [asdict(each) for each in launch.triggers],
            "ordinary": launch.ordinary,
            "code": launch.code,
            "stdout": str(output[0]),
            "stderr": str(output[1]),
        }
        return Running(self, self.ask({"start": asked})["pid"], (output[0], output[1]))

    def run(self, launch: Launch, patience: float = PATIENCE) -> End:
        """Fork a run and wait for it."""
        return self.start(launch).end(patience)

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Send a request and wait for the answer."""
        assert self._process.stdin is not None
        with self._lock:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            return self._read()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the server that forks runs ended with code {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """End it, which has no run left."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


class Process:
    """A run as a process of its own, where processes that it starts import its main module anew."""

    def __init__(self, project: Path, launch: Launch, scratch: Path) -> None:
        assert not launch.triggers, "only the server's children have triggers"
        self._output = [Path(tempfile.mkstemp(dir=scratch, prefix=name)[1]) for name in ("stdout", "stderr")]
        self._start = time.monotonic()
        with self._output[0].open("w") as stdout, self._output[1].open("w") as stderr:
            self._process = subprocess.Popen(
                [sys.executable, str(project / "main.py"), *launch.arguments],
                cwd=launch.directory,
                env={**surroundings(project), **{k: v for k, v in launch.environment.items() if v is not None}},
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
            )
        self.pid = self._process.pid

    def signal(self, number: int) -> None:
        """Send it one."""
        self._process.send_signal(number)

    @property
    def ended(self) -> bool:
        """Whether it has."""
        return self._process.poll() is not None

    def end(self, patience: float = PATIENCE) -> End:
        """How it ended, by itself or because of our patience."""
        try:
            code: int | None = self._process.wait(patience)
        except subprocess.TimeoutExpired:
            code = None
            _end_session(self.pid)
            self._process.wait()
        return _ended(code, self._output, self.pid, self._start)


def surroundings(project: Path) -> dict[str, str]:
    """The environment of a run of a checkout: this process's, without what an earlier test may have left there."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "PYTEST_"))}
    for name, value in QUIET.items():
        if value is None:
            kept.pop(name, None)
        else:
            kept[name] = value
    return {**kept, "PYTHONPATH": str(project)}


def left_behind(session: int, patience: float = 3.0) -> tuple[str, ...]:
    """What is left of a session whose leader has ended, after a moment; it is ended now."""
    limit = time.monotonic() + patience  # Python's own tracker of shared memory ends a moment after its parent
    while (found := members(session)) and time.monotonic() < limit:
        time.sleep(0.05)
    _end_session(session)
    return tuple(found.values())


def members(session: int) -> dict[int, str]:
    """The processes of a session that have not ended, and their command lines, in the order of their numbers."""
    found = {}
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            fields = (directory / "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) == session and fields[0] != "Z":
                found[int(directory.name)] = (directory / "cmdline").read_text().replace("\0", " ").strip()
        except OSError:  # it has just ended
            continue
    return dict(sorted(found.items()))


def _end_session(session: int) -> None:
    for pid in members(session):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
