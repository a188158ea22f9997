"""What is right, written before anything was tried.

A run is right if it equals the uninterrupted one, or if it ends with a code other than 0 and one line that names the
true key, file or rank. Code 0 with nonsense is wrong. Every judgement here is a list of complaints; none means right.
"""

from __future__ import annotations

import math
import re
import shlex
import signal
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from . import records
from .child import End
from .records import Records

HUNG = "hung"
"""How the complaint about a run begins that did not end."""
LONGEST = 2000
"""Characters of an error that still is one line to a reader: a list of valid names may be long."""
GRACEFUL = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
"""Signals that let a run write a checkpoint and say how to go on."""
SHOWN = 3
"""Differences that are listed of each kind."""
TRACES = ("Traceback (most recent call last)", "HYDRA_FULL_ERROR", "Fatal Python error", "Segmentation fault")


def same(found: Records, expected: Records) -> list[str]:
    """Whether two runs were the same, bit for bit in all but the clock."""
    said = []
    for name in sorted({*found.checkpoints, *expected.checkpoints}):
        first, second = (each.checkpoints.get(name) for each in (found, expected))
        if first is None or second is None:
            said.append(f"{name}.ckpt: {'missing' if first is None else 'there, but not in the uninterrupted run'}")
        else:
            said += differences(f"{name}.ckpt", first, second)
    said += _rows(found.rows, expected.rows)
    said += _scalars(found.scalars, expected.scalars)
    if found.results is None or expected.results is None:
        said += ["results.json is in one of the runs only"] if found.results != expected.results else []
    else:
        said += differences("results.json", found.results, expected.results)
    return said


def differences(what: str, found: Mapping[str, object], expected: Mapping[str, object]) -> list[str]:
    """The leaves in which two mappings differ, in words."""
    absent = object()
    names = [n for n in {**expected, **found} if found.get(n, absent) != expected.get(n, absent)]
    said = [f"{what}: {name} is {found.get(name)!r}, not {expected.get(name)!r}"[:300] for name in names[:SHOWN]]
    return [*said, f"{what}: {len(names) - SHOWN} more differ"] if len(names) > SHOWN else said


def _rows(found: Sequence[Mapping[str, str]], expected: Sequence[Mapping[str, str]]) -> list[str]:
    said = [] if len(found) == len(expected) else [f"metrics.csv has {len(found)} rows, not {len(expected)}"]
    pairs = zip_longest(found, expected)
    wrong = [f"metrics.csv: row {n} is {a}, not {b}"[:300] for n, (a, b) in enumerate(pairs, start=1) if a != b]
    return said + wrong[:SHOWN]


def _scalars(
    found: Mapping[str, Sequence[tuple[int, float]]], expected: Mapping[str, Sequence[tuple[int, float]]]
) -> list[str]:
    said = []
    for tag in sorted({*found, *expected}):
        first, second = list(found.get(tag, ())), list(expected.get(tag, ()))
        if first != second:
            steps = [[step for step, _ in each] for each in (first, second)]
            said.append(f"TensorBoard: {tag} has steps {steps[0]}, not {steps[1]}, or other values"[:300])
    return said[:SHOWN]


def ended_well(end: End) -> list[str]:
    """Whether a run ended by itself with code 0, without a traceback and without leaving processes behind."""
    return _ended(end) + ([f"code {end.code}: {_last_line(end.stderr)}"] if end.code not in (0, None) else [])


def equal(end: End, run: Path, expected: Records) -> list[str]:
    """Whether a run ended well, and its directory is that of the uninterrupted one."""
    return ended_well(end) or same(records.read(run), expected)


def refused(end: End, names: Sequence[str]) -> list[str]:
    """Whether a run ended with one line that names one of these: keys, files or ranks."""
    said = _ended(end)
    if end.code is None:
        return said
    lines = [line for line in end.stderr.splitlines() if line.strip()]
    if end.code == 0:
        said.append("code 0")
    if end.code < 0:
        said.append(f"ended by {signal.Signals(-end.code).name}")
    if not lines or not lines[-1].startswith("Error: "):
        said.append(f"the last line of stderr is no error: {_last_line(end.stderr)!r}")
    elif len(lines) > 1:
        said.append(f"{len(lines)} lines in stderr, not one: {lines[0][:150]!r} ...")
    elif len(lines[0]) > LONGEST:
        said.append(f"a line of {len(lines[0])} characters")
    elif not any(named(lines[0], name) for name in names):
        said.append(f"none of {', '.join(names)} is named: {lines[0][:200]!r}")
    return said


