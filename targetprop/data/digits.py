"""The 1,797 handwritten digits of 8x8 pixels that come with scikit-learn (Alpaydin and Kaynak 1998)."""

from __future__ import annotations

from pathlib import Path

import torch

from targetprop.data.images import Images, Splits
from targetprop.data.keyed import Stream, keyed_generator
from targetprop.data.split import stratified_split

TEST_COUNT = 360
"""Images of the test set, 20 %: published without a split, so this one is ours, and always the same."""


def load(data_dir: Path | str | None = None, download: bool = False) -> Splits:
    """Digits as uint8 (N, 1, 8, 8), in 10 classes.

    Args:
        data_dir: ignored, because the images are part of scikit-learn.
        download: ignored, for the same reason.
    """
    from sklearn.datasets import load_digits  # here, because nothing else needs scikit-learn

    digits = load_digits()
    brightness = torch.from_numpy(digits.images) * (255 / 16)  # published as 0..16
    images = Images(
        pixels=brightness.round().to(torch.uint8).unsqueeze(1),
        labels=torch.from_numpy(digits.target).long(),
        classes=tuple("0123456789"),
    )
    train, test = stratified_split(images.labels, TEST_COUNT, keyed_generator(0, Stream.SPLIT))
    return Splits(images.subset(train), images.subset(test))
