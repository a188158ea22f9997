"""Augmentation of whole batches of uint8 images on the device they are on.

The few random numbers (one or two for each image) are drawn by a CPU generator and then moved, so that a run
on a GPU sees exactly the images that a run on the CPU sees.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from targetprop.utils.errors import is_number, require, require_whole


def random_flip(images: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """Mirror each image (N, C, H, W) left to right with `probability`, independently of the others."""
    chosen = torch.rand(len(images), 1, 1, 1, generator=generator) < probability
    return torch.where(chosen.to(images.device, non_blocking=True), images.flip(-1), images)


def random_crop(images: Tensor, padding: int, generator: torch.Generator) -> Tensor:
    """A random H x W window of each image (N, C, H, W) after `padding` pixels are added at all four sides.

    Padding repeats the image's edge. Each image has its own window, all (2 padding + 1)^2 are equally likely.
    """
    count, channels, height, width = images.shape
    shifts = torch.randint(-padding, padding + 1, (2, count, 1), generator=generator)
    down, right = shifts.to(images.device, non_blocking=True)
    # Repeating the edge is the same as reading the nearest pixel there is: nothing need really be padded.
    rows = (torch.arange(height, device=images.device) + down).clamp_(0, height - 1)
    columns = (torch.arange(width, device=images.device) + right).clamp_(0, width - 1)
    pixels = rows[:, :, None] * width + columns[:, None, :]
    wanted = pixels.view(count, 1, -1).expand(-1, channels, -1)
    return images.flatten(2).gather(2, wanted).view_as(images)


def normalize(pixels: Tensor, mean: Tensor, std: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """(pixels / 255 - mean) / std as `dtype`, for pixels uint8 (N, C, H, W).

    mean, std: floats (C,), in units of [0, 1]; the arithmetic is done in their precision, then rounded once.
    """
    mean, std = mean.view(-1, 1, 1), std.view(-1, 1, 1)
    return pixels.to(mean.dtype).div_(255).sub_(mean).div_(std).to(dtype)


@dataclass(frozen=True)
class Augmentation:
    """How training images vary.

    flip: probability in [0, 1] to mirror an image.  crop: pixels to pad before cropping, 0 or more.
    Raises `UserError` for values out of range.
    """

    flip: float = 0.0
    crop: int = 0

    def __post_init__(self) -> None:
        probable = is_number(self.flip) and 0 <= self.flip <= 1
        require(probable, "datamodule.augmentation.flip", "a number in [0, 1]", self.flip)
        require_whole("datamodule.augmentation.crop", self.crop, least=0)

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Augmented images, as images (N, C, H, W) and of their dtype."""
        if self.flip:
            images = random_flip(images, self.flip, generator)
        if self.crop:
            images = random_crop(images, self.crop, generator)
        return images
