"""Residual networks as torchvision defines them: the same names and shapes of parameters, so that its states load.

He et al., "Deep Residual Learning for Image Recognition", 2016, https://arxiv.org/abs/1512.03385; with bottlenecks that
stride in their 3x3 convolution; wide (Zagoruyko and Komodakis 2016, https://arxiv.org/abs/1605.07146) and in groups
(Xie et al. 2017, https://arxiv.org/abs/1611.05431).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from torch import Tensor, nn

from targetprop.models.shapes import IMAGE, require_sizes
from targetprop.utils.errors import require, require_whole, unknown

Stem = Literal["imagenet", "cifar"]
STEMS: tuple[Stem, ...] = ("imagenet", "cifar")


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a skip."""

    expansion: ClassVar[int] = 1

    def __init__(self, width: int, planes: int, stride: int, groups: int, width_per_group: int) -> None:
        super().__init__()
        require(groups == 1 and width_per_group == 64, "groups", "1 of 64 channels, without bottlenecks", groups)
        self.conv1 = nn.Conv2d(width, planes, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.relu = nn.ReLU()
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample = _downsample(width, planes, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, height, width)."""
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nn.Module):
    """A 3x3 convolution between two of 1x1, beside a skip."""

    expansion: ClassVar[int] = 4

    def __init__(self, width: int, planes: int, stride: int, groups: int, width_per_group: int) -> None:
        super().__init__()
        inner, out = planes * width_per_group // 64 * groups, planes * self.expansion
        self.conv1 = nn.Conv2d(width, inner, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, padding=1, groups=groups, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out)
        self.relu = nn.ReLU()
        self.downsample = _downsample(width, out, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, height, width)."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn3(self.conv3(self.relu(self.bn2(self.conv2(y)))))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


Block = Literal["basic", "bottleneck"]
BLOCKS: dict[str, type[BasicBlock] | type[Bottleneck]] = {"basic": BasicBlock, "bottleneck": Bottleneck}


class ResNet(nn.Module):
    """A stem, four stages of residual blocks, the mean over all places, and a linear layer."""

    layer1: nn.Sequential
    layer2: nn.Sequential
    layer3: nn.Sequential
    layer4: nn.Sequential

    def __init__(
        self,
        channels: int,
        num_classes: int,
        block: type[BasicBlock] | type[Bottleneck],
        layers: Sequence[int],
        stem: Stem,
        width: int,
        groups: int,
        width_per_group: int,
    ) -> None:
        super().__init__()
        large = stem == "imagenet"
        self.conv1 = nn.Conv2d(channels, width, 7 if large else 3, 2 if large else 1, 3 if large else 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.maxpool: nn.Module = nn.MaxPool2d(3, 2, padding=1) if large else nn.Identity()
        before = width
        for number, count in enumerate(layers):
            planes, stride = width * 2**number, 1 if number == 0 else 2
            out = planes * block.expansion
            first = block(before, planes, stride, groups, width_per_group)
            others = (block(out, planes, 1, groups, width_per_group) for _ in range(count - 1))
            self.add_module(f"layer{number + 1}", nn.Sequential(first, *others))
            before = out
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(before, num_classes)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Logits (batch, classes) of images (batch, channels, height, width)."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(self.avgpool(x).flatten(1))


def _downsample(width: int, out: int, stride: int) -> nn.Sequential | None:
    if stride == 1 and width == out:
        return None
    return nn.Sequential(nn.Conv2d(width, out, 1, stride, bias=False), nn.BatchNorm2d(out))


def torchvision_resnet(
    image_shape: Sequence[int],
    num_classes: int,
    layers: Sequence[int] = (2, 2, 2, 2),
    block: Block = "basic",
    stem: Stem = "imagenet",
    width: int = 64,
    groups: int = 1,
    width_per_group: int = 64,
) -> ResNet:
    """A residual network as torchvision's `resnet18` (the default) and its like, which are numbers here.

    Args:
        image_shape: (channels, height, width) of the images.
        num_classes: size of the output.
        layers: blocks in each of the four stages.
        block: "basic", or "bottleneck".
        stem: "imagenet": a 7x7 convolution and pooling, which quarter an image's sides; "cifar": a 3x3 convolution,
            for small images, with another shape of the first weights.
        width: channels of the first stage; each further one has twice as many.
        groups: of the 3x3 convolutions of bottlenecks.
        width_per_group: channels of each group, of 64 in the first stage.

    Raises:
        UserError: no such sizes, block or stem, or no images.
    """
    require(len(image_shape) == IMAGE, "image_shape", "images (channels, height, width)", tuple(image_shape))
    require_sizes("layers", layers)
    require(len(layers) == 4, "layers", "four numbers, one for each stage", list(layers))
    for key, value in (("width", width), ("groups", groups), ("width_per_group", width_per_group)):
        require_whole(key, value, least=1)
    if block not in BLOCKS:
        raise unknown("block", block, BLOCKS)
    if stem not in STEMS:
        raise unknown("stem", stem, STEMS)
    return ResNet(image_shape[0], num_classes, BLOCKS[block], layers, stem, width, groups, width_per_group)
