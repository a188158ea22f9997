"""Memory of the C library: freed blocks are kept for the next tensors."""

from __future__ import annotations

import ctypes
import platform

KEPT = 1 << 30
"""Bytes: smaller blocks stay with the process when they are freed."""
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h


def keep_freed_memory() -> bool:
    """Let this process keep what it frees, and say whether its C library can.

    glibc hands large blocks back to the system, which clears every page of them before it gives them out again. For
    tensors of 16 MiB that live for a moment, that takes as long as some of their arithmetic.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(M_TRIM_THRESHOLD, KEPT) and mallopt(M_MMAP_THRESHOLD, KEPT))
