"""The 1,797 handwritten digits of 8x8 pixels of Alpaydin and Kaynak (1998), which are part of this package."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from targetprop.data.images import Images, Splits
from targetprop.data.keyed import Stream, keyed_generator
from targetprop.data.split import stratified_split

FILE = Path(__file__).with_name("digits.npz")
"""Images (1797, 8, 8) with values 0..16, and labels; digits.txt says whose they are."""
TEST_COUNT = 360
"""Images of the test set, 20 %: published without a split, so this one is ours, and always the same."""


def load(data_dir: Path | str | None = None, download: bool = False) -> Splits:
    """Digits as uint8 (N, 1, 8, 8), in 10 classes.

    Args:
        data_dir: ignored, because the images are part of this package.
        download: ignored, for the same reason.
    """
    with np.load(FILE) as file:
        published, labels = torch.from_numpy(file["images"]), torch.from_numpy(file["labels"])
    brightness = published.double() * (255 / 16)
    images = Images(
        pixels=brightness.round().to(torch.uint8).unsqueeze(1),
        labels=labels.long(),
        classes=tuple("0123456789"),
    )
    train, test = stratified_split(images.labels, TEST_COUNT, keyed_generator(0, Stream.SPLIT))
    return Splits(images.subset(train), images.subset(test))
