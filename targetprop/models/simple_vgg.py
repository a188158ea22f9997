"""SimpleVGG: the network of the L-DRL experiments (Ernoult et al. 2022)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from targetprop.models.activations import activation_layer
from targetprop.models.shapes import output_shape, require_sizes


def simple_vgg(
    image_shape: Sequence[int],
    num_classes: int,
    channels: Sequence[int] = (128, 128, 256, 256, 512),
    activation: str = "elu",
) -> nn.Sequential:
    """Blocks of a 3x3 convolution, the activation and 2x2 max-pooling, one for each number of channels, then linear.

    Args:
        image_shape: (channels, height, width) of the images; each block halves height and width.
        num_classes: size of the output.

    Raises:
        UserError: the image is too small for this many blocks.
    """
    require_sizes("channels", channels)
    net, shape = nn.Sequential(), tuple(image_shape)
    for number, width in enumerate(channels, start=1):
        conv = nn.Conv2d(shape[0], width, kernel_size=3, padding=1)
        block = nn.Sequential(conv, activation_layer(activation), nn.MaxPool2d(2))
        shape = tuple(output_shape(block, shape, f"conv{number}"))
        net.add_module(f"conv{number}", block)
    features = shape[0] * shape[1] * shape[2]
    net.add_module("head", nn.Sequential(nn.Flatten(), nn.Linear(features, num_classes)))
    return net
