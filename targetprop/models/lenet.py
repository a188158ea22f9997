"""LeNet, as in the L-DRL experiments (Ernoult et al. 2022)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from targetprop.models.activations import activation_layer
from targetprop.models.shapes import output_shape, require_sizes
from targetprop.utils.errors import require, require_whole


def lenet(
    image_shape: Sequence[int],
    num_classes: int,
    channels: Sequence[int] = (32, 64),
    hidden: int = 512,
    activation: str = "elu",
    pool_padding: int = 1,
) -> nn.Sequential:
    """Blocks of a 5x5 convolution, the activation and overlapping max-pooling, a hidden layer, then linear.

    Args:
        image_shape: (channels, height, width) of the images; each convolution block halves height and width.
        num_classes: size of the output.
        pool_padding: of the pooling, 1 (as in scalingDTP) or 0 (as in distributed-dtp, where maps are smaller by one).

    Raises:
        UserError: the image is too small for this many blocks.
    """
    require_sizes("channels", channels)
    require_whole("hidden", hidden, least=1)
    require(pool_padding in (0, 1), "pool_padding", "0 or 1", pool_padding)
    net, shape = nn.Sequential(), tuple(image_shape)
    for number, width in enumerate(channels, start=1):
        conv = nn.Conv2d(shape[0], width, kernel_size=5, padding=2)
        pool = nn.MaxPool2d(3, stride=2, padding=pool_padding)
        block = nn.Sequential(conv, activation_layer(activation), pool)
        shape = tuple(output_shape(block, shape, f"conv{number}"))
        net.add_module(f"conv{number}", block)
    features = shape[0] * shape[1] * shape[2]
    net.add_module("fc", nn.Sequential(nn.Flatten(), nn.Linear(features, hidden), activation_layer(activation)))
    net.add_module("head", nn.Linear(hidden, num_classes))
    return net
