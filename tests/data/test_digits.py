import numpy as np
import pytest
import torch

from targetprop.data import digits


def test_digits_are_whole_and_split_the_same_every_time() -> None:
    first, again = digits.load(), digits.load("anywhere", True)
    assert (len(first.train), len(first.test)) == (1437, 360)
    assert first.train.image_shape == (1, 8, 8)
    assert first.train.classes == tuple("0123456789")
    assert torch.equal(first.test.pixels, again.test.pixels)
    shares = first.test.labels.bincount() / torch.cat([first.train.labels, first.test.labels]).bincount()
    torch.testing.assert_close(shares, torch.full((10,), 360 / 1797), atol=5e-3, rtol=0)


def test_pixels_are_the_published_ones_scaled_to_bytes() -> None:
    splits = digits.load()
    pixels = torch.cat([splits.train.pixels, splits.test.pixels])
    levels = torch.linspace(0, 255, 17).round().long()
    assert torch.equal(pixels.unique().long(), levels)
    ours = torch.bucketize(pixels.long(), levels).flatten(1).tolist()
    with np.load(digits.FILE) as file:
        assert sorted(ours) == sorted(file["images"].reshape(-1, 64).tolist())


def test_values_and_order_are_those_of_scikit_learn() -> None:
    published = pytest.importorskip("sklearn.datasets").load_digits()
    with np.load(digits.FILE) as file:
        assert np.array_equal(file["images"], published.images)
        assert np.array_equal(file["labels"], published.target)


def test_the_file_says_whose_it_is() -> None:
    note = digits.FILE.with_suffix(".txt").read_text()
    assert "UCI" in note
    assert "Creative Commons Attribution 4.0" in note
