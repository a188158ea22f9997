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
    """(pixels / 255 - mean) / std as `dtype`.

    The arithmetic is done in the precision of `mean` and `std`, and rounded once at the end.

    Args:
        pixels: uint8 (N, C, H, W).
        mean: one number per channel (C,), in units of [0, 1].
        std: one number per channel (C,), in units of [0, 1].
        dtype: the type of the result.
    """
    mean, std = mean.view(-1, 1, 1), std.view(-1, 1, 1)
    return pixels.to(mean.dtype).div_(255).sub_(mean).div_(std).to(dtype)


@dataclass(frozen=True)
class Augmentation:
    """How training images vary.

    Args:
        flip: the probability, in [0, 1], that an image is mirrored.
        crop: how many pixels, 0 or more, are added at every side before an image is cropped.

    Raises:
        UserError: a value is out of its range.
    """

    flip: float = 0.0
    crop: int = 0

    def __post_init__(self) -> None:
        probable = is_number(self.flip) and 0 <= self.flip <= 1
        require(probable, "flip", "a number in [0, 1]", self.flip)
        require_whole("crop", self.crop, least=0)

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Augmented images, as images (N, C, H, W) and of their dtype."""
        if self.flip:
            images = random_flip(images, self.flip, generator)
        if self.crop:
            images = random_crop(images, self.crop, generator)
        return images
