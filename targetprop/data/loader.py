"""Batches of images that are already on the device: no workers, no copies from one memory to another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from targetprop.data.augment import Augmentation, normalize
from targetprop.data.images import Images
from targetprop.data.keyed import Stream, keyed_generator
from targetprop.errors import UserError


class EpochOrder:
    """The order of `count` images: a permutation determined by (seed, epoch) alone, or as they lie if not `shuffle`.

    Lightning looks for `loader.sampler.set_epoch` and calls it before every epoch.
    """

    def __init__(self, count: int, shuffle: bool, seed: int) -> None:
        self.count = count
        self.shuffle = shuffle
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Select the epoch (0 or more) that the next iteration runs through."""
        self.epoch = epoch

    def indices(self) -> Tensor:
        """int64 (count,): which image comes when in the selected epoch."""
        if not self.shuffle:
            return torch.arange(self.count)
        return torch.randperm(self.count, generator=keyed_generator(self.seed, Stream.ORDER, self.epoch))


class BatchLoader:
    """Batches (x, y) of `images`: x float32 (B, C, H, W), normalised, y int64 (B,), on the images' device.

    mean, std: one number per channel, in units of [0, 1].
    shuffle: the loader is for training. Each epoch has another order, and images vary by `augmentation`; both are
    determined by (seed, epoch, batch) alone. Without it (evaluation) every image comes once, as it is, in order.

    Raises `UserError` if a training batch is larger than the training set.
    """

    batch_sampler = None  # Lightning looks for it in whatever has a `sampler`

    def __init__(
        self,
        images: Images,
        batch_size: int,
        mean: Sequence[float],
        std: Sequence[float],
        *,
        shuffle: bool = False,
        augmentation: Augmentation | None = None,
        seed: int = 0,
    ) -> None:
        if augmentation is not None and not shuffle:
            raise ValueError("augmentation is for training loaders (shuffle=True): evaluation images stay as they are")
        if shuffle and batch_size > len(images):
            raise UserError(
                f"datamodule.batch_size: {batch_size} is larger than the training set of {len(images)} images"
            )
        self.images = images
        self.batch_size = batch_size
        self.augmentation = augmentation
        self.seed = seed
        self.sampler = EpochOrder(len(images), shuffle, seed)
        self._mean = torch.tensor(mean, dtype=torch.float32, device=images.pixels.device)
        self._std = torch.tensor(std, dtype=torch.float32, device=images.pixels.device)
        self._reached = (0, 0)  # the epoch of the latest batch, and how many batches of it have been given
        self._resuming = False

    def __len__(self) -> int:
        """Batches in an epoch."""
        # In training an incomplete last batch is dropped: every step has the same shape and the same weight, and
        # the next epoch's shuffle leaves out other images, so none is lost for good. In evaluation every image counts.
        if self.sampler.shuffle:
            return len(self.images) // self.batch_size
        return -(-len(self.images) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        # A generator, so that all this happens at the first batch, after set_epoch.
        order = self.sampler.indices().to(self.images.pixels.device)
        for batch in range(self._first_batch(), len(self)):
            self._reached = (self.sampler.epoch, batch + 1)
            chosen = order[batch * self.batch_size : (batch + 1) * self.batch_size]
            yield self._inputs(chosen, batch), self.images.labels[chosen]

    def state_dict(self) -> dict[str, int]:
        """Where the iteration stands: Lightning keeps it in checkpoints made in the middle of an epoch."""
        epoch, batches = self._reached
        return {"epoch": epoch, "batches": batches}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Let the next iteration go on after the batches already given, if it runs through the same epoch."""
        self._reached = (state["epoch"], state["batches"])
        self._resuming = True

    def _first_batch(self) -> int:
        epoch, batches = self._reached
        resuming, self._resuming = self._resuming, False
        return batches if resuming and epoch == self.sampler.epoch else 0

    def _inputs(self, chosen: Tensor, batch: int) -> Tensor:
        pixels = self.images.pixels.index_select(0, chosen)  # on a CPU far faster than pixels[chosen]
        if self.augmentation is not None:
            generator = keyed_generator(self.seed, Stream.AUGMENT, self.sampler.epoch, batch)
            pixels = self.augmentation(pixels, generator)
        return normalize(pixels, self._mean, self._std)
