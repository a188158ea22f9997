"""Make small files in the published format of ImageNet32, of images that a network can learn to tell apart.

    python tests/commands/make_imagenet32.py DIR --images 2000
    python main.py datamodule=imagenet32 data_dir=DIR

Every class is a pattern of its own, of 4x4 coloured squares; its images are that pattern under noise. Labels are spread
over the published 1..1000. DIR/Imagenet32_train/train_data_batch_1 to 10 and DIR/Imagenet32_val/val_data are written;
existing ones are replaced.
"""

from __future__ import annotations

import argparse
import pickle
from collections.abc import Sequence
from pathlib import Path

import numpy as np

SIZE, SQUARE = 32, 8
NOISE = 32
"""Largest deviation of a pixel from its class's pattern, of 255."""


def make_files(folder: Path, images: int, classes: int = 10) -> None:
    """Ten files of `images` training images in all, at least one in each, and one file with a tenth as many."""
    generator = np.random.default_rng(0)
    squares = SIZE // SQUARE
    patterns = generator.integers(NOISE, 256 - NOISE, (classes, 3, squares, squares), dtype=np.uint8)
    patterns = patterns.repeat(SQUARE, axis=2).repeat(SQUARE, axis=3).reshape(classes, -1)
    names = [f"Imagenet32_train/train_data_batch_{number}" for number in range(1, 11)] + ["Imagenet32_val/val_data"]
    for number, name in enumerate(names):
        count = images * (number + 1) // 10 - images * number // 10 if number < 10 else max(1, images // 10)
        write_file(folder / name, patterns, count, generator)


def write_file(path: Path, patterns: np.ndarray, count: int, generator: np.random.Generator) -> None:
    """One file of `count` images of all classes; `patterns`, uint8 (classes, 3072), are theirs."""
    chosen = generator.permutation(np.arange(count) % len(patterns))
    noise = generator.integers(-NOISE, NOISE, (count, patterns.shape[1]), dtype=np.int8, endpoint=True)
    pixels = patterns[chosen] + noise.view(np.uint8)  # modulo 256, which is never reached
    labels = np.linspace(1, 1000, len(patterns)).astype(int)[chosen].tolist()
    content = {"data": pixels, "labels": labels}
    if path.name != "val_data":
        content["mean"] = pixels.mean(axis=0)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        pickle.dump(content, file, protocol=3)


def main(arguments: Sequence[str] | None = None) -> None:
    """Make them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", metavar="DIR", type=Path)
    parser.add_argument("--images", type=int, default=2000, help="for training, 10 or more")
    parser.add_argument("--classes", type=int, default=10, help="from 1 to 1000")
    options = parser.parse_args(arguments)
    if options.images < 10 or not 1 <= options.classes <= 1000:
        parser.error("expected 10 images or more, and 1 to 1000 classes")
    make_files(options.folder, options.images, options.classes)


if __name__ == "__main__":
    main()
