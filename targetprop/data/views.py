"""Views of images, by which a network's answer is averaged in evaluation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor

Views = Callable[[Tensor], Iterator[Tensor]]
"""Images (batch, channels, height, width) -> views of all of them, the images themselves the first."""


def mirrored(images: Tensor) -> Iterator[Tensor]:
    """The images and their mirror images."""
    yield images
    yield images.flip(-1)


def mirrored_and_shifted(images: Tensor) -> Iterator[Tensor]:
    """The images, moved by a pixel up and left, and down and right, too, the edge repeated; and all mirror images."""
    yield from mirrored(images)
    padded = torch.nn.functional.pad(images, (1, 1, 1, 1), mode="replicate")
    yield from mirrored(padded[..., 2:, 2:])
    yield from mirrored(padded[..., :-2, :-2])


VIEWS: Mapping[str, Views] = {"mirror": mirrored, "mirror_and_shift": mirrored_and_shifted}
"""Views by name."""
