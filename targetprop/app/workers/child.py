"""What a process of `launch` does."""

from __future__ import annotations

import logging.config
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from typing import Any

from targetprop.app.processes import rank
from targetprop.app.quiet import quiet_warnings
from targetprop.app.signals import ENDING
from targetprop.app.workers.orphans import die_with_parent
from targetprop.utils.errors import UserError

Work = Callable[[dict[str, Any]], dict[str, float]]
"""A run of one process, from its plain configuration to its metrics."""
Answer = dict[str, float] | UserError | str
"""Of a process: its metrics, a mistake of the user's, or the traceback of anything else that went wrong."""

LONGEST = 16000
"""Characters of a traceback: an answer that fits into a pipe keeps nobody waiting."""


def start(
    environment: Mapping[str, str],
    answers: Connection,
    parent: int,
    work: Work,
    config: dict[str, Any],
    job_logging: dict[str, Any],
) -> None:
    """Do the work and answer."""
    os.environ.update(environment)
    _end_with(parent)
    _hear_of_signals_from_the_parent_only()
    if rank() == 0 and job_logging:
        logging.config.dictConfig(job_logging)
    quiet_warnings()
    answer: Answer
    try:
        answer = work(config)
    except UserError as error:
        answer = error
    except Exception:
        answer = traceback.format_exc()[-LONGEST:]
    answers.send(answer)
    sys.exit(0 if isinstance(answer, dict) else 1)


def _end_with(parent: int) -> None:
    """Not to outlive the parent, whatever ends that: by the kernel on Linux; elsewhere this process looks itself."""
    die_with_parent(parent)
    process = multiprocessing.parent_process()
    assert process is not None

    def end() -> None:
        process.join()
        os._exit(1)

    threading.Thread(target=end, daemon=True).start()


def _hear_of_signals_from_the_parent_only() -> None:
    """Ctrl-C and the like go to all of a group; this process leaves that of its parent, which passes them on."""
    if hasattr(os, "setpgrp"):
        os.setpgrp()
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)  # what stops processes outside the terminal's group that print
    for number in ENDING:
        if signal.getsignal(number) != signal.SIG_IGN:  # as nohup has it
            signal.signal(number, signal.SIG_DFL)  # until the training, which wants to end well, takes over
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)  # the parent has blocked them until here
