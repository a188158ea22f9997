"""Multi-layer perceptron."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from torch import nn

from targetprop.layers.standardize import Standardize
from targetprop.models.activations import activation_layer
from targetprop.models.shapes import require_sizes
from targetprop.utils.errors import unknown

Norm = Literal["hidden", "all"]
NORMS: tuple[Norm, ...] = ("hidden", "all")


def mlp(
    image_shape: Sequence[int],
    num_classes: int,
    hidden: Sequence[int] = (1000, 1000, 1000),
    activation: str = "tanh",
    norm: Norm | None = None,
) -> nn.Sequential:
    """The flattened image through fully connected layers of `hidden` units, then linear.

    Args:
        image_shape: (channels, height, width) of the images.
        num_classes: size of the output.
        norm: which units are standardised over the batch (`Standardize`), hidden ones behind their activation: the
            "hidden" ones, or "all", the output, too.

    Raises:
        UserError: no such sizes, activation or norm.
    """
    require_sizes("hidden", hidden)
    if norm is not None and norm not in NORMS:
        raise unknown("norm", norm, NORMS)
    net, width = nn.Sequential(), math.prod(image_shape)
    for number, units in enumerate(hidden, start=1):
        layers: list[nn.Module] = [nn.Linear(width, units), activation_layer(activation)]
        layers += [Standardize()] if norm else []
        net.add_module(f"fc{number}", nn.Sequential(*([nn.Flatten()] if number == 1 else []), *layers))
        width = units
    head: list[nn.Module] = [nn.Linear(width, num_classes), *([Standardize()] if norm == "all" else [])]
    flat = [] if hidden else [nn.Flatten()]
    net.add_module("head", nn.Sequential(*flat, *head) if flat or len(head) > 1 else head[0])
    return net
