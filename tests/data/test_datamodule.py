import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.fabric.utilities.warnings import PossibleUserWarning
from torch import Tensor

from targetprop.data import Augmentation, BatchLoader, ImageDataModule, Splits, digits, normalize
from targetprop.errors import UserError

Make = Callable[..., ImageDataModule]


@pytest.fixture
def make(splits: Splits) -> Make:
    """A data module over `splits`, whose `load` counts its calls in `calls`."""

    def build(**changes: Any) -> ImageDataModule:
        settings: dict[str, Any] = {"data_dir": "d", "batch_size": 16, "mean": (0.5, 0.4), "std": (0.2, 0.3)}
        return ImageDataModule(lambda data_dir, download: splits, **{**settings, **changes})

    return build


def pixels_of(loader: BatchLoader) -> set[bytes]:
    return {image.numpy().tobytes() for image in loader.images.pixels}


def test_load_is_called_once_with_the_directory(splits: Splits) -> None:
    calls = []

    def load(data_dir: Path | str, download: bool) -> Splits:
        calls.append((data_dir, download))
        return splits

    data = ImageDataModule(load, data_dir="there", batch_size=4, mean=(0, 0), std=(1, 1), download=False)
    assert calls == []
    assert (data.image_shape, data.num_classes, data.classes[0]) == ((2, 5, 6), 4, "class 0")
    data.prepare_data()
    data.setup("fit")
    data.train_dataloader()
    assert calls == [("there", False)]


def test_validation_is_a_stratified_part_of_the_training_set(make: Make, splits: Splits) -> None:
    data = make(val_fraction=0.25)
    train, val, test = data.train_dataloader(), data.val_dataloader(), data.test_dataloader()
    assert isinstance(val, BatchLoader)
    assert (len(train.images), len(val.images), len(test.images)) == (150, 50, 30)
    assert pixels_of(train).isdisjoint(pixels_of(val))
    everything = {image.numpy().tobytes() for image in splits.train.pixels}
    assert pixels_of(train) | pixels_of(val) == everything
    shares = val.images.labels.bincount(minlength=4) - splits.train.labels.bincount(minlength=4) / 4
    assert shares.abs().max() < 1


def test_the_seed_keys_the_validation_split(make: Make) -> None:
    first, again, other = (make(val_fraction=0.25, seed=seed).val_dataloader() for seed in (0, 0, 1))
    assert pixels_of(first) == pixels_of(again) != pixels_of(other)  # type: ignore[arg-type]


def test_only_training_images_are_augmented(make: Make) -> None:
    data = make(val_fraction=0.25, augmentation=Augmentation(flip=1.0), eval_batch_size=50)
    val = data.val_dataloader()
    assert isinstance(val, BatchLoader)
    for evaluation in (val, data.test_dataloader()):
        x, _ = next(iter(evaluation))
        assert torch.equal(x, normalize(evaluation.images.pixels, torch.tensor(data.mean), torch.tensor(data.std)))
    train = data.train_dataloader()
    x, _ = next(iter(train))
    plain = train.images.pixels[train.sampler.indices()[:16]]
    assert torch.equal(x, normalize(plain.flip(-1), torch.tensor(data.mean), torch.tensor(data.std)))


def test_without_a_fraction_there_is_no_validation(make: Make, splits: Splits) -> None:
    data = make()
    assert data.val_dataloader() == []
    assert data.train_dataloader().images.pixels is splits.train.pixels


def test_batches_are_not_copied_on_their_way_to_the_device(make: Make) -> None:
    data = make()
    x, y = next(iter(data.train_dataloader()))
    moved = data.transfer_batch_to_device((x, y), torch.device("cpu"), 0)
    assert moved[0].data_ptr() == x.data_ptr()
    assert moved[1].data_ptr() == y.data_ptr()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"val_fraction": 1.5}, r"datamodule\.val_fraction: expected a number in \[0, 1\), got 1\.5"),
        ({"val_fraction": 1}, "got 1"),
        ({"val_fraction": "some"}, "got 'some'"),
        ({"batch_size": 0}, r"datamodule\.batch_size: expected a whole number, 1 or more, got 0"),
        ({"eval_batch_size": 2.5}, r"datamodule\.eval_batch_size: .* got 2\.5"),
        ({"seed": -1}, r"datamodule\.seed: expected a whole number, 0 or more, got -1"),
        ({"std": (0.2, 0.0)}, r"datamodule\.std: expected numbers above 0, got \[0\.2, 0\.0\]"),
        ({"mean": ("a", 1)}, r"datamodule\.mean: expected numbers, got \['a', 1\]"),
    ],
)
def test_bad_values_are_refused_at_once(make: Make, values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make(**values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"mean": (0.5,)}, r"datamodule\.mean: expected 2 numbers, one per channel, got \[0\.5\]"),
        ({"std": (1, 1, 1)}, r"datamodule\.std: expected 2 numbers, one per channel, got \[1, 1, 1\]"),
        ({"val_fraction": 1e-6}, r"datamodule\.val_fraction: .* both sides of 200, got 1e-06"),
        ({"batch_size": 201}, "201 is larger than the training set of 200 images"),
        ({"batch_size": 190, "val_fraction": 0.1}, "190 is larger than the training set of 180 images"),
    ],
)
def test_values_that_do_not_fit_the_data_are_refused(make: Make, values: dict[str, Any], message: str) -> None:
    data = make(**values)
    with pytest.raises(UserError, match=message):
        data.train_dataloader()


