"""Views of images in evaluation."""

from __future__ import annotations

import torch

from targetprop.data.views import VIEWS


def test_the_first_view_is_the_image_and_the_second_its_mirror_image() -> None:
    images = torch.arange(2 * 3 * 4 * 5).view(2, 3, 4, 5).float()
    for name, count in {"mirror": 2, "mirror_and_shift": 6}.items():
        views = list(VIEWS[name](images))
        assert len(views) == count
        assert torch.equal(views[0], images)
        for plain, mirrored in zip(views[::2], views[1::2], strict=True):
            assert torch.equal(mirrored, plain.flip(-1))
            assert plain.shape == images.shape


def test_shifts_are_by_one_pixel_both_ways() -> None:
    image = torch.arange(9.0).view(1, 1, 3, 3)
    shifted = list(VIEWS["mirror_and_shift"](image))[2::2]
    assert [each[0, 0].tolist() for each in shifted] == [
        [[4, 5, 5], [7, 8, 8], [7, 8, 8]],
        [[0, 0, 1], [0, 0, 1], [3, 3, 4]],
    ]
