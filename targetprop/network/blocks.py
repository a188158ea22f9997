"""Cut a Sequential into blocks."""

from __future__ import annotations

import itertools
from typing import cast

from torch import nn

from targetprop.layers.base import has_matrix, rule_of
from targetprop.layers.pool import MaxPool, MaxPoolRule, overlaps
from targetprop.layers.sequence import SequenceRule, leaves
from targetprop.utils.errors import UserError


def cut(model: nn.Sequential) -> list[nn.Sequential]:
    """Cut a Sequential into blocks, each with one layer with weights, or one Sequential within the model.

    A Sequential within the model stays together: its author grouped it. Other layers (activation, pooling,
    normalisation) belong to the block before them, reshaping layers to the one behind that needs the shape.
    Every block is one flat Sequential.

    Raises:
        UserError: the model, or a Sequential in it, does more than to call its layers in turn.
    """
    for each in model.modules():
        if isinstance(each, nn.Sequential) and not isinstance(rule_of(each), SequenceRule):
            why = "has a hook, which is not seen: hook its layers instead" if _is_plain(each) else (
                "has a forward of its own: give its layers as a plain nn.Sequential"
            )  # fmt: skip
            raise UserError(f"{type(each).__name__} {why}.")
    groups: list[list[nn.Module]] = [[]]
    for layer in model:
        if has_matrix(layer) and any(map(has_matrix, groups[-1])):
            end = len(groups[-1])
            while _reshapes(groups[-1][end - 1]):
                end -= 1
            groups[-1:] = [groups[-1][:end], groups[-1][end:]]
        groups[-1].append(layer)
    return [nn.Sequential(*(leaf for layer in group for leaf in leaves(layer))) for group in groups if group]


def _is_plain(model: nn.Sequential) -> bool:
    return type(model).forward is nn.Sequential.forward and "forward" not in vars(model)


def _reshapes(layer: nn.Module) -> bool:
    return rule_of(layer).facts(layer).reshapes


def pool_first(block: nn.Sequential) -> nn.Sequential:
    """The block with each max-pooling that follows an activation put before it.

    Both orders give the same values where the activation is strictly increasing, and so do both orders of the
    feedback where windows do not overlap and the activation maps zero to zero; this one has fewer units to activate.
    Not for ReLU and GELU: ties, or the part that falls, would change which unit is the maximum.
    """
    layers = list(block)
    for i, (activation, pool) in enumerate(itertools.pairwise(layers)):
        commutes = rule_of(activation).facts(activation).commutes_with_max_pool
        if commutes and isinstance(rule_of(pool), MaxPoolRule) and not overlaps(cast(MaxPool, pool)):
            layers[i], layers[i + 1] = pool, activation
    return nn.Sequential(*layers)
