import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from targetprop.data import Augmentation, BatchLoader, Images, normalize
from targetprop.utils.errors import UserError

MEAN, STD = (0.5, 0.4), (0.2, 0.3)


def loader(images: Images, batch_size: int = 8, seed: int = 0, flip: float = 0.5) -> BatchLoader:
    return BatchLoader(images, batch_size, MEAN, STD, shuffle=True, augmentation=Augmentation(flip, 2), seed=seed)


def epoch(batches: BatchLoader, number: int) -> list[tuple[Tensor, Tensor]]:
    batches.sampler.set_epoch(number)
    return list(batches)


def equal(one: list[tuple[Tensor, Tensor]], other: list[tuple[Tensor, Tensor]]) -> bool:
    return len(one) == len(other) and all(
        torch.equal(x, v) and torch.equal(y, w) for (x, y), (v, w) in zip(one, other, strict=True)
    )


@given(st.integers(1, 60), st.integers(0, 2**40), st.integers(0, 1000))
def test_every_epoch_is_a_permutation(count: int, seed: int, number: int) -> None:
    images = Images(torch.zeros(count, 2, 1, 1, dtype=torch.uint8), torch.arange(count), ("",) * count)
    batches = epoch(BatchLoader(images, 1, MEAN, STD, shuffle=True, seed=seed), number)
    assert sorted(int(y) for _, y in batches) == list(range(count))


def test_epoch_and_seed_determine_the_batches(images: Images) -> None:
    reference = epoch(loader(images), 3)
    assert equal(reference, epoch(loader(images), 3))
    assert not equal(reference, epoch(loader(images), 4))
    assert not equal(reference, epoch(loader(images, seed=1), 3))
    batches = loader(images)
    epoch(batches, 7)
    assert equal(reference, epoch(batches, 3))


def test_epoch_1_of_one_seed_is_not_epoch_0_of_the_next(images: Images) -> None:
    assert not equal(epoch(loader(images, seed=0), 1), epoch(loader(images, seed=1), 0))


def test_global_random_state_is_neither_read_nor_changed(images: Images) -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = list(loader(images))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert equal(first, list(loader(images)))


def test_training_drops_the_incomplete_batch_and_evaluation_keeps_it(images: Images) -> None:
    training = BatchLoader(images, 8, MEAN, STD, shuffle=True)
    assert [len(y) for _, y in training] == [8] * 6
    assert len(training) == 6
    evaluation = BatchLoader(images, 8, MEAN, STD)
    assert [len(y) for _, y in evaluation] == [8] * 6 + [2]
    assert len(evaluation) == 7


def test_training_keeps_the_incomplete_batch_if_told_to(images: Images) -> None:
    training = BatchLoader(images, 8, MEAN, STD, shuffle=True, drop_last=False)
    assert [len(y) for _, y in training] == [8] * 6 + [2]
    assert len(training) == 7


def test_evaluation_gives_the_images_as_they_are(images: Images) -> None:
    batches = BatchLoader(images, 7, MEAN, STD, seed=5)
    for number in (0, 1):
        x, y = (torch.cat(parts) for parts in zip(*epoch(batches, number), strict=True))
        assert torch.equal(x, normalize(images.pixels, torch.tensor(MEAN), torch.tensor(STD)))
        assert torch.equal(y, images.labels)


def test_labels_stay_with_their_images() -> None:
    """Each image is filled with its label, which neither flip nor crop can change."""
    labels = torch.arange(40) % 10
    images = Images(labels.to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 2, 4, 4), labels, tuple("0123456789"))
    for x, y in loader(images):
        pixels = (x * torch.tensor(STD).view(-1, 1, 1) + torch.tensor(MEAN).view(-1, 1, 1)) * 255
        assert torch.equal(pixels.round().long(), y.view(-1, 1, 1, 1).expand_as(x))
        assert (x.dtype, y.dtype, x.shape) == (torch.float32, torch.int64, (8, 2, 4, 4))


def test_too_large_a_batch_is_refused(images: Images) -> None:
    with pytest.raises(UserError, match=r"batch_size: 51 is larger than the training set of 50 images"):
        loader(images, batch_size=51)
    assert [len(y) for _, y in BatchLoader(images, 51, MEAN, STD)] == [50]


def test_evaluation_is_never_augmented(images: Images) -> None:
    with pytest.raises(ValueError, match="evaluation images stay as they are"):
        BatchLoader(images, 8, MEAN, STD, augmentation=Augmentation(0.5, 2))


def test_iterating_again_goes_on_to_the_next_epoch(images: Images) -> None:
    batches = loader(images)
    for number in (0, 1, 2):
        assert equal(list(batches), epoch(loader(images), number))
    batches.sampler.set_epoch(7)
    for number in (7, 8):
        assert equal(list(batches), epoch(loader(images), number))


def test_an_epoch_is_selected_until_the_first_batch_is_asked_for(images: Images) -> None:
    batches = loader(images)
    iterator = iter(batches)
    batches.sampler.set_epoch(3)
    first = next(iterator)
    batches.sampler.set_epoch(5)
    assert equal([first, *iterator], epoch(loader(images), 3))
    assert equal(list(batches), epoch(loader(images), 5))


def test_an_abandoned_iteration_has_used_its_epoch_up(images: Images) -> None:
    batches = loader(images)
    iter(batches)  # nothing asked for: this one does not count
    for _ in batches:
        break
    assert equal(list(batches), epoch(loader(images), 1))


def test_without_reshuffling_every_epoch_is_epoch_0(images: Images) -> None:
    batches = BatchLoader(images, 8, MEAN, STD, shuffle=True, reshuffle=False, augmentation=Augmentation(0.5, 2))
    reference = epoch(loader(images), 0)
    assert equal(list(batches), reference)
    assert equal(list(batches), reference)
    assert equal(epoch(batches, 4), reference)


def test_alternating_flips_show_every_image_both_ways_in_two_epochs() -> None:
    pixels = torch.arange(2 * 64, dtype=torch.uint8).view(64, 1, 1, 2)
    images = Images(pixels, torch.arange(64), ("",) * 64)
    batches = BatchLoader(images, 16, [0], [1], shuffle=True, augmentation=Augmentation(flip="alternate"), seed=1)
    turned = []
    for number in (0, 1, 2):
        x, y = (torch.cat(each) for each in zip(*epoch(batches, number), strict=True))
        turned.append((x[:, 0, 0, 0] > x[:, 0, 0, 1])[y.argsort()])
    assert torch.equal(turned[1], ~turned[0])
    assert torch.equal(turned[2], turned[0])
    assert 16 < int(turned[0].sum()) < 48


def test_whole_numbers_serve_as_mean_and_std(images: Images) -> None:
    x, _ = next(iter(BatchLoader(images, 50, (0, 1), (1, 2))))
    assert torch.equal(x, normalize(images.pixels, torch.tensor([0.0, 1.0]), torch.tensor([1.0, 2.0])))
