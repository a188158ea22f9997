"""The ConvMixer (Trockman and Kolter, "Patches Are All You Need?", 2022, https://arxiv.org/abs/2201.09792)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from targetprop.models.activations import activation_layer
from targetprop.models.patches import require_patches
from targetprop.utils.errors import require, require_whole


class ConvMixerBlock(nn.Module):
    """A convolution of each channel by itself beside a skip, then one of 1x1; an activation and a norm behind each."""

    def __init__(self, width: int, kernel: int, activation: str) -> None:
        super().__init__()
        depthwise = nn.Conv2d(width, width, kernel, padding=kernel // 2, groups=width)
        self.depthwise = nn.Sequential(depthwise, activation_layer(activation), nn.BatchNorm2d(width))
        self.pointwise = nn.Sequential(nn.Conv2d(width, width, 1), activation_layer(activation), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        """(batch, width, height, width)."""
        return self.pointwise(x + self.depthwise(x))


class ConvMixer(nn.Module):
    """Maps of patches, blocks, the mean over all places, logits."""

    def __init__(
        self, channels: int, patch: int, num_classes: int, blocks: Sequence[ConvMixerBlock], width: int, activation: str
    ) -> None:
        super().__init__()
        patches = nn.Conv2d(channels, width, patch, patch)
        self.stem = nn.Sequential(patches, activation_layer(activation), nn.BatchNorm2d(width))
        self.blocks = nn.Sequential(*blocks)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(width, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (batch, classes) of images (batch, channels, height, width)."""
        return self.head(self.pool(self.blocks(self.stem(images))).flatten(1))


def conv_mixer(
    image_shape: Sequence[int],
    num_classes: int,
    patch: int = 2,
    depth: int = 8,
    width: int = 64,
    kernel: int = 5,
    activation: str = "gelu",
) -> ConvMixer:
    """A ConvMixer.

    Args:
        image_shape: (channels, height, width) of the images.
        num_classes: size of the output.
        patch: sides of a patch, in pixels.
        depth: number of blocks.
        width: channels.
        kernel: sides of the convolutions of single channels, odd.
        activation: behind every convolution.

    Raises:
        UserError: no such sizes or activation, or patches that do not fit into the images.
    """
    require_patches(image_shape, patch)
    for key, value in (("depth", depth), ("width", width), ("kernel", kernel)):
        require_whole(key, value, least=1)
    require(kernel % 2 == 1, "kernel", "an odd number", kernel)
    blocks = [ConvMixerBlock(width, kernel, activation) for _ in range(depth)]
    return ConvMixer(image_shape[0], patch, num_classes, blocks, width, activation)
