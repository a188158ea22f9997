"""Parts of a batch side by side on a CPU: one serial kernel a thread, instead of one kernel that shares its work out.

Threads that share a kernel wait for each other at its end, and some kernels share badly: two threads compute the
convolution library's weight gradients at hardly more than the rate of one, but the two halves of a batch at twice it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from threading import Barrier
from typing import TypeVar

import torch

Part = TypeVar("Part")
Result = TypeVar("Result")


def side_by_side(function: Callable[[Part], Result], parts: Iterable[Part]) -> list[Result]:
    """The function of every part, without gradients, by all threads that torch may use in the calling one."""
    count = torch.get_num_threads()

    @torch.no_grad()  # which a thread does not inherit
    def of(part: Part) -> Result:
        return function(part)

    return list((map if count == 1 else _serial_threads(count).map)(of, parts))


@cache
def _serial_threads(count: int) -> ThreadPoolExecutor:
    """Threads in which torch's kernels use no others."""
    all_started = Barrier(count)

    def start() -> None:
        torch.set_num_threads(1)
        torch.get_num_threads()  # a thread's first call of torch takes over the number that was set last, anywhere
        all_started.wait()

    pool = ThreadPoolExecutor(count, "targetprop", start)
    list(pool.map(int, range(count)))
    torch.set_num_threads(count)
    return pool
