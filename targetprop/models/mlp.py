"""Multi-layer perceptron."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import nn

from targetprop.models.activations import activation_layer
from targetprop.models.shapes import require_sizes


def mlp(
    image_shape: Sequence[int],
    num_classes: int,
    hidden: Sequence[int] = (1000, 1000, 1000),
    activation: str = "tanh",
) -> nn.Sequential:
    """The flattened image through fully connected layers of `hidden` units, then linear.

    Args:
        image_shape: (channels, height, width) of the images.
        num_classes: size of the output.
    """
    require_sizes("hidden", hidden)
    net, width = nn.Sequential(), math.prod(image_shape)
    for number, units in enumerate(hidden, start=1):
        layers: list[nn.Module] = [nn.Linear(width, units), activation_layer(activation)]
        net.add_module(f"fc{number}", nn.Sequential(*([nn.Flatten()] if number == 1 else []), *layers))
        width = units
    head = nn.Linear(width, num_classes)
    net.add_module("head", head if hidden else nn.Sequential(nn.Flatten(), head))
    return net
