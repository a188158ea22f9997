"""The Lightning side of a data set: validation split, batches, and the device they live on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import lightning as L
import torch
from torch import Tensor

from targetprop.data import Augmentation, BatchLoader, Images, Selection, Splits, normalize
from targetprop.data.keyed import Stream, keyed_generator
from targetprop.data.split import stratified_split
from targetprop.utils.errors import is_number, prefixed, require, require_whole

if TYPE_CHECKING:
    from targetprop.execution.grid import Grid


class ImageDataModule(L.LightningDataModule):
    """Images of one data set, held whole on the training device as bytes, with a validation split.

    Training and validation images are not copied apart: both are selections of the one set.

    Args:
        load: reads the data; called once as load(data_dir, download).
        data_dir: the directory that holds the data sets.
        batch_size: images in a training step.
        mean: one number per channel, in units of [0, 1].
        std: one number per channel, in units of [0, 1].
        val_fraction: the share of the training set, in [0, 1), that is held out for validation, at random by `seed`; it
            is the same for every class. Images held out are not augmented. With 0 there is no validation.
        augmentation: how training images vary.
        reshuffle: whether every epoch has an order and an augmentation of its own; else all repeat those of epoch 0.
        drop_last: whether a training epoch leaves out the images that do not fill a last batch.
        seed: of the split, the order of images and their augmentation.
        num_workers: accepted because published commands give it, and unused: data that lives on the device needs
            no worker processes.
        eval_batch_size: images in a step of validation or test.
        download: whether missing files are downloaded.

    Raises:
        UserError: a value does not fit. Values that must fit the data are checked when the data is first needed.
    """

    def __init__(
        self,
        load: Callable[[Path | str, bool], Splits],
        *,
        data_dir: Path | str,
        batch_size: int,
        mean: Sequence[float],
        std: Sequence[float],
        val_fraction: float = 0.0,
        augmentation: Augmentation | None = None,
        reshuffle: bool = True,
        drop_last: bool = True,
        seed: int = 0,
        num_workers: int = 0,
        eval_batch_size: int = 500,
        download: bool = True,
    ) -> None:
        super().__init__()
        require_whole("batch_size", batch_size, least=1)
        require_whole("eval_batch_size", eval_batch_size, least=1)
        require_whole("seed", seed, least=0)
        part = is_number(val_fraction) and 0 <= val_fraction < 1
        require(part, "val_fraction", "a number in [0, 1)", val_fraction)
        require(all(map(is_number, mean)), "mean", "numbers", list(mean))
        require(all(is_number(s) and s > 0 for s in std), "std", "numbers above 0", list(std))
        self.load = load
        self.data_dir = data_dir
        self.batch_size = batch_size
        self.mean = tuple(mean)
        self.std = tuple(std)
        self.val_fraction = val_fraction
        self.augmentation = augmentation
        self.reshuffle = reshuffle
        self.drop_last = drop_last
        self.seed = seed
        self.eval_batch_size = eval_batch_size
        self.download = download

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of every image."""
        return self._published["train"].image_shape

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, in the order of the labels."""
        return self._published["train"].classes

    @property
    def note(self) -> str:
        """What is to be said beside results; empty if nothing."""
        self._published  # noqa: B018
        return self._note

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return len(self.classes)

    def sample(self, count: int) -> Tensor:
        """So many training images as batches have them but not augmented, chosen by `seed`; all if there are fewer."""
        images = self._images("train")
        chosen = torch.randperm(len(images), generator=keyed_generator(self.seed, Stream.SAMPLE))[:count]
        pixels, _ = images.take(chosen.to(images.device))
        mean, std = (torch.tensor(each, device=images.device) for each in (self.mean, self.std))
        return normalize(pixels, mean, std)

    def prepare_data(self) -> None:
        """Load the data, downloading it if need be: Lightning has one process do this before all others."""
        with prefixed("datamodule"):
            self._split  # noqa: B018

    def setup(self, stage: str) -> None:
        """Load the data unless that is done."""
        self._split  # noqa: B018

    def train_dataloader(self) -> BatchLoader:
        """Shuffled, augmented batches of what validation leaves of the training set.

        Of several groups of processes each gets its part of batches that are so many times as large.
        """
        grid: Grid | None = None if self.trainer is None else getattr(self.trainer.strategy, "grid", None)
        with prefixed("datamodule"):
            return BatchLoader(
                self._images("train"),
                self.batch_size,
                self.mean,
                self.std,
                shuffle=True,
                reshuffle=self.reshuffle,
                drop_last=self.drop_last,
                augmentation=self.augmentation,
                seed=self.seed,
                row=grid.row if grid else 0,
                rows=grid.rows if grid else 1,
            )

    def val_dataloader(self) -> BatchLoader | list[BatchLoader]:
        """The validation split; an empty list, by which Lightning skips validation, if there is none."""
        return self._evaluation("val") if "val" in self._split else []

    def test_dataloader(self) -> BatchLoader:
        """The test set."""
        return self._evaluation("test")

    @cached_property
    def _published(self) -> dict[str, Images]:
        """The images for "train" and "test" as published, each set on the device where it was last used."""
        splits = self.load(self.data_dir, self.download)
        self._note = splits.note
        channels, _, _ = splits.train.image_shape
        for name, numbers in (("mean", self.mean), ("std", self.std)):
            expected = f"{channels} numbers, one per channel"
            require(len(numbers) == channels, name, expected, list(numbers))
        return {"train": splits.train, "test": splits.test}

    @cached_property
    def _split(self) -> dict[str, Tensor]:
        """Which of the published training images are for "train" and which for "val"; empty without validation."""
        images = self._published["train"]
        if self.val_fraction == 0:
            return {}
        count = round(self.val_fraction * len(images))
        least = f"a number that leaves images on both sides of {len(images)}"
        require(0 < count < len(images), "val_fraction", least, self.val_fraction)
        kept, held = stratified_split(images.labels.cpu(), count, keyed_generator(self.seed, Stream.SPLIT))
        return {"train": kept, "val": held}

    def _evaluation(self, part: str) -> BatchLoader:
        return BatchLoader(self._images(part), self.eval_batch_size, self.mean, self.std)

    def _images(self, part: str) -> Images | Selection:
        """The images for `part`, in a set that is moved to the trainer's device and stays there."""
        device = torch.device("cpu") if self.trainer is None else self.trainer.strategy.root_device
        source = "test" if part == "test" else "train"
        images = self._published[source] = self._published[source].to(device)
        return Selection(images, self._split[part].to(device)) if part in self._split else images
