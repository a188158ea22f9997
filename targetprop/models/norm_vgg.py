"""NormVGG: a VGG with batch norm whose first convolution leaves a quarter of the pixels: made for CPUs."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from targetprop.models.activations import activation_layer
from targetprop.models.shapes import output_shape, require_sizes


def norm_vgg(
    image_shape: Sequence[int],
    num_classes: int,
    channels: Sequence[int] = (48, 96, 128, 192, 256),
    activation: str = "gelu",
) -> nn.Sequential:
    """Blocks of a convolution, pooling in every second one, batch norm and the activation, then linear.

    The first convolution is 4x4 with stride 2, the others are 3x3. The last block pools what is left of the image.

    Args:
        image_shape: (channels, height, width) of the images.
        num_classes: size of the output.

    Raises:
        UserError: the image is too small for this many blocks.
    """
    require_sizes("channels", channels)
    net, shape = nn.Sequential(), tuple(image_shape)
    for number, width in enumerate(channels, start=1):
        kernel, stride = (4, 2) if number == 1 else (3, 1)
        layers: list[nn.Module] = [nn.Conv2d(shape[0], width, kernel, stride, padding=1, bias=False)]
        if number == len(channels):
            layers.append(nn.AdaptiveMaxPool2d(1))
        elif number % 2 == 0:
            layers.append(nn.MaxPool2d(2))
        block = nn.Sequential(*layers, nn.BatchNorm2d(width), activation_layer(activation))
        shape = tuple(output_shape(block, shape, f"conv{number}"))
        net.add_module(f"conv{number}", block)
    net.add_module("head", nn.Sequential(nn.Flatten(), nn.Linear(shape[0], num_classes)))
    return net
