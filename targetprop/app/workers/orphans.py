"""Processes that do not outlive the one that started them."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
"""Of Linux's prctl(2)."""


def die_with_parent(parent: int | None = None) -> None:
    """From now on the kernel kills this process as soon as its parent has ended, also while it is stopped.

    Linux alone can do that; elsewhere this does nothing.

    Args:
        parent: its process id; if that has ended already, this process ends here.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL))
    if parent is not None and os.getppid() != parent:
        os._exit(1)
