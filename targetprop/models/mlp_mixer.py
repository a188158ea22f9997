"""The MLP-Mixer (Tolstikhin et al. 2021, https://arxiv.org/abs/2105.01601)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from targetprop.models.activations import activation_layer
from targetprop.models.patches import require_patches
from targetprop.utils.errors import require_whole


class MixerBlock(nn.Module):
    """Mixes places, channel by channel, then channels, place by place, each behind a norm and beside a skip."""

    def __init__(self, places: int, width: int, hidden: tuple[int, int], activation: str) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.places = _mlp(places, hidden[0], activation)
        self.norm2 = nn.LayerNorm(width)
        self.channels = _mlp(width, hidden[1], activation)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, places, width)."""
        x = x + self.places(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        return x + self.channels(self.norm2(x))


class MLPMixer(nn.Module):
    """Linear maps of patches, blocks, a norm, the mean over all places, logits."""

    def __init__(self, channels: int, patch: int, num_classes: int, blocks: Sequence[MixerBlock], width: int) -> None:
        super().__init__()
        self.patch = nn.Conv2d(channels, width, patch, patch)
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (batch, classes) of images (batch, channels, height, width)."""
        x = self.patch(images).flatten(2).transpose(1, 2)
        return self.head(self.norm(self.blocks(x)).mean(1))


def _mlp(width: int, hidden: int, activation: str) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, hidden), activation_layer(activation), nn.Linear(hidden, width))


def mlp_mixer(
    image_shape: Sequence[int],
    num_classes: int,
    patch: int = 4,
    depth: int = 6,
    width: int = 128,
    token_hidden: int = 64,
    channel_hidden: int = 256,
    activation: str = "gelu",
) -> MLPMixer:
    """An MLP-Mixer.

    Args:
        image_shape: (channels, height, width) of the images.
        num_classes: size of the output.
        patch: sides of a patch, in pixels.
        depth: number of blocks.
        width: channels of every place.
        token_hidden: hidden units by which places are mixed.
        channel_hidden: hidden units by which channels are mixed.
        activation: of both.

    Raises:
        UserError: no such sizes or activation, or patches that do not fit into the images.
    """
    places = require_patches(image_shape, patch)
    sizes = {"depth": depth, "width": width, "token_hidden": token_hidden, "channel_hidden": channel_hidden}
    for key, value in sizes.items():
        require_whole(key, value, least=1)
    blocks = [MixerBlock(places, width, (token_hidden, channel_hidden), activation) for _ in range(depth)]
    return MLPMixer(image_shape[0], patch, num_classes, blocks, width)
