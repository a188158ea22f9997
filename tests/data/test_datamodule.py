import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from hydra.utils import instantiate
from lightning.fabric.utilities.warnings import PossibleUserWarning
from torch import Tensor

from targetprop.app.datamodule import ImageDataModule
from targetprop.app.overrides import check_overrides
from targetprop.data import Augmentation, BatchLoader, Selection, Splits, digits, normalize
from targetprop.utils.errors import UserError

Make = Callable[..., ImageDataModule]


@pytest.fixture
def make(splits: Splits) -> Make:
    """A data module over `splits`, whose `load` counts its calls in `calls`."""

    def build(**changes: Any) -> ImageDataModule:
        settings: dict[str, Any] = {"data_dir": "d", "batch_size": 16, "mean": (0.5, 0.4), "std": (0.2, 0.3)}
        return ImageDataModule(lambda data_dir, download: splits, **{**settings, **changes})

    return build


def pixels_of(loader: BatchLoader) -> set[bytes]:
    return {image.numpy().tobytes() for image in loader.images.inputs}


def test_load_is_called_once_with_the_directory(splits: Splits) -> None:
    calls = []

    def load(data_dir: Path | str, download: bool) -> Splits:
        calls.append((data_dir, download))
        return splits

    data = ImageDataModule(load, data_dir="there", batch_size=4, mean=(0, 0), std=(1, 1), download=False)
    assert calls == []
    assert (data.shape, data.outputs, data.classes and data.classes[0]) == ((2, 5, 6), 4, "class 0")
    data.prepare_data()
    data.setup("fit")
    data.train_dataloader()
    assert calls == [("there", False)]


def test_validation_is_a_stratified_part_of_the_training_set(make: Make, splits: Splits) -> None:
    data = make(val_fraction=0.25)
    train, val, test = data.train_dataloader(), data.val_dataloader(), data.test_dataloader()
    assert isinstance(val, BatchLoader)
    assert isinstance(test, BatchLoader)
    assert (len(train.images), len(val.images), len(test.images)) == (150, 50, 30)
    assert pixels_of(train).isdisjoint(pixels_of(val))
    everything = {image.numpy().tobytes() for image in splits.train.pixels}
    assert pixels_of(train) | pixels_of(val) == everything
    shares = val.images.targets.bincount(minlength=4) - splits.train.labels.bincount(minlength=4) / 4
    assert shares.abs().max() < 1


def test_training_and_validation_share_the_published_images(make: Make, splits: Splits) -> None:
    """A copy of either would be of gigabytes, where the images are mapped from a file."""
    data = make(val_fraction=0.25)
    for loader in (data.train_dataloader(), data.val_dataloader()):
        assert isinstance(loader, BatchLoader)
        assert isinstance(loader.images, Selection)
        assert loader.images.whole.inputs is splits.train.pixels


def test_the_seed_keys_the_validation_split(make: Make) -> None:
    first, again, other = (make(val_fraction=0.25, seed=seed).val_dataloader() for seed in (0, 0, 1))
    assert pixels_of(first) == pixels_of(again) != pixels_of(other)  # type: ignore[arg-type]


def test_only_training_images_are_augmented(make: Make) -> None:
    data = make(val_fraction=0.25, augmentation=Augmentation(flip=1.0), eval_batch_size=50)
    val = data.val_dataloader()
    assert isinstance(val, BatchLoader)
    test = data.test_dataloader()
    assert isinstance(test, BatchLoader)
    for evaluation in (val, test):
        x, _ = next(iter(evaluation))
        assert torch.equal(x, normalize(evaluation.images.inputs, torch.tensor(data.mean), torch.tensor(data.std)))
    flipped, _ = next(iter(data.train_dataloader()))
    plain, _ = next(iter(make(val_fraction=0.25).train_dataloader()))
    assert torch.equal(flipped, plain.flip(-1))


def test_a_sample_is_of_training_images_as_they_are(make: Make) -> None:
    data = make(val_fraction=0.25, augmentation=Augmentation(crop=2), seed=3)
    sample = data.sample(40)
    training = normalize(data.train_dataloader().images.inputs, torch.tensor([0.5, 0.4]), torch.tensor([0.2, 0.3]))
    known = {image.numpy().tobytes() for image in training}
    drawn = {image.numpy().tobytes() for image in sample}
    assert len(drawn) == 40
    assert drawn <= known
    assert torch.equal(sample, make(val_fraction=0.25, seed=3).sample(40))
    assert not torch.equal(sample, make(val_fraction=0.25, seed=4).sample(40))
    assert len(data.sample(10_000)) == len(training)


