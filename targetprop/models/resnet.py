"""ResNet for small images: a 3x3 stem, stages of basic blocks, global average pooling (He et al. 2016)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from targetprop.layers.residual import Residual
from targetprop.models.activations import activation_layer
from targetprop.models.shapes import require_sizes
from targetprop.utils.errors import require


def resnet(
    image_shape: Sequence[int],
    num_classes: int,
    channels: Sequence[int] = (64, 128, 256, 512),
    blocks: Sequence[int] = (2, 2, 2, 2),
    norm: bool = True,
    activation: str = "relu",
) -> nn.Sequential:
    """A 3x3 convolution, then in each stage `blocks` residual blocks of two 3x3 convolutions, then linear.

    Args:
        image_shape: (channels, height, width) of the images; each stage but the first halves height and width.
        num_classes: size of the output.
        channels: of each stage; the stem has those of the first.
        blocks: number of blocks in each stage.
        norm: whether every convolution has a batch norm behind it, and no bias.
    """
    require_sizes("channels", channels)
    require_sizes("blocks", blocks)
    require(isinstance(norm, bool), "norm", "true or false", norm)
    stages = len(channels)
    require(stages > 0, "channels", "at least one stage", channels)
    require(len(blocks) == stages, "blocks", f"one number for each of {stages} stages", blocks)
    width = channels[0]
    stem = [*_convolution(image_shape[0], width, 3, 1, norm), activation_layer(activation)]
    net = nn.Sequential()
    net.add_module("stem", nn.Sequential(*stem))
    for stage, (out, count) in enumerate(zip(channels, blocks, strict=True), start=1):
        for number in range(1, count + 1):
            stride = 2 if stage > 1 and number == 1 else 1
            net.add_module(f"stage{stage}_{number}", _basic_block(width, out, stride, norm, activation))
            width = out
    net.add_module("head", nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, num_classes)))
    return net


def _basic_block(width: int, out: int, stride: int, norm: bool, activation: str) -> nn.Sequential:
    """The skip is the identity, or a 1x1 convolution where the shape changes."""
    body = nn.Sequential(
        *_convolution(width, out, 3, stride, norm), activation_layer(activation), *_convolution(out, out, 3, 1, norm)
    )
    skip = nn.Sequential(*_convolution(width, out, 1, stride, norm)) if stride > 1 or width != out else None
    return nn.Sequential(Residual(body, skip), activation_layer(activation))


def _convolution(width: int, out: int, kernel: int, stride: int, norm: bool) -> list[nn.Module]:
    conv = nn.Conv2d(width, out, kernel, stride, padding=kernel // 2, bias=not norm)
    return [conv, nn.BatchNorm2d(out)] if norm else [conv]
