"""What the benchmarks share: options, interleaved measuring, and records with the facts of the machine."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from targetprop.app.machine import machine
from targetprop.execution.memory import keep_freed_memory

Step = Callable[[], object]
"""What is timed: one call, whose result is dropped."""
Key = TypeVar("Key", bound=Hashable)

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
"""The second one counts what the process computes: with one thread, it does not mind what else the machine does."""

WARM_UP = {"cpu": 1, "cuda": 3}
"""Calls before the clock starts; the first ones on a GPU load kernels, choose algorithms and grow the allocator."""


def parser(doc: str | None) -> argparse.ArgumentParser:
    """A parser with the options that every benchmark has; `doc` is the script's docstring."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_machine(made)
    return made


def add_machine(made: argparse.ArgumentParser) -> None:
    """The options that `prepare` and `write_record` read."""
    made.add_argument("--device", choices=WARM_UP, default="cpu")
    made.add_argument("--threads", type=positive, default=2, help="that torch may use")
    made.add_argument("--json", type=Path, help="file for the record")


def add_repeats(made: argparse.ArgumentParser, repeats: int, seconds: float) -> None:
    """The options of `measure`, with these defaults."""
    made.add_argument("--repeats", type=positive, default=repeats)
    made.add_argument("--seconds", type=float, default=seconds, help="longest total time of one row, beyond two calls")


def add_clock(made: argparse.ArgumentParser) -> None:
    """The option that says which of the `CLOCKS` to go by."""
    made.add_argument("--clock", choices=CLOCKS, default="wall", help="cpu: for a machine that others use, too")


def add_memory(made: argparse.ArgumentParser) -> None:
    """The option to time what a program of one's own does that has not called `keep_freed_memory`."""
    made.add_argument(
        "--return-memory", action="store_true", help="leave the C library as it is: it gives memory back to the system"
    )


def positive(text: str) -> int:
    """A whole number, 1 or more, from the command line."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected 1 or more, got {value}")
    return value


def prepare(options: argparse.Namespace) -> torch.device:
    """The device of the options, with the number of threads set, and memory kept as runs of the command line do."""
    if not vars(options).get("return_memory"):
        keep_freed_memory()
    if options.device == "cuda" and not torch.cuda.is_available():
        sys.exit("--device cuda: torch finds no GPU on this machine; use --device cpu.")
    torch.set_num_threads(options.threads)
    return torch.device(options.device)


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was given; a CPU always has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_of(step: Step, device: torch.device, clock: str = "wall") -> float:
    """Seconds of one call by one of the `CLOCKS`, until the device has finished it."""
    now = CLOCKS[clock]
    synchronize(device)
    start = now()
    step()
    synchronize(device)
    return now() - start


def measure(
    steps: Mapping[Key, Step], device: torch.device, repeats: int, seconds: float, clock: str = "wall"
) -> dict[Key, list[float]]:
    """Seconds of every call, after warm-up, all steps interleaved: what disturbs the machine disturbs all of them.

    Args:
        seconds: a step that has taken so long in all is not called further, once it has been called twice.
    """
    for step in steps.values():
        for _ in range(WARM_UP[device.type]):
            step()
    times: dict[Key, list[float]] = {name: [] for name in steps}
    for _ in range(repeats):
        for name, step in steps.items():
            if sum(times[name]) < seconds or len(times[name]) < 2:
                times[name].append(seconds_of(step, device, clock))
    return times


def medians(times: Mapping[Key, list[float]]) -> dict[Key, float]:
    """The median of each row."""
    return {name: statistics.median(values) for name, values in times.items()}


class _Operations(TorchDispatchMode):
    """Counts by the formulas of torch, as `FlopCounterMode` does, but leaves the modules alone.

    That one follows them by hooks, and what is hooked the library runs in another way.
    """

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        options = dict(kwargs or {})
        result = func(*args, **options)
        formula: Callable[..., int] | None = flop_registry.get(func.overloadpacket)
        if formula is not None:
            self.count += formula(*args, **options, out_val=result)
        return result


def operations_of(step: Step) -> int:
    """Operations of the products and convolutions in one call, by this thread; a multiply-add counts as two."""
    with _Operations() as operations:
        step()
    return operations.count


def title(name: str, options: argparse.Namespace) -> str:
    """Of a table: what was measured, and on what."""
    where = f"{options.threads} threads" if options.device == "cpu" else torch.cuda.get_device_name()
    where += ", CPU seconds" if vars(options).get("clock") == "cpu" else ""
    where += ", memory returned" if vars(options).get("return_memory") else ""
    return f"{name}; {where}, torch {torch.__version__}"


def write_record(options: argparse.Namespace, benchmark: str, results: Mapping[str, Any]) -> None:
    """Write the record to the file of `--json`, if it was given: the machine, the settings, and `results`."""
    if options.json is None:
        return
    settings = {key: value for key, value in vars(options).items() if not isinstance(value, Path)}
    facts = machine(torch.device(options.device))
    record = {"benchmark": benchmark, "machine": facts, "settings": settings, **results}
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(record, indent=2) + "\n")
