"""A labelled set of images held whole, as bytes, on one device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from targetprop.utils.errors import require


# eq=False: comparing tensors element by element has no single truth value.
@dataclass(frozen=True, eq=False)
class Images:
    """N >= 1 labelled images of one size.

    Args:
        pixels: uint8 (N, C, H, W).
        labels: int64 (N,), each in 0..len(classes)-1.
        classes: the names of the classes.

    Raises:
        UserError: the tensors do not fit this description.
    """

    pixels: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    noun: ClassVar[str] = "images"

    def __post_init__(self) -> None:
        pixels, labels = self.pixels, self.labels
        require(pixels.dtype == torch.uint8, "images.pixels", "dtype torch.uint8", pixels.dtype)
        filled = pixels.ndim == 4 and pixels.numel() > 0
        require(filled, "images.pixels", "shape (N, C, H, W), each 1 or more", tuple(pixels.shape))
        require(labels.dtype == torch.int64, "images.labels", "dtype torch.int64", labels.dtype)
        paired = labels.shape == pixels.shape[:1]
        require(paired, "images.labels", f"shape ({len(pixels)},)", tuple(labels.shape))
        low, high = (int(bound) for bound in torch.aminmax(labels))
        last = len(self.classes) - 1
        require(low >= 0 and high <= last, "images.labels", f"labels in 0..{last}", f"{low}..{high}")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of every image."""
        _, channels, height, width = self.pixels.shape
        return channels, height, width

    @property
    def shape(self) -> tuple[int, ...]:
        """(channels, height, width) of every image."""
        return self.image_shape

    @property
    def inputs(self) -> Tensor:
        """The pixels."""
        return self.pixels

    @property
    def targets(self) -> Tensor:
        """The labels."""
        return self.labels

    @property
    def device(self) -> torch.device:
        """Where the images are."""
        return self.pixels.device

    def take(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels and labels at `indices` (int64 (M,), on the images' device), copied, in that order."""
        return self.pixels.index_select(0, indices), self.labels[indices]  # on a CPU far faster than pixels[indices]

    def to(self, device: torch.device | str) -> Images:
        """The same images on `device`; nothing is copied if they are there already."""
        return Images(self.pixels.to(device), self.labels.to(device), self.classes)

    def subset(self, indices: Tensor) -> Images:
        """The images at `indices` (int64 (M,), M >= 1), copied, in that order."""
        return Images(self.pixels[indices], self.labels[indices], self.classes)


@dataclass(frozen=True)
class Splits:
    """A data set as published: what may be learned from, and what is held back for the final test.

    Attributes:
        note: what is to be said beside every result on it, such as files that are not the published ones.

    Raises:
        UserError: the test images are of another size, or of other classes.
    """

    train: Images
    test: Images
    note: str = ""

    def __post_init__(self) -> None:
        expected = f"{self.train.image_shape}, the shape of training images"
        require(self.test.image_shape == self.train.image_shape, "test images", expected, self.test.image_shape)
        same = self.test.classes == self.train.classes
        require(same, "test images", "the classes of training images", f"{len(self.test.classes)} others")
