"""The Lightning side of a data set: validation split, batches, and the device they live on."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import lightning as L
import torch
from hydra.utils import get_object
from torch import Tensor

from targetprop.app.schema.roles import is_a, made_by, path_of
from targetprop.data import Augmentation, BatchLoader, ExampleSplits, Held, Selection, Splits, normalize, own
from targetprop.data.keyed import Stream, keyed_generator
from targetprop.data.split import random_split, stratified_split
from targetprop.utils.errors import UserError, is_number, prefixed, require, require_whole

if TYPE_CHECKING:
    from targetprop.execution.grid import Grid


class Parts(NamedTuple):
    """What has been read.

    Attributes:
        train: what is trained on, and validated on a part of.
        test: what is tested on; None if there is nothing.
        note: what is to be said beside results; empty if nothing.
    """

    train: Held
    test: Held | None
    note: str = ""


class HeldDataModule(L.LightningDataModule):
    """Examples of one data set, held whole on the training device, with a validation split.

    Training and validation examples are not copied apart: both are selections of the one set.

    Args:
        batch_size: examples in a training step.
        val_fraction: the share of the training set, in [0, 1), that is held out for validation, at random by `seed`; it
            is the same for every class, if there are any. With 0 there is no validation.
        reshuffle: whether every epoch has an order and an augmentation of its own; else all repeat those of epoch 0.
        drop_last: whether a training epoch leaves out the examples that do not fill a last batch.
        seed: of the split and of the order of examples.
        num_workers: accepted because published commands give it, and unused: data that lives on the device needs
            no worker processes.
        eval_batch_size: examples in a step of validation or test.

    Raises:
        UserError: a value does not fit. Values that must fit the data are checked when the data is first needed.
    """

    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    augmentation: Augmentation | None = None

    def __init__(
        self,
        *,
        batch_size: int,
        val_fraction: float = 0.0,
        reshuffle: bool = True,
        drop_last: bool = True,
        seed: int = 0,
        num_workers: int = 0,
        eval_batch_size: int = 500,
    ) -> None:
        super().__init__()
        require_whole("batch_size", batch_size, least=1)
        require_whole("eval_batch_size", eval_batch_size, least=1)
        require_whole("seed", seed, least=0)
        part = is_number(val_fraction) and 0 <= val_fraction < 1
        require(part, "val_fraction", "a number in [0, 1)", val_fraction)
        self.batch_size = batch_size
        self.val_fraction = val_fraction
        self.reshuffle = reshuffle
        self.drop_last = drop_last
        self.seed = seed
        self.eval_batch_size = eval_batch_size

    @abstractmethod
    def read(self) -> Parts:
        """Read the data; called once.

        Raises:
            UserError: it cannot be read, or does not fit the settings.
        """

    @property
    def shape(self) -> tuple[int, ...]:
        """Of every input: of an image (channels, height, width)."""
        return self._published["train"].shape

    @property
    def classes(self) -> tuple[str, ...] | None:
        """The names of the classes, in the order of the labels; None if targets are numbers to be met."""
        return self._published["train"].classes

    @property
    def outputs(self) -> int:
        """How many classes there are, or numbers to be met for an example."""
        return self.targets.shape[1] if self.classes is None else len(self.classes)

    @property
    def targets(self) -> Tensor:
        """Of the training set, that for validation included."""
        return self._published["train"].targets

    @property
    def places(self) -> int | None:
        """How many labels an example has, one for every place of its sequence; None if it has one, or numbers."""
        return None if self.classes is None or self.targets.ndim == 1 else self.targets.shape[1]

    @property
    def vocabulary(self) -> int | None:
        """How many different tokens inputs have; None of other inputs."""
        inputs = [held.inputs for held in self._published.values()]
        return max(int(each.max()) for each in inputs) + 1 if inputs[0].dtype == torch.int64 else None

    @property
    def has_test(self) -> bool:
        """Whether there is a test set."""
        return "test" in self._published

    @property
    def note(self) -> str:
        """What is to be said beside results; empty if nothing."""
        self._published  # noqa: B018
        return self._note

    def sample(self, count: int) -> Tensor:
        """So many training inputs as batches have them but not augmented, chosen by `seed`; all if there are fewer."""
        held = self._held("train")
        chosen = torch.randperm(len(held), generator=keyed_generator(self.seed, Stream.SAMPLE))[:count]
        inputs, _ = held.take(chosen.to(held.device))
        if self.mean is None or self.std is None:
            return inputs
        mean, std = (torch.tensor(each, device=held.device) for each in (self.mean, self.std))
        return normalize(inputs, mean, std)

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
                self._held("train"),
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

    def test_dataloader(self) -> BatchLoader | list[BatchLoader]:
        """The test set; an empty list if there is none."""
        return self._evaluation("test") if self.has_test else []

    @cached_property
    def _published(self) -> dict[str, Held]:
        """The examples for "train" and "test" as read, each set on the device where it was last used."""
        parts = self.read()
        self._note = parts.note
        return {"train": parts.train, **({} if parts.test is None else {"test": parts.test})}

    @cached_property
    def _split(self) -> dict[str, Tensor]:
        """Which of the training examples are for "train" and which for "val"; empty without validation."""
        held = self._published["train"]
        if self.val_fraction == 0:
            return {}
        count = round(self.val_fraction * len(held))
        least = f"a number that leaves {held.noun} on both sides of {len(held)}"
        require(0 < count < len(held), "val_fraction", least, self.val_fraction)
        generator = keyed_generator(self.seed, Stream.SPLIT)
        if held.classes is None or held.targets.ndim > 1:
            kept, chosen = random_split(len(held), count, generator)
        else:
            kept, chosen = stratified_split(held.targets.cpu(), count, generator)
        return {"train": kept, "val": chosen}

    def _evaluation(self, part: str) -> BatchLoader:
        return BatchLoader(self._held(part), self.eval_batch_size, self.mean, self.std)

    def _held(self, part: str) -> Held | Selection:
        """The examples for `part`, in a set that is moved to the trainer's device and stays there."""
        device = torch.device("cpu") if self.trainer is None else self.trainer.strategy.root_device
        source = "test" if part == "test" else "train"
        held = self._published[source] = self._published[source].to(device)
        return Selection(held, self._split[part].to(device)) if part in self._split else held


