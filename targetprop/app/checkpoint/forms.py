"""Whether what a checkpoint holds has the form of what is to take it over.

A checksum finds damage, but a file may come from anywhere: what has another form would fail somewhere later, or be
carried along unseen.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from numbers import Real
from typing import Any, cast

import lightning as L
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from torch import Tensor

from targetprop.app.checkpoint.record import KEY as RECORD
from targetprop.utils.errors import UserError

IN_RECORD = ("version", "config", "places", "position", "running")
IN_RUNNING = ("journals", "unlogged", "seen", "metrics", "random")
LOOPS = ("fit_loop", "validate_loop", "test_loop", "predict_loop")


def refuse_other_forms(trainer: L.Trainer, saved: Mapping[str, Any]) -> None:
    """Compare the record, the loops and the states of callbacks with those that this run would write.

    Raises:
        UserError: an entry is not there, is one too many, or is of another kind.
    """
    _check_record(saved[RECORD])
    for key in saved["callbacks"]:
        if not re.fullmatch(r"[\w.]+(\{.*\})?", str(key), re.DOTALL):
            raise _refusal("callbacks", "keys as Lightning makes them", key)
    for name in LOOPS:
        _compare(f"loops.{name}", getattr(trainer, name).state_dict(), saved["loops"].get(name))
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        state = saved["callbacks"].get(callback.state_key)
        ours = type(callback).__module__.startswith("targetprop.")
        if state is not None and (ours or isinstance(callback, ModelCheckpoint | EarlyStopping)):
            _compare(f"callbacks.{type(callback).__name__}", callback.state_dict(), state)  # others' may change in form


def _check_record(record: Mapping[str, Any]) -> None:
    if lacking := [key for key in IN_RECORD if key not in record]:
        raise _refusal(RECORD, f"{', '.join(IN_RECORD)}", f"none of the name {lacking[0]}")
    running = record["running"]
    if lacking := [key for key in IN_RUNNING if not isinstance(running, Mapping) or key not in running]:
        raise _refusal(f"{RECORD}.running", ", ".join(IN_RUNNING), f"none of the name {lacking[0]}")
    unlogged = running["unlogged"]
    if unlogged is not None:
        fits = isinstance(unlogged, Mapping) and isinstance(unlogged.get("step"), int)
        values = unlogged.get("values") if fits else None
        if not (_is_row(values) and "epoch" in cast(Mapping[str, Any], values)):
            raise _refusal(f"{RECORD}.running.unlogged", "a step, and numbers by name with epoch", unlogged)


def refuse_foreign_state(optimizers: Iterable[torch.optim.Optimizer]) -> None:
    """Look at the states that optimisers have taken over, before their first step.

    Raises:
        UserError: one is of no parameter of the optimiser, or does not fit it.
    """
    for optimizer in optimizers:
        own = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        for parameter, state in optimizer.state.items():
            fits = id(parameter) in own and all(_is_of(parameter, value) for value in state.values())
            if not fits:
                raise UserError(f"the state of {type(optimizer).__name__} is not of this network's parameters.")


def _is_of(parameter: Tensor, value: object) -> bool:
    """Whether it may stand in a parameter's state: a tensor of its shape, a number, or nothing."""
    if isinstance(value, Tensor):
        return value.is_floating_point() and value.shape in (parameter.shape, torch.Size())
    return value is None or isinstance(value, Real)


def _compare(place: str, own: object, given: object) -> None:
    if isinstance(own, Mapping) and own:
        if not isinstance(given, Mapping) or set(own) != set(given):
            raise _refusal(place, f"{', '.join(map(str, own))}", given)
        for key, value in own.items():
            _compare(f"{place}.{key}", value, given[key])
    elif not _is_like(own, given):
        raise _refusal(place, "what a run writes there", given)


def _is_like(own: object, given: object) -> bool:
    """Whether a value may stand where a fresh one stands, which may be empty or None."""
    match own:
        case None:
            tensors = isinstance(given, tuple) and all(isinstance(each, Tensor) for each in given)
            return given is None or isinstance(given, str | Tensor) or tensors
        case bool():
            return isinstance(given, bool)
        case int():
            return isinstance(given, int) and not isinstance(given, bool) and given >= 0
        case float():
            return isinstance(given, Real)
        case list():
            return isinstance(given, list) and all(_is_row(each) for each in given)
        case dict():
            return isinstance(given, dict) and all(isinstance(each, Real | Tensor | list) for each in given.values())
        case Tensor():
            return isinstance(given, Tensor) and given.shape == own.shape
        case _:
            return isinstance(given, type(own))


def _is_row(given: object) -> bool:
    """Whether it is a row of numbers by name, as measurements are kept."""
    return isinstance(given, dict) and all(isinstance(k, str) and isinstance(v, Real) for k, v in given.items())


def _refusal(place: str, expected: str, given: object) -> UserError:
    shown = sorted(map(str, given)) if isinstance(given, Mapping) else given
    return UserError(f"{place}: expected {expected}, got {' '.join(str(shown).split())[:80]}")
