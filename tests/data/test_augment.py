from collections.abc import Callable
from typing import Literal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from targetprop.data import Augmentation, normalize, random_crop, random_flip
from targetprop.utils.errors import UserError

SHAPES = st.tuples(st.integers(1, 5), st.integers(1, 3), st.integers(1, 7), st.integers(1, 7))
SEEDS = st.integers(0, 2**32 - 1)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    return torch.randint(0, 256, shape, generator=generator(seed), dtype=torch.uint8)


@pytest.mark.parametrize(("border", "mode"), [("edge", "replicate"), ("reflect", "reflect")])
@given(shape=SHAPES, padding=st.integers(0, 5), seed=SEEDS)
def test_a_crop_is_a_window_of_the_padded_image(
    border: Literal["edge", "reflect"], mode: str, shape: tuple[int, ...], padding: int, seed: int
) -> None:
    images = batch(shape, seed)
    height, width = shape[2:]
    padding = min(padding, height - 1, width - 1) if border == "reflect" else padding
    cropped = random_crop(images, padding, generator(seed), border)
    assert cropped.dtype == torch.uint8
    padded = torch.nn.functional.pad(images.float(), (padding,) * 4, mode=mode).to(torch.uint8)
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # (N, C, down, right, H, W)
    same = (windows == cropped[:, :, None, None]).all(-1).all(-1).all(1)
    assert same.flatten(1).any(1).all()


def test_all_windows_are_equally_likely() -> None:
    images = torch.arange(49, dtype=torch.uint8).view(1, 1, 7, 7).expand(20_000, 1, 7, 7)
    centres = random_crop(images, 2, generator())[:, 0, 3, 3].long()
    counts = centres.bincount(minlength=49).view(7, 7)
    assert counts[1:6, 1:6].sum() == 20_000
    assert (counts[1:6, 1:6] / 800 - 1).abs().max() < 0.15


@given(SHAPES, SEEDS)
def test_flipping_all_twice_changes_nothing(shape: tuple[int, ...], seed: int) -> None:
    images = batch(shape, seed)
    once = random_flip(images, 1.0, generator(seed))
    assert torch.equal(once, images.flip(-1))
    assert torch.equal(random_flip(once, 1.0, generator(seed)), images)


@given(SHAPES, st.floats(0, 1), SEEDS)
def test_a_flip_mirrors_whole_images_or_leaves_them(shape: tuple[int, ...], probability: float, seed: int) -> None:
    images = batch(shape, seed)
    flipped = random_flip(images, probability, generator(seed))
    assert flipped.dtype == torch.uint8
    for before, after in zip(images, flipped, strict=True):
        assert torch.equal(after, before) or torch.equal(after, before.flip(-1))


def test_flip_frequency() -> None:
    images = torch.tensor([0, 1], dtype=torch.uint8).expand(20_000, 1, 1, 2)
    assert random_flip(images, 0.3, generator())[:, 0, 0, 0].double().mean().item() == pytest.approx(0.3, abs=0.02)
    assert torch.equal(random_flip(images, 0.0, generator()), images)


@pytest.mark.parametrize("function", [lambda x, g: random_flip(x, 0.5, g), Augmentation(flip=0.5, crop=2)])
def test_the_generator_alone_decides(function: Callable[[Tensor, torch.Generator], Tensor]) -> None:
    images = batch((16, 3, 8, 8))
    before, state = images.clone(), torch.get_rng_state()
    first, again, other = (function(images, generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(images, before)
    assert torch.equal(torch.get_rng_state(), state)


def test_images_are_wider_than_a_reflected_border() -> None:
    augment = Augmentation(crop=4, border="reflect")
    assert augment(batch((2, 1, 5, 6)), generator()).shape == (2, 1, 5, 6)
    with pytest.raises(UserError, match=r"^crop: expected less than 4, .* got 4"):
        augment(batch((2, 1, 5, 4)), generator())


def test_no_augmentation_leaves_images_alone() -> None:
    images = batch((2, 1, 3, 3))
    assert Augmentation()(images, generator()) is images


@pytest.mark.gpu
def test_a_gpu_gives_the_same_images() -> None:
    images = batch((64, 3, 32, 32))
    augment = Augmentation(flip=0.5, crop=4)
    assert torch.equal(augment(images.cuda(), generator()).cpu(), augment(images, generator()))


def test_normalize_by_hand() -> None:
    pixels = torch.tensor([[[[0, 255]], [[51, 102]]]], dtype=torch.uint8)
    values = normalize(pixels, torch.tensor([0.5, 0.2]), torch.tensor([0.25, 0.1]))
    torch.testing.assert_close(values, torch.tensor([[[[-2.0, 2.0]], [[0.0, 2.0]]]]))
    assert pixels.tolist() == [[[[0, 255]], [[51, 102]]]]


def test_normalize_rounds_once() -> None:
    pixels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    mean, std = torch.tensor([0.4914]), torch.tensor([0.2023])
    half = normalize(pixels, mean, std, torch.bfloat16)
    assert torch.equal(half, normalize(pixels, mean, std).bfloat16())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"flip": 1.5}, r"flip: expected a number in \[0, 1\] or 'alternate', got 1\.5"),
        ({"flip": -0.1}, r"got -0\.1"),
        ({"flip": "often"}, "got 'often'"),
        ({"crop": -1}, r"crop: expected a whole number, 0 or more, got -1"),
        ({"crop": 1.5}, r"got 1\.5"),
        ({"border": "reflected"}, r"border: unknown value 'reflected'\. Did you mean 'reflect'"),
    ],
)
def test_values_out_of_range_are_refused(values: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Augmentation(**values)  # type: ignore[arg-type]