class FileDataModule(HeldDataModule):
    """A data set that is read from files.

    Args:
        load: reads the data; called once as load(data_dir, download).
        data_dir: the directory that holds the data sets.
        download: whether missing files are downloaded.
        others: as of every `HeldDataModule`.
    """

    kinds: ClassVar[tuple[type, ...]] = (ExampleSplits, Splits)
    """What `load` may give."""

    def __init__(
        self,
        load: Callable[[Path | str, bool], Splits | ExampleSplits],
        *,
        data_dir: Path | str,
        batch_size: int,
        download: bool = True,
        **others: Any,
    ) -> None:
        super().__init__(batch_size=batch_size, **others)
        self.load = load
        self.data_dir = data_dir
        self.download = download

    def read(self) -> Parts:
        """The examples and what is to be said of their files."""
        what = f"a data set ({' or '.join(kind.__name__ for kind in self.kinds)})"
        splits: Splits | ExampleSplits = made_by(
            "load._target_", self._loaded, path_of(self.load), is_a(*self.kinds), what
        )
        return Parts(splits.train, splits.test, splits.note)

    def _loaded(self) -> Splits | ExampleSplits:
        try:
            return self.load(self.data_dir, self.download)
        except UserError as error:
            raise (error.under("load") if error.key else error) from error.__cause__


class ImageDataModule(FileDataModule):
    """Images of a published data set, held as bytes.

    Args:
        mean: one number per channel, in units of [0, 1].
        std: one number per channel, in units of [0, 1].
        augmentation: how training images vary. Images held out for validation do not.
        others: as of every `FileDataModule`.

    Raises:
        UserError: a value does not fit. Values that must fit the data are checked when the data is first needed.
    """

    kinds = (Splits,)

    def __init__(
        self,
        load: Callable[[Path | str, bool], Splits],
        *,
        data_dir: Path | str,
        batch_size: int,
        mean: Sequence[float],
        std: Sequence[float],
        augmentation: Augmentation | None = None,
        **others: Any,
    ) -> None:
        super().__init__(load, data_dir=data_dir, batch_size=batch_size, **others)
        require(all(map(is_number, mean)), "mean", "numbers", list(mean))
        require(all(is_number(s) and s > 0 for s in std), "std", "numbers above 0", list(std))
        varies = augmentation is None or isinstance(augmentation, Augmentation)
        require(varies, "augmentation", "an Augmentation, or null", augmentation)
        self.mean = tuple(mean)
        self.std = tuple(std)
        self.augmentation = augmentation

    def read(self) -> Parts:
        """The images and what is to be said of their files."""
        parts = super().read()
        channels = parts.train.shape[0]
        for name, numbers in (("mean", self.mean), ("std", self.std)):
            assert numbers is not None
            expected = f"{channels} numbers, one per channel"
            require(len(numbers) == channels, name, expected, list(numbers))
        return parts


class ExampleDataModule(HeldDataModule):
    """Examples that are no images as bytes: inputs of any shape.

    Args:
        load: makes or reads the data; called once, without arguments.
        others: as of every `HeldDataModule`.
    """

    def __init__(self, load: Callable[[], ExampleSplits], *, batch_size: int, **others: Any) -> None:
        super().__init__(batch_size=batch_size, **others)
        self.load = load

    def read(self) -> Parts:
        """The examples."""
        with prefixed("load"):
            kind, what = is_a(ExampleSplits), "a data set (ExampleSplits)"
            splits: ExampleSplits = made_by("_target_", self.load, path_of(self.load), kind, what)
        return Parts(splits.train, splits.test, splits.note)


class OwnDataModule(HeldDataModule):
    """A data set of the user's own, read once (see `targetprop.data.own`).

    Args:
        dataset: import path of a function that returns a Dataset for training, or it and one for testing.
        arguments: of the function, by their names.
        classes: how many there are, or their names; None counts them by the largest label.
        others: as of every `HeldDataModule`.
    """

    def __init__(
        self,
        dataset: str,
        *,
        batch_size: int,
        arguments: Mapping[str, Any] | None = None,
        classes: int | Sequence[str] | None = None,
        **others: Any,
    ) -> None:
        super().__init__(batch_size=batch_size, **others)
        named = isinstance(dataset, str) and "." in dataset
        require(named, "dataset", "the import path of a function that returns it, package.module.FUNCTION", dataset)
        self.dataset = dataset
        self.arguments = dict(arguments or {})
        self.asked = classes

    def read(self) -> Parts:
        """What the function returns, as tensors.

        Raises:
            UserError: the function cannot be found or fails, or what it returns is no such data set.
        """
        try:
            given = get_object(self.dataset)(**self.arguments)
        except Exception as error:  # whatever the user's code raises
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise UserError(f"{self.dataset} gives no data set: {reason}", key="dataset") from error
        try:
            splits = own.read(given, self.asked)
        except UserError as error:
            raise (error if error.key == "classes" else UserError(str(error), key="dataset")) from error.__cause__
        return Parts(splits.train, splits.test)
