"""Cut a Sequential into blocks."""

from __future__ import annotations

import itertools
from collections.abc import Container, Sequence
from typing import cast

from torch import nn

from targetprop.layers.lookup import Opaque, has_matrix, is_hooked, rule_of
from targetprop.layers.pool import MaxPool, MaxPoolRule, overlaps
from targetprop.layers.sequence import SequenceRule, leaves
from targetprop.utils.errors import UserError


def cut(model: nn.Sequential) -> list[nn.Sequential]:
    """Cut a Sequential into blocks, each with one layer with weights, or one Sequential within the model.

    A Sequential within the model stays together: its author grouped it. Other layers (activation, pooling,
    normalisation) belong to the block before them, reshaping layers to the one behind that needs the shape.
    Every block is one flat Sequential.

    Raises:
        UserError: the model does more than to call its layers in turn, or a Sequential in it has a hook.
    """
    if not _is_sequence(model):
        raise UserError(f"{type(model).__name__} has a forward of its own: give its layers as a plain nn.Sequential.")
    for each in opened(model):
        if is_hooked(each, itself_alone=True):
            raise UserError(f"{type(each).__name__} has a hook, which is not seen: hook its layers instead.")
    return grouped(list(model))


def grouped(layers: Sequence[nn.Module], ends: Container[int] | None = None) -> list[nn.Sequential]:
    """Group layers in sequence into blocks, as `cut` does, or each up to the next of the layers of these numbers."""
    groups = _by_weights(layers) if ends is None else _up_to(layers, ends)
    return [nn.Sequential(*(leaf for layer in group for leaf in leaves(layer))) for group in groups if group]


def _by_weights(layers: Sequence[nn.Module]) -> list[list[nn.Module]]:
    """Groups with one layer with weights each."""
    groups: list[list[nn.Module]] = [[]]
    for layer in layers:
        if has_matrix(layer) and any(map(has_matrix, groups[-1])):
            end = len(groups[-1])
            while _reshapes(groups[-1][end - 1]):
                end -= 1
            groups[-1:] = [groups[-1][:end], groups[-1][end:]]
        groups[-1].append(layer)
    return groups


def _up_to(layers: Sequence[nn.Module], ends: Container[int]) -> list[list[nn.Module]]:
    groups: list[list[nn.Module]] = [[]]
    for number, layer in enumerate(layers):
        groups[-1].append(layer)
        if number in ends:
            groups.append([])
    return groups


def is_sequence(model: nn.Module) -> bool:
    """Whether a module does nothing but to call its layers in turn, and no layer hides others with weights."""
    if not (isinstance(model, nn.Sequential) and _is_sequence(model)):
        return False
    return not any(_hides_layers(layer) for layer in leaves(model))


def _hides_layers(layer: nn.Module) -> bool:
    rule = rule_of(layer)
    unknown = isinstance(rule, Opaque) and rule.known is None
    return unknown and has_matrix(layer) and any(True for _ in layer.children())


def opened(model: nn.Sequential) -> list[nn.Sequential]:
    """The Sequentials whose layers are cut apart or run in turn: the model, and plain ones in it."""
    inner = [child for child in model if isinstance(child, nn.Sequential) and _is_sequence(child)]
    return [model, *(each for child in inner for each in opened(child))]


def _is_sequence(layer: nn.Sequential) -> bool:
    rule = rule_of(layer)
    return isinstance(rule.known if isinstance(rule, Opaque) else rule, SequenceRule)


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
