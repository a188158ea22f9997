"""How many threads of the CPU a run has."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from targetprop.app.waiting import names_number

WORK = 2**28
"""Multiply-adds of a batch's forward pass that are worth a thread.

With less, a second thread gains little where nothing else runs, and beside other processes it loses much: at the end of
every operation each thread waits for the other one to get its turn.
"""


def multiply_adds(network: nn.Module, shape: Sequence[int], dtype: torch.dtype = torch.float32) -> int:
    """Of the products and convolutions of one example's forward pass; the network stays as it is."""
    examined = copy.deepcopy(network).eval()
    images = torch.zeros(2, *shape, dtype=dtype)  # some layers take no single one
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        examined(images)
    return counter.get_total_flops() // (2 * len(images))


def worthwhile(work: int, available: int) -> int:
    """How many of the available threads a network gets that has so much `WORK` a batch."""
    return min(available, max(1, work // WORK))


@contextmanager
def cpu_threads(asked: int | None, work: int | None) -> Iterator[int]:
    """Let torch have so many threads for as long as this lasts; the last bits of results depend on their number.

    Args:
        asked: their number; None: as many as the work is worth, and those of the environment where it names a number.
        work: multiply-adds of a batch's forward pass; None where the CPU does not do it.
    """
    available = torch.get_num_threads()
    chosen = available if work is None or names_number(os.environ) else worthwhile(work, available)
    torch.set_num_threads(asked or chosen)
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(available)
