"""A multi-layer perceptron that can be inverted."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import nn

from targetprop.layers.fixed import FirstUnits
from targetprop.models.shapes import require_sizes
from targetprop.utils.errors import is_number, require, require_whole


def invertible_mlp(
    image_shape: Sequence[int],
    num_classes: int,
    depth: int = 4,
    widths: Sequence[int] | None = None,
    slope: float = 0.1,
) -> nn.Sequential:
    """Square linear layers with leaky ReLUs, as wide as the image; the first units of the last are the output.

    Weights are orthogonal at the start, biases zero. With `widths` a layer reads the first so many units of the one
    below it.

    Args:
        image_shape: (channels, height, width) of the images.
        num_classes: size of the output.
        depth: number of layers.
        widths: of each layer, falling, in place of `depth`.
        slope: of the leaky ReLU below zero.
    """
    width = math.prod(image_shape)
    if widths is None:
        require_whole("depth", depth, least=1)
        widths = [width] * depth
    require_sizes("widths", widths)
    falls = all(a >= b for a, b in zip([width, *widths], [*widths, num_classes], strict=True))
    expected = f"a list of falling numbers from {width}, the pixels of an image, to {num_classes}, the classes"
    require(bool(widths) and falls, "widths", expected, widths)
    require(is_number(slope) and 0 < slope <= 1, "slope", "a number above 0, at most 1", slope)
    net, above = nn.Sequential(), width
    for number, units in enumerate(widths, start=1):
        linear = nn.Linear(units, units)
        nn.init.orthogonal_(linear.weight)
        nn.init.zeros_(linear.bias)
        layers: list[nn.Module] = [nn.Flatten()] if number == 1 else []
        layers += [FirstUnits(units)] if units < above else []
        layers += [linear, nn.LeakyReLU(slope)]
        layers += [FirstUnits(num_classes)] if number == len(widths) and num_classes < units else []
        net.add_module(f"fc{number}", nn.Sequential(*layers))
        above = units
    return net
