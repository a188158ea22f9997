"""What must be known of data to make a network for them and to show it new examples, without reading them again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from targetprop.data import normalize
from targetprop.utils.errors import UserError

if TYPE_CHECKING:
    from targetprop.app.datamodule import HeldDataModule


class Described(NamedTuple):
    """What a run knows of its data.

    Attributes:
        shape: of an input; of an image (channels, height, width).
        outputs: how many classes there are, or numbers to be met for an example.
        classes: their names in the order of the labels; None if targets are numbers to be met.
        mean: of each channel of images, in units of [0, 1]; None of inputs that are no images as bytes.
        std: as `mean`.
        vocabulary: how many different tokens inputs are made of; None of others.
        places: how many labels an example has, one for every place of its sequence; None if it has one, or numbers.
    """

    shape: tuple[int, ...]
    outputs: int
    classes: tuple[str, ...] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    vocabulary: int | None = None
    places: int | None = None

    @property
    def is_images(self) -> bool:
        """Whether inputs are images as bytes, which are normalised."""
        return self.mean is not None and self.std is not None

    @property
    def facts(self) -> dict[str, int | None]:
        """What a network may ask for by name."""
        return {"vocabulary": self.vocabulary, "places": self.places}

    @property
    def dtype(self) -> torch.dtype:
        """Of what the network takes, in single precision."""
        return torch.float32 if self.vocabulary is None else torch.int64

    @property
    def kind(self) -> str:
        """Of the numbers that examples are made of, in words."""
        if self.is_images:
            return "uint8 of 0 to 255"
        return "floats" if self.vocabulary is None else f"tokens, whole numbers of 0 to {self.vocabulary - 1}"

    def takes(self, given: Tensor) -> bool:
        """Whether examples are made of such numbers."""
        if self.is_images:
            return given.dtype == torch.uint8
        if self.vocabulary is None:
            return given.is_floating_point()
        if given.is_floating_point() or given.is_complex() or given.dtype == torch.bool:
            return False
        whole = given.long()
        return bool(((whole >= 0) & (whole < self.vocabulary)).all())

    def blank(self, count: int) -> Tensor:
        """So many inputs of zeros, as the network takes them, in single precision."""
        return torch.zeros(count, *self.shape, dtype=self.dtype)

    def inputs(self, given: Tensor) -> Tensor:
        """What the network takes of images as bytes (batch, channels, height, width); other inputs as they are."""
        if self.mean is None or self.std is None:
            return given
        return normalize(given, torch.tensor(self.mean), torch.tensor(self.std))

    @property
    def plain(self) -> dict[str, Any]:
        """In plain types, as a checkpoint keeps it."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in self._asdict().items()}


def describe(datamodule: HeldDataModule) -> Described:
    """What there is to know of data, which are read for it."""
    return Described(
        datamodule.shape,
        datamodule.outputs,
        datamodule.classes,
        datamodule.mean,
        datamodule.std,
        datamodule.vocabulary,
        datamodule.places,
    )


def described(saved: Mapping[str, Any]) -> Described:
    """What a checkpoint says of the data.

    Raises:
        UserError: it is no such description.
    """
    try:
        plain: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in saved.items()
        }
        return Described(**plain)
    except TypeError as error:
        raise UserError(f"what it says of its data is damaged: {error}") from None
