"""Cut a Sequential into blocks."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import nn

from targetprop.layers.shape import Reshape, pair_of
from targetprop.utils.errors import UserError


def cut(model: nn.Sequential) -> list[nn.Sequential]:
    """Cut a Sequential into blocks, each with one layer with weights, or one Sequential within the model.

    A Sequential within the model stays together: its author grouped it. Other layers (activation, pooling,
    normalisation) belong to the block before them, reshaping layers to the one behind that needs the shape.
    Every block is one flat Sequential.

    Raises:
        UserError: the model is a Sequential with a forward of its own, so its layers are not all it does.
    """
    if type(model).forward is not nn.Sequential.forward:
        raise UserError(f"{type(model).__name__} has a forward of its own: give its layers as a plain nn.Sequential.")
    groups: list[list[nn.Module]] = [[]]
    for layer in model:
        if _has_weights(layer) and any(map(_has_weights, groups[-1])):
            end = len(groups[-1])
            while isinstance(groups[-1][end - 1], (nn.Flatten, nn.Unflatten, Reshape)):
                end -= 1
            groups[-1:] = [groups[-1][:end], groups[-1][end:]]
        groups[-1].append(layer)
    return [nn.Sequential(*(leaf for layer in group for leaf in leaves(layer))) for group in groups if group]


def _has_weights(layer: nn.Module) -> bool:
    """Whether it holds a matrix or kernel; the vectors of normalisation layers make no block of their own."""
    return any(parameter.dim() > 1 for parameter in layer.parameters())


def leaves(block: nn.Module) -> list[nn.Module]:
    """The layers of a block in order, nested Sequentials opened (not those with a forward of their own)."""
    if isinstance(block, nn.Sequential) and type(block).forward is nn.Sequential.forward:
        return [leaf for child in block for leaf in leaves(child)]
    return [block]


def output_shape(block: nn.Module, shape: Sequence[int], name: str) -> torch.Size:
    """Per-sample output shape of a block for a per-sample input shape.

    Raises:
        UserError: the block cannot take such an input; names the block, the layer and the shape.
    """
    x = torch.zeros(2, *shape)
    training = block.training
    block.eval()
    for layer in leaves(block):
        given = tuple(x.shape[1:])
        try:
            with torch.no_grad():
                x = layer(x)
        except RuntimeError as error:
            size = " x ".join(map(str, given))
            raise UserError(
                f"Block {name}: {type(layer).__name__} cannot take an input of {size}: {error}. "
                "The image may be too small for this many pooling layers."
            ) from None
    block.train(training)
    return x.shape[1:]


def pool_first(block: nn.Sequential) -> nn.Sequential:
    """The block with each max-pooling that follows an activation put before it.

    Both orders give the same values where the activation is strictly increasing, and so do both orders of the
    twins where windows do not overlap (the activations map zero to zero); this one has fewer units to activate.
    Not for ReLU and GELU: ties, or the part that falls, would change which unit is the maximum.
    """
    layers = list(block)
    for i, (activation, pool) in enumerate(itertools.pairwise(layers)):
        if _strictly_increasing(activation) and type(pool) is nn.MaxPool2d and not overlaps(pool):
            layers[i], layers[i + 1] = pool, activation
    return nn.Sequential(*layers)


def _strictly_increasing(layer: nn.Module) -> bool:
    # Types exactly: a subclass may have a forward of its own.
    if type(layer) is nn.ELU:
        return layer.alpha > 0
    return type(layer) is nn.Tanh or (type(layer) is nn.LeakyReLU and layer.negative_slope > 0)


def overlaps(pool: nn.MaxPool2d) -> bool:
    """Whether two windows of the pooling can share a unit."""
    sizes = zip(pair_of(pool.kernel_size), pair_of(pool.stride), pair_of(pool.dilation), strict=True)
    return any(stride < dilation * (kernel - 1) + 1 for kernel, stride, dilation in sizes)