class Recorder(L.LightningModule):
    """A softmax regression that keeps every training batch, by epoch, and counts validation batches."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(64, 10)
        self.seen: dict[int, list[Tensor]] = {}
        self.validated = 0

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        x, y = batch
        self.seen.setdefault(self.current_epoch, []).append(x)
        return torch.nn.functional.cross_entropy(self.linear(x.flatten(1)), y)

    def validation_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
        self.validated += 1

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class SaveAt(L.Callback):
    """Writes a checkpoint after each of the given training steps."""

    def __init__(self, folder: Path, *steps: int) -> None:
        self.folder, self.steps = folder, steps

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.global_step in self.steps:
            trainer.save_checkpoint(self.folder / f"{trainer.global_step}.ckpt")


def run(max_epochs: int, *callbacks: L.Callback, resume: Path | None = None) -> tuple[L.Trainer, Recorder]:
    """Train on digits, from the start or from a checkpoint."""
    trainer = L.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, max_epochs=max_epochs, callbacks=list(callbacks),
    )  # fmt: skip
    data = ImageDataModule(
        digits.load, data_dir="", batch_size=100, mean=[0.3], std=[0.4], val_fraction=0.1,
        augmentation=Augmentation(crop=1), seed=7,
    )  # fmt: skip
    model = Recorder()
    with warnings.catch_warnings():
        warnings.simplefilter("error", PossibleUserWarning)  # such as "your dataloader is not resumable"
        trainer.fit(model, data, ckpt_path=resume)
    return trainer, model


def same(one: list[Tensor], other: list[Tensor]) -> bool:
    return len(one) == len(other) and all(map(torch.equal, one, other))


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("checkpoints")


@pytest.fixture(scope="module")
def uninterrupted(checkpoints: Path) -> Recorder:
    """Three epochs of 12 batches, with a checkpoint in the middle of the second."""
    torch.manual_seed(0)
    return run(3, SaveAt(checkpoints, 17))[1]


def test_lightning_trains_epochs_in_different_orders(uninterrupted: Recorder) -> None:
    assert [len(batches) for batches in uninterrupted.seen.values()] == [12, 12, 12]
    assert uninterrupted.validated == 1 + 3  # one batch of 144: before the training, and after every epoch
    assert not same(uninterrupted.seen[0], uninterrupted.seen[1])


def test_resuming_after_an_epoch_repeats_the_uninterrupted_run(uninterrupted: Recorder, tmp_path: Path) -> None:
    torch.manual_seed(0)
    trainer, first = run(1)
    trainer.save_checkpoint(tmp_path / "checkpoint")
    _, resumed = run(3, resume=tmp_path / "checkpoint")
    assert same(first.seen[0], uninterrupted.seen[0])
    assert sorted(resumed.seen) == [1, 2]
    assert same(resumed.seen[1], uninterrupted.seen[1])
    assert same(resumed.seen[2], uninterrupted.seen[2])
    assert torch.equal(resumed.linear.weight, uninterrupted.linear.weight)


def test_resuming_within_an_epoch_repeats_the_uninterrupted_run(uninterrupted: Recorder, checkpoints: Path) -> None:
    _, resumed = run(3, resume=checkpoints / "17.ckpt")
    assert sorted(resumed.seen) == [1, 2]
    assert same(resumed.seen[1], uninterrupted.seen[1][5:])
    assert same(resumed.seen[2], uninterrupted.seen[2])
    assert torch.equal(resumed.linear.weight, uninterrupted.linear.weight)
