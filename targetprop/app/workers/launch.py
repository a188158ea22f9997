"""Starting the processes of a run on one machine, and what becomes of them, as their parent sees it."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import connection, resource_tracker
from pathlib import Path
from types import FrameType
from typing import Any

import torch.distributed as dist

from targetprop.app.processes import LAUNCHED
from targetprop.app.signals import AGAIN, ENDING
from targetprop.app.workers.child import Answer, Work, start
from targetprop.app.workers.kept import kept_in
from targetprop.app.workers.signs import INTERVAL, Board, Roll, worker_timeout
from targetprop.utils.errors import UserError

POLL = 0.1
"""Seconds from one look at the processes to the next."""
PATIENCE = 300.0
"""Seconds that processes have to finish their step and to write a checkpoint, once a signal has asked them to end.

Also to end, once they are done: loggers may have to send what they have.
"""

log = logging.getLogger(__name__)


def launch(work: Work, config: dict[str, Any], count: int, job_logging: Mapping[str, Any]) -> dict[str, float]:
    """Run `work` in so many processes on this machine, on a free port, and return the metrics of process 0.

    If one process ends early, or gives no sign of life for `trainer.worker_timeout` seconds, all are ended. A signal
    that ends runs is passed on to them, once, and they are waited for; the second one ends them at once.

    Raises:
        UserError: what the failing process said, or what ended it.
        SystemExit: a signal has ended the run; the code is 128 and its number.
    """
    if sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # else a host without a resolvable name has no address
    launched = Launched(count, worker_timeout(config), Path(config["output_dir"]))
    with launched.signals():
        try:
            launched.start(work, config, job_logging)
            return launched.wait()
        finally:
            launched.kill()


@dataclass
class Worker:
    """A process that was started.

    Attributes:
        rank: of it.
        process: its handle.
        answers: where its answer comes from.
        answer: None until then.
    """

    rank: int
    process: multiprocessing.process.BaseProcess
    answers: connection.Connection
    answer: Answer | None = None

    @property
    def is_running(self) -> bool:
        return self.process.exitcode is None

    def listen(self) -> None:
        """Take its answer, if it has given one."""
        try:
            if self.answer is None and self.answers.poll():
                self.answer = self.answers.recv()
        except (EOFError, OSError):  # it has ended without
            pass

    def send(self, number: int) -> None:
        """Send it a signal, if it is still there."""
        if self.is_running and self.process.pid is not None:
            os.kill(self.process.pid, number)


class Launched:
    """The processes of a run on this machine.

    Args:
        count: how many there are.
        limit: for how many seconds one may be silent.
        output_dir: of the run.
    """

    def __init__(self, count: int, limit: float, output_dir: Path) -> None:
        self.count = count
        self.output_dir = output_dir
        self.roll = Roll(count, limit)
        self.workers: list[Worker] = []
        self._patience = max(PATIENCE, limit)
        self._store = _store()
        self._board = Board(self._store, count)
        self._heard: tuple[int, float] | None = None
        self._heard_again = self._passed_on = False

    def start(self, work: Work, config: dict[str, Any], job_logging: Mapping[str, Any]) -> None:
        """Start them all."""
        context = multiprocessing.get_context("spawn")
        common = {
            "WORLD_SIZE": str(self.count), "LOCAL_WORLD_SIZE": str(self.count), LAUNCHED: "1",
            "MASTER_ADDR": self._store.host, "MASTER_PORT": str(self._store.port),
            "TORCHELASTIC_USE_AGENT_STORE": "True",  # so torch takes our store, rather than one that process 0 keeps
        }  # fmt: skip
        for rank in range(self.count):
            if self._heard:
                return
            receiving, sending = context.Pipe(duplex=False)
            environment = {**common, "RANK": str(rank), "LOCAL_RANK": str(rank)}
            arguments = (environment, sending, os.getpid(), work, config, dict(job_logging))
            process = context.Process(target=start, args=arguments)
            with _blocked():
                process.start()
            self.workers.append(Worker(rank, process, receiving))
            sending.close()

    def wait(self) -> dict[str, float]:
        """Until all have ended; the metrics of process 0."""
        looked = time.monotonic()
        while running := [each for each in self.workers if each.is_running]:
            connection.wait([each.process.sentinel for each in running], POLL)
            self._pass_on()
            self._check_ends()
            now = time.monotonic()
            if now - looked >= INTERVAL:
                self._check_signs(now - looked)
                looked = now
            if self._heard and now - self._heard[1] > self._patience:
                slow = ", ".join(str(each.rank) for each in self.workers if each.is_running)
                log.warning("Processes %s did not end by themselves and are killed.", slow)
                break
        self._check_ends()
        codes = [each.process.exitcode or 0 for each in self.workers if each.answer is None]
        if self._heard or codes:
            raise SystemExit(128 + self._heard[0] if self._heard else max(codes))
        metrics = self.workers[0].answer
        assert isinstance(metrics, dict)
        return metrics

    def kill(self) -> None:
        """Leave none behind, not even one that is stopped."""
        for each in self.workers:
            each.process.kill()
        for each in self.workers:
            each.process.join()
            each.answers.close()

    @contextmanager
    def signals(self) -> Iterator[None]:
        """Within it, signals reach the processes, which hear of none themselves."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        handlers = {number: self._hear for number in ENDING if signal.getsignal(number) != signal.SIG_IGN}
        if hasattr(signal, "SIGTSTP") and signal.getsignal(signal.SIGTSTP) == signal.SIG_DFL:
            handlers[signal.SIGTSTP] = self._pause
        before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        try:
            yield
        finally:
            for number, was in before.items():
                signal.signal(number, was)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._heard is None:
            self._heard = number, now
        elif now - self._heard[1] > AGAIN:
            self._heard_again = True

    def _pass_on(self) -> None:
        if self._heard and not self._passed_on:
            self._passed_on = True
            self._send(self._heard[0])
        if self._heard_again:
            self._send(signal.SIGKILL)

    def _pause(self, number: int, frame: FrameType | None) -> None:
        """Ctrl-Z: stop the processes and this one, until it is told to go on."""
        self._send(signal.SIGSTOP)
        os.kill(os.getpid(), signal.SIGSTOP)
        self._send(signal.SIGCONT)

    def _send(self, number: int) -> None:
        for each in self.workers:
            each.send(number)

    def _check_signs(self, seconds: float) -> None:
        self.roll.look(self._board.read(), seconds)
        at_work = [each for each in self.workers if each.is_running and each.answer is None]
        lost = self.roll.lost([each.rank for each in at_work if each.rank in self.roll.present])
        if lost is not None:
            if lost not in self.roll.signs:
                pid = self.workers[lost].process.pid
                raise UserError(f"Process {lost} (pid {pid}) has given {self.roll.last_sign(lost)}. {self._kept}")
            raise UserError(f"{self.roll.does_not_respond(lost)} {self._kept}")
        for each in self.workers:
            if each.rank not in self.roll.present and self.roll.silent[each.rank] > self._patience:
                each.process.kill()  # it is done, but does not get to its end

    def _check_ends(self) -> None:
        """Raise what has ended the run, if anything has: a mistake that was told rather than what came of it."""
        ended = [each for each in self.workers if not each.is_running]  # before listening: they have said all
        for each in self.workers:
            each.listen()
        for each in self.workers:
            if isinstance(each.answer, UserError):
                raise each.answer
        for each in self.workers:
            if isinstance(each.answer, str):
                raise UserError(f"Process {each.rank} failed:\n{each.answer}\n{self._kept}")
        for each in ended:
            code = each.process.exitcode or 0
            if each.answer is None and not self._is_asked_for(code):
                raise self._cause(each, code)

    def _is_asked_for(self, code: int) -> bool:
        """Whether a process without an answer ended as signals end one: with 128 and the signal, or by it."""
        return code > 128 or (self._heard is not None and -code in (self._heard[0], signal.SIGKILL))

    def _cause(self, worker: Worker, code: int) -> UserError:
        """Why a process ended, for the user."""
        self.roll.look(self._board.read(), 0)
        ended = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        who = f"Process {worker.rank} (pid {worker.process.pid}) {ended} on {socket.gethostname()}"
        return UserError(f"{who}, and so did the run; {self.roll.last_sign(worker.rank)}. {self._kept}")

    @property
    def _kept(self) -> str:
        return kept_in(self.output_dir)


@contextmanager
def _blocked() -> Iterator[None]:
    """Within it no signal is heard, by a process that starts neither, which goes on so until it says otherwise."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # which is started with the first process, and would unblock them
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _store() -> Any:
    """A store on a free port, for processes of this machine only."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listening:
        port = listening.getsockname()[1]
        options: dict[str, Any] = {"is_master": True, "wait_for_workers": False, "master_listen_fd": listening.detach()}
        return dist.TCPStore("127.0.0.1", port, **options)  # type: ignore[attr-defined]
