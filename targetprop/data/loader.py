"""Batches of examples that are already on the device: no workers, no copies from one memory to another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property

import torch
from torch import Tensor

from targetprop.data.augment import Augmentation, normalize
from targetprop.data.held import Held, Selection
from targetprop.data.keyed import Stream, keyed_generator
from targetprop.utils.errors import UserError


class EpochCounter:
    """The epoch that the next iteration of a loader runs through.

    Lightning looks for `loader.sampler.set_epoch` and calls it before every epoch.
    """

    def __init__(self) -> None:
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Select the epoch (0 or more) that the next iteration runs through."""
        self.epoch = epoch


class BatchLoader:
    """Batches (x, y) on the examples' device: inputs x, float32 (B, ...), images normalised, and targets y.

    Inputs that are tokens are int64 (B, time). Targets are labels, int64 (B,) or (B, time), or numbers to be met,
    float32 (B, outputs).

    The first iteration runs through epoch 0, each further one through the next epoch. `sampler.set_epoch(e)` selects
    epoch e for the next iteration instead, and those after it go on from there. An iteration takes its epoch when its
    first batch is asked for, and keeps it: an iteration that is abandoned after that has used its epoch up.

    Args:
        images: the examples, on the device where the batches are wanted.
        batch_size: examples in a batch.
        mean: of images, one number per channel, in units of [0, 1]; None leaves inputs as they are held.
        std: of images, one number per channel, in units of [0, 1]; given where the mean is.
        shuffle: whether the loader is for training. Each epoch then has another order, and images vary by
            `augmentation`; both are determined by (seed, epoch, batch) alone. In evaluation every image comes once, as
            it is, in order.
        reshuffle: whether every epoch has an order and an augmentation of its own; else all repeat those of epoch 0.
        drop_last: whether a training epoch leaves out the images that do not fill a last batch.
        augmentation: how training images vary.
        seed: of order and augmentation.
        row: which part of every batch to give (data parallelism).
        rows: how many parts of `batch_size` images a batch has.

    Raises:
        UserError: a training batch is larger than the training set.
    """

    batch_sampler = None  # Lightning looks for it in whatever has a `sampler`

    def __init__(
        self,
        images: Held | Selection,
        batch_size: int,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        *,
        shuffle: bool = False,
        reshuffle: bool = True,
        drop_last: bool = True,
        augmentation: Augmentation | None = None,
        seed: int = 0,
        row: int = 0,
        rows: int = 1,
    ) -> None:
        if augmentation is not None and not shuffle:
            raise ValueError("augmentation is for training loaders (shuffle=True): evaluation images stay as they are")
        if shuffle and batch_size * rows > len(images):
            times = f" times {rows} rows" if rows > 1 else ""
            message = f"{batch_size}{times} is larger than the training set of {len(images)} {images.noun}"
            raise UserError(message, key="batch_size")
        self.images = images
        self.batch_size = batch_size * rows
        self.rows = rows
        self.part = slice(row * batch_size, (row + 1) * batch_size if rows > 1 else None)
        self.shuffle = shuffle
        self.reshuffle = reshuffle
        self.drop_last = drop_last
        self.augmentation = augmentation
        self.seed = seed
        self.sampler = EpochCounter()
        self._given = self._first = 0
        self._constants: tuple[Tensor, Tensor] | None = None
        if mean is not None and std is not None:
            first, second = (torch.tensor(each, dtype=torch.float32, device=images.device) for each in (mean, std))
            self._constants = first, second

    def __len__(self) -> int:
        """Batches in an epoch."""
        # In training an incomplete last batch is dropped by default: every step has the same shape and weight, and the
        # next epoch's shuffle leaves out other images, so none is lost for good. In evaluation every image counts.
        if self.shuffle and self.drop_last:
            return len(self.images) // self.batch_size
        return -(-len(self.images) // self.batch_size)

    def blank(self, count: int) -> Tensor:
        """So many inputs of zeros, of shape and type as batches have them, on the examples' device."""
        inputs, _ = self.images.take(torch.zeros(1, dtype=torch.int64, device=self.images.device))
        dtype = inputs.dtype if self._constants is None else torch.float32
        return torch.zeros(count, *self.images.shape, dtype=dtype, device=self.images.device)

    def state_dict(self) -> dict[str, int]:
        """How many batches of its epoch the running iteration has given."""
        return {"batch": self._given}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Have the next iteration, and only that, leave out the batches that were given before."""
        self._first = state["batch"]

    def least(self, batches: int) -> int:
        """Images in the smallest of the first so many batches of an epoch, or in the smallest row's part of it."""
        left = len(self.images) % self.batch_size
        full = self.batch_size // self.rows
        if left == 0 or batches < len(self) or (self.shuffle and self.drop_last):
            return full
        return max(0, min(full, left - full * (self.rows - 1)))

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        # A generator, so that all this happens at the first batch: Lightning calls iter before set_epoch.
        epoch = self.sampler.epoch if self.reshuffle else 0
        self.sampler.epoch += 1
        order = self._order(epoch).to(self.images.device)
        first, self._first = self._first, 0
        for batch in range(first, len(self)):
            self._given = batch + 1
            chosen = order[batch * self.batch_size : (batch + 1) * self.batch_size]
            pixels, labels = self.images.take(chosen)
            yield self._inputs(pixels, chosen, epoch, batch), labels[self.part]

    def _order(self, epoch: int) -> Tensor:
        if not self.shuffle:
            return torch.arange(len(self.images))
        return torch.randperm(len(self.images), generator=keyed_generator(self.seed, Stream.ORDER, epoch))

    @cached_property
    def _mirrored_first(self) -> Tensor:
        """Which images are mirrored in epoch 0 where flips alternate."""
        coins = torch.rand(len(self.images), generator=keyed_generator(self.seed, Stream.FLIP)) < 0.5
        return coins.to(self.images.device)

    def _inputs(self, pixels: Tensor, chosen: Tensor, epoch: int, batch: int) -> Tensor:
        if self.augmentation is not None:
            mirrored = self._mirrored_first[chosen] ^ bool(epoch % 2) if self.augmentation.alternates else None
            pixels = self.augmentation(pixels, keyed_generator(self.seed, Stream.AUGMENT, epoch, batch), mirrored)
        return pixels[self.part] if self._constants is None else normalize(pixels[self.part], *self._constants)