def test_without_a_fraction_there_is_no_validation(make: Make, splits: Splits) -> None:
    data = make()
    assert data.val_dataloader() == []
    assert data.train_dataloader().images.inputs is splits.train.pixels


def test_batches_are_not_copied_on_their_way_to_the_device(make: Make) -> None:
    data = make()
    x, y = next(iter(data.train_dataloader()))
    moved = data.transfer_batch_to_device((x, y), torch.device("cpu"), 0)
    assert moved[0].data_ptr() == x.data_ptr()
    assert moved[1].data_ptr() == y.data_ptr()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"val_fraction": 1.5}, r"val_fraction: expected a number in \[0, 1\), got 1\.5"),
        ({"val_fraction": 1}, "got 1"),
        ({"val_fraction": "some"}, "got 'some'"),
        ({"batch_size": 0}, r"batch_size: expected a whole number, 1 or more, got 0"),
        ({"eval_batch_size": 2.5}, r"eval_batch_size: .* got 2\.5"),
        ({"seed": -1}, r"^seed: expected a whole number, 0 or more, got -1"),
        ({"seed": "abc"}, "^seed: .* got 'abc'"),
        ({"std": (0.2, 0.0)}, r"std: expected numbers above 0, got \[0\.2, 0\.0\]"),
        ({"mean": ("a", 1)}, r"mean: expected numbers, got \['a', 1\]"),
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


def digits_module(**changes: Any) -> ImageDataModule:
    """12 training batches and one validation batch of digits."""
    settings: dict[str, Any] = {"val_fraction": 0.1, "augmentation": Augmentation(crop=1), "seed": 7}
    return ImageDataModule(
        digits.load, data_dir="", batch_size=100, mean=[0.3], std=[0.4], **{**settings, **changes}
    )  # fmt: skip


def run(
    data: ImageDataModule, max_epochs: int, limit: int | None = None, resume: Path | None = None
) -> tuple[L.Trainer, Recorder]:
    """Train from the start or from a checkpoint, on the first `limit` batches of every epoch."""
    trainer = L.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, max_epochs=max_epochs, limit_train_batches=limit,
    )  # fmt: skip
    model = Recorder()
    with warnings.catch_warnings():
        warnings.simplefilter("error", PossibleUserWarning)
        trainer.fit(model, data, ckpt_path=resume)
    return trainer, model


def same(one: list[Tensor], other: list[Tensor]) -> bool:
    return len(one) == len(other) and all(map(torch.equal, one, other))


@pytest.fixture(scope="module")
def uninterrupted() -> Recorder:
    """Three epochs."""
    torch.manual_seed(0)
    return run(digits_module(), 3)[1]


def test_lightning_trains_epochs_in_different_orders(uninterrupted: Recorder) -> None:
    assert [len(batches) for batches in uninterrupted.seen.values()] == [12, 12, 12]
    assert uninterrupted.validated == 1 + 3  # one batch of 144: before the training, and after every epoch
    assert not same(uninterrupted.seen[0], uninterrupted.seen[1])


def test_lightning_and_a_plain_loop_see_the_same_batches(uninterrupted: Recorder) -> None:
    batches = digits_module().train_dataloader()
    for seen in uninterrupted.seen.values():
        assert same([x for x, _ in batches], seen)


def test_resuming_after_an_epoch_repeats_the_uninterrupted_run(uninterrupted: Recorder, tmp_path: Path) -> None:
    torch.manual_seed(0)
    trainer, first = run(digits_module(), 1)
    trainer.save_checkpoint(tmp_path / "checkpoint")
    _, resumed = run(digits_module(), 3, resume=tmp_path / "checkpoint")
    assert same(first.seen[0], uninterrupted.seen[0])
    assert sorted(resumed.seen) == [1, 2]
    assert same(resumed.seen[1], uninterrupted.seen[1])
    assert same(resumed.seen[2], uninterrupted.seen[2])
    assert torch.equal(resumed.linear.weight, uninterrupted.linear.weight)


def test_without_reshuffling_every_epoch_repeats_the_first(uninterrupted: Recorder) -> None:
    _, model = run(digits_module(reshuffle=False), 2)
    assert same(model.seen[0], uninterrupted.seen[0])
    assert same(model.seen[1], uninterrupted.seen[0])


def test_debug_overfit_trains_on_the_same_three_batches_again_and_again() -> None:
    config = check_overrides(["debug=overfit", "datamodule=digits", "output_dir=out"])
    _, model = run(instantiate(config.datamodule), 3, limit=config.trainer.limit_train_batches)
    assert len(model.seen[0]) == 3
    assert same(model.seen[0], model.seen[1])
    assert same(model.seen[0], model.seen[2])
