"""Optimisers by configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from targetprop.app.places import placed
from targetprop.feedback.base import OptimizerSpec
from targetprop.utils.errors import UserError, prefixed, refuse_unknown

if TYPE_CHECKING:
    import torch

    from targetprop.trainable import Trainable


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
        return optimizer_spec("f_optim", hparams)


def build_forward(spec: OptimizerSpec, learner: Trainable) -> torch.optim.Optimizer:
    """The forward optimiser of a learner's parameters; with numbers per block, a group for each block.

    Raises:
        UserError: a list that does not fit the blocks, named by its full key.
    """
    wanted = {id(parameter): parameter for parameter in learner.optimizer_parameters()}
    blocks = {}
    for pair in learner.network.pairs:
        own = [id(parameter) for parameter in pair.parameters()]
        blocks[pair.name] = [wanted.pop(each) for each in dict.fromkeys(own) if each in wanted]
    with placed(), prefixed("f_optim"):
        return spec.build_by_block(blocks) if spec.is_by_block else spec.build(learner.optimizer_parameters())
