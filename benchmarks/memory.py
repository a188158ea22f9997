"""Peak memory of one training step by each mode, beside backprop at the same batch.

    python benchmarks/memory.py --network full --batch 128
    python benchmarks/memory.py --device cuda --modes closed_form amortised_dtp

On the CPU, the storages that operations return during the step are counted while they are alive. Those that outlive it
(gradients, optimiser state) are told apart: "activations" is the peak without them. What a kernel allocates for itself
is not seen. Gradients of the feedback live during the step only, so they count as activations (next to which they are
small at the published batch, not at batches of a few images). On a GPU, the allocator's peak above what was allocated
before the step is all there is: gradients and workspaces are in it.

L-DRL modes make two feedback updates a block: further ones need no further memory.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from cases import (
    MODES,
    NETWORKS,
    STRICT,
    YARDSTICKS,
    algorithm_of,
    build_network,
    learn,
    make_learner,
    make_optimizer,
    random_batch,
)
from timing import WARM_UP, Step, parser, positive, prepare, title, write_record

COUNT, UPDATES = "feedback_training_iterations", 2


@dataclass(frozen=True)
class Peak:
    """Bytes above what there was before the step.

    Attributes:
        total: at most, of all that the step made.
        activations: at most, of what did not outlive the step; None where that cannot be told.
    """

    total: int
    activations: int | None


class LiveStorages(TorchDispatchMode):
    """Notes when storages come and go that operations make while it is on.

    A storage that is first seen as an argument was there before, and is not counted.
    """

    def __init__(self) -> None:
        super().__init__()
        self.events: list[tuple[int, int]] = []  # number of the storage, bytes gained or lost
        self._known: set[int] = set()  # addresses of living storages

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        for storage in _storages((args, kwargs)):
            self._see(storage, count=False)
        result = func(*args, **kwargs)
        for storage in _storages(result):
            self._see(storage, count=True)
        return result

    def _see(self, storage: torch.UntypedStorage, *, count: bool) -> None:
        address = storage.data_ptr()
        if not storage.nbytes() or address in self._known:
            return
        self._known.add(address)
        number, size = len(self.events), storage.nbytes() if count else 0
        self.events.append((number, size))
        weakref.finalize(storage, self._lose, address, number, size)

    def _lose(self, address: int, number: int, size: int) -> None:
        self._known.discard(address)
        self.events.append((number, -size))

    def peak(self) -> Peak:
        """Of what has been noted so far."""
        lost = {number for number, size in self.events if size < 0}
        return Peak(_peak(self.events), _peak([event for event in self.events if event[0] in lost]))


def _storages(values: Any) -> Iterator[torch.UntypedStorage]:
    for value in tree_leaves(values):
        if isinstance(value, Tensor):
            yield value.untyped_storage()


def _peak(events: Sequence[tuple[int, int]]) -> int:
    live = highest = 0
    for _, size in events:
        live += size
        highest = max(highest, live)
    return highest


def peak_of(step: Step, release: Step, device: torch.device) -> Peak:
    """The peak of one call of `step`, after warm-up; `release` drops the gradients that it leaves."""
    for _ in range(WARM_UP[device.type]):
        step()
        release()
    gc.collect()
    if device.type == "cpu":
        with LiveStorages() as storages:
            step()
        return storages.peak()
    torch.cuda.synchronize(device)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    step()
    torch.cuda.synchronize(device)
    return Peak(torch.cuda.max_memory_allocated(device) - before, None)


def step_peak(network: str, mode: str, batch: int, device: torch.device) -> Peak:
    """The peak of one training step of one of `NETWORKS`, gradients kept until its end."""
    algorithm = None if mode in YARDSTICKS else algorithm_of(network, mode)
    if algorithm is not None and COUNT in algorithm.numbers:
        algorithm = algorithm.with_numbers(**{COUNT: UPDATES})
    learner = make_learner(build_network(network), mode, algorithm, device)
    optimizer = make_optimizer(learner, rate=0.0)
    x, y = random_batch(batch, device)

    def step() -> None:
        learn(learner, x, y)
        optimizer.step()

    return peak_of(step, optimizer.zero_grad, device)


def table_of(heading: str, peaks: Mapping[str, Peak]) -> Table:
    """Megabytes, and their ratios to strict backprop."""
    table = Table("step", "activations, MB", "x strict", "all, MB", "x strict", title=heading)
    strict = peaks[STRICT]
    for mode, peak in peaks.items():
        cells = [*_cells(peak.activations, strict.activations), *_cells(peak.total, strict.total)]
        table.add_row(mode, *cells)
    return table


def _cells(size: int | None, strict: int | None) -> tuple[str, str]:
    return ("", "") if size is None or strict is None else (f"{size / 1e6:.1f}", f"{size / strict:.2f}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    made = parser(__doc__)
    made.add_argument("--network", choices=NETWORKS, default="full")
    made.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    made.add_argument("--batch", type=positive, default=128)
    options = made.parse_args(arguments)
    device = prepare(options)
    peaks = {mode: step_peak(options.network, mode, options.batch, device) for mode in (*YARDSTICKS, *options.modes)}
    Console().print(table_of(title(f"{options.network}, batch {options.batch}", options), peaks))
    write_record(options, "memory", {"bytes": {mode: vars(peak) for mode, peak in peaks.items()}})


if __name__ == "__main__":
    main()