def named(line: str, name: str) -> bool:
    """Whether a line names this as a whole, or something in it: model.x is of model, and max_epochs no max_epoch."""
    return re.search(rf"(?<![\w.-]){re.escape(name)}(?!\w)", line) is not None


def finite(end: End, run: Path, least_accuracy: float = 0.0) -> list[str]:
    """Whether a run ended well with numbers that mean something."""
    said = ended_well(end)
    if said:
        return said
    results = records.results(run)
    measured = dict(_numbers(results or {}))
    accuracies = [value for name, value in measured.items() if name.endswith("test/accuracy")]
    if not accuracies:
        return ["code 0 without a result"]
    bad = [name for name, value in measured.items() if not math.isfinite(value)]
    weights = not_finite_weights(run)
    said = [f"code 0, and not finite: {', '.join((bad + weights)[:SHOWN])}"] if bad or weights else []
    if min(accuracies) < least_accuracy:
        said.append(f"code 0 with {min(accuracies):.3f} right, where {least_accuracy} is known to be reached")
    return said


def _numbers(node: Any, name: str = "") -> list[tuple[str, float]]:
    if isinstance(node, Mapping):
        return [pair for key, value in node.items() for pair in _numbers(value, f"{name}/{key}")]
    if isinstance(node, list):
        return [pair for key, value in enumerate(node) for pair in _numbers(value, f"{name}/{key}")]
    return [(name, float(node))] if isinstance(node, int | float) and not isinstance(node, bool) else []


def not_finite_weights(run: Path) -> list[str]:
    """Weights in the run's checkpoints that are no finite numbers."""
    import torch

    found = []
    for path in sorted(run.glob("checkpoints/*.ckpt")):
        state = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
        tensors = {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}
        found += [f"{path.name} {name}" for name, value in tensors.items() if not bool(value.isfinite().all())]
    return found


def stopped(end: End, number: int, *, had_begun: bool) -> list[str]:
    """Whether a run answered a signal as it should.

    Args:
        end: how it ended.
        number: of the signal.
        had_begun: whether the signal came within training, so that there is a checkpoint to write.
    """
    said = _ended(end)
    if end.code is None:
        return said
    if end.code not in (128 + number, -number):
        said.append(f"code {end.code} after {signal.Signals(number).name}, not {128 + number}")
    if number in GRACEFUL and had_begun:
        if end.code != 128 + number:
            said.append(f"{signal.Signals(number).name} ended it before it could write a checkpoint")
        if command_that_goes_on(end) is None:
            said.append("no command that goes on was printed")
    return said


def command_that_goes_on(end: End) -> list[str] | None:
    """The arguments of the command that a stopped run printed, in one line that can be copied; None without one."""
    for line in reversed(end.text.splitlines()):
        found = re.search(r"(?:main\.py|targetprop)['\"]? (.*ckpt_path=.*)", line)
        if found:
            try:
                return shlex.split(found[1])
            except ValueError:
                continue
    return None


def kept(before: Mapping[str, str], run: Path) -> list[str]:
    """Whether all records that were there still are, unchanged, somewhere below the directory of the run."""
    import hashlib

    now = {hashlib.sha256(path.read_bytes()).hexdigest() for path in run.rglob("*") if path.is_file()}
    return [f"{name} of the first run is gone" for name, digest in before.items() if digest not in now]


def _ended(end: End) -> list[str]:
    """What is wrong with the end of any run."""
    said = [f"{HUNG}: it had to be ended after {end.seconds:.0f} s"] if end.code is None else []
    said += [f"left behind: {command[:80]}" for command in end.left]
    return said + [f"{trace!r} in its output: {_last_line(end.stderr)}" for trace in TRACES if trace in end.text][:1]


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip()[:200] if lines else ""


def loadable(path: Path) -> list[str]:
    """Whether a checkpoint is whole."""
    import torch

    try:
        torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        return [f"{path.name} cannot be loaded: {str(error).splitlines()[0][:100]}"]
    return []
