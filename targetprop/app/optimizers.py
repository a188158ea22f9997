"""Optimisers by configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from targetprop.app.places import placed
from targetprop.feedback.base import OptimizerSpec
from targetprop.utils.errors import UserError, is_number, prefixed, refuse_unknown, require


def optimizer_spec(name: str, hparams: Mapping[str, Any]) -> OptimizerSpec:
    """The optimiser at `hparams[name]`, with errors that name the key below `hparams`.

    Raises:
        UserError: a value that does not fit, or that an optimiser does not have.
    """
    given = hparams.get(name)
    if not isinstance(given, Mapping):
        raise UserError(f"expected an optimiser (type, lr, ...), got {given!r}", key=name)
    with prefixed(name):
        refuse_unknown(given, [each.name for each in fields(OptimizerSpec)])
        return OptimizerSpec(**given)


def forward_optimizer(hparams: Mapping[str, Any]) -> OptimizerSpec:
    """The optimiser of the forward weights.

    Raises:
        UserError: a value that does not fit, named by its full key.
    """
    with placed():
        spec = optimizer_spec("f_optim", hparams)
        require(is_number(spec.lr), "f_optim.lr", "one number, for all blocks", spec.lr)
        return spec
