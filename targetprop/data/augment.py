"""Augmentation of whole batches of uint8 images on the device they are on.

The few random numbers (one or two for each image) are drawn by a CPU generator and then moved, so that a run
on a GPU sees exactly the images that a run on the CPU sees.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from targetprop.utils.errors import is_number, require, require_whole, unknown


def random_flip(images: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """Mirror each image (N, C, H, W) left to right with `probability`, independently of the others."""
    chosen = torch.rand(len(images), 1, 1, 1, generator=generator) < probability
    return torch.where(chosen.to(images.device, non_blocking=True), images.flip(-1), images)


def _at_edge(places: Tensor, last: int) -> Tensor:
    return places.clamp_(0, last)


def _reflected(places: Tensor, last: int) -> Tensor:
    return last - (last - places.abs()).abs()


BORDERS = {"edge": _at_edge, "reflect": _reflected}
"""Where in a row of pixels 0..last to find those of a padded one."""


def random_crop(
    images: Tensor, padding: int, generator: torch.Generator, border: Literal["edge", "reflect"] = "edge"
) -> Tensor:
    """A random H x W window of each image (N, C, H, W) after `padding` pixels are added at all four sides.

    Padding repeats the image's edge, or reflects the image at its edge, which must then be longer than `padding`. Each
    image has its own window, all (2 padding + 1)^2 are equally likely.
    """
    count, channels, height, width = images.shape
    shifts = torch.randint(-padding, padding + 1, (2, count, 1), generator=generator)
    down, right = shifts.to(images.device, non_blocking=True)
    # Padding is the same as reading the pixel that it copies: nothing need really be padded.
    rows = BORDERS[border](torch.arange(height, device=images.device) + down, height - 1)
    columns = BORDERS[border](torch.arange(width, device=images.device) + right, width - 1)
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
        flip: the probability, in [0, 1], that an image is mirrored; or "alternate": every image is mirrored in every
            second epoch, which is the first one for half of them.
        crop: how many pixels, 0 or more, are added at every side before an image is cropped.
        border: what they are: "edge" repeats the image's edge, "reflect" reflects the image there.

    Raises:
        UserError: a value is out of its range.
    """

    flip: float | Literal["alternate"] = 0.0
    crop: int = 0
    border: Literal["edge", "reflect"] = "edge"

    def __post_init__(self) -> None:
        fits = self.alternates or (is_number(self.flip) and 0 <= self.flip <= 1)
        require(fits, "flip", "a number in [0, 1] or 'alternate'", self.flip)
        require_whole("crop", self.crop, least=0)
        if self.border not in BORDERS:
            raise unknown("border", self.border, BORDERS)

    @property
    def alternates(self) -> bool:
        """Whether it depends on the epoch which images are mirrored."""
        return self.flip == "alternate"

    def __call__(self, images: Tensor, generator: torch.Generator, mirrored: Tensor | None = None) -> Tensor:
        """Augmented images, as images (N, C, H, W) and of their dtype.

        Args:
            mirrored: which of them are mirrored, bool (N,), where flips alternate.

        Raises:
            UserError: a reflected border is as wide as the images.
        """
        if mirrored is not None:
            images = torch.where(mirrored.view(-1, 1, 1, 1), images.flip(-1), images)
        elif self.flip:
            assert not isinstance(self.flip, str)
            images = random_flip(images, self.flip, generator)
        if self.border == "reflect":
            size = min(images.shape[2:])
            require(self.crop < size, "crop", f"less than {size}, the size of the images that are reflected", self.crop)
        if self.crop:
            images = random_crop(images, self.crop, generator, self.border)
        return images
