"""ResNet for small images: a 3x3 stem, stages of basic blocks, global average pooling (He et al. 2016).

The published L-DRL code has it with `norm=False, bias=False, whole_stages=True`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from torch import nn

from targetprop.layers.residual import Residual
from targetprop.models.activations import activation_layer
from targetprop.models.shapes import output_shape, require_sizes
from targetprop.utils.errors import require, unknown

Head = Literal["average", "flatten"]


def resnet(
    image_shape: Sequence[int],
    num_classes: int,
    channels: Sequence[int] = (64, 128, 256, 512),
    blocks: Sequence[int] = (2, 2, 2, 2),
    norm: bool = True,
    activation: str = "relu",
    bias: bool | None = None,
    whole_stages: bool = False,
    head: Head = "average",
) -> nn.Sequential:
    """A 3x3 convolution, then in each stage `blocks` residual blocks of two 3x3 convolutions, then linear.

    Args:
        image_shape: (channels, height, width) of the images; each stage but the first halves height and width.
        num_classes: size of the output.
        channels: of each stage; the stem has those of the first.
        blocks: number of blocks in each stage.
        norm: whether every convolution has a batch norm behind it.
        bias: whether convolutions have a bias; None where there is no batch norm.
        whole_stages: whether a stage is one block, as in the published L-DRL code: targets only at its end.
        head: what the last linear layer sees, the average of each channel or all of the flattened maps.
    """
    require_sizes("channels", channels)
    require_sizes("blocks", blocks)
    for key, value in (("norm", norm), ("whole_stages", whole_stages)):
        require(isinstance(value, bool), key, "true or false", value)
    require(bias is None or isinstance(bias, bool), "bias", "true, false or null", bias)
    if head not in ("average", "flatten"):
        raise unknown("head", head, ("average", "flatten"))
    stages = len(channels)
    require(stages > 0, "channels", "at least one stage", channels)
    require(len(blocks) == stages, "blocks", f"one number for each of {stages} stages", blocks)
    kind = _Kind(norm, not norm if bias is None else bias, activation)
    width = channels[0]
    net = nn.Sequential()
    net.add_module("stem", nn.Sequential(*kind.convolution(image_shape[0], width, 3, 1), activation_layer(activation)))
    for stage, (out, count) in enumerate(zip(channels, blocks, strict=True), start=1):
        strides = [2 if stage > 1 else 1, *[1] * (count - 1)]
        widths = [width, *[out] * count]
        made = [kind.basic_block(widths[i], out, stride) for i, stride in enumerate(strides)]
        if whole_stages:
            net.add_module(f"stage{stage}", nn.Sequential(*made))
        else:
            for number, each in enumerate(made, start=1):
                net.add_module(f"stage{stage}_{number}", each)
        width = out
    features = width if head == "average" else output_shape(net, image_shape, "stages").numel()
    pool = [nn.AdaptiveAvgPool2d(1)] if head == "average" else []
    net.add_module("head", nn.Sequential(*pool, nn.Flatten(), nn.Linear(features, num_classes)))
    return net


class _Kind(NamedTuple):
    """What all parts of one network have in common."""

    norm: bool
    bias: bool
    activation: str

    def basic_block(self, width: int, out: int, stride: int) -> nn.Sequential:
        """The skip is the identity, or a 1x1 convolution where the shape changes."""
        first, second = self.convolution(width, out, 3, stride), self.convolution(out, out, 3, 1)
        body = nn.Sequential(*first, activation_layer(self.activation), *second)
        skip = nn.Sequential(*self.convolution(width, out, 1, stride)) if stride > 1 or width != out else None
        return nn.Sequential(Residual(body, skip), activation_layer(self.activation))

    def convolution(self, width: int, out: int, kernel: int, stride: int) -> list[nn.Module]:
        """A convolution, and its batch norm."""
        conv = nn.Conv2d(width, out, kernel, stride, padding=kernel // 2, bias=self.bias)
        return [conv, nn.BatchNorm2d(out)] if self.norm else [conv]
