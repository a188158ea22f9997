import pytest
import torch

from targetprop.data import Images, Selection
from targetprop.utils.errors import UserError

PIXELS = torch.zeros(3, 1, 2, 2, dtype=torch.uint8)
LABELS = torch.tensor([0, 1, 1])


def test_shape_and_length() -> None:
    images = Images(torch.zeros(3, 1, 4, 5, dtype=torch.uint8), LABELS, ("a", "b"))
    assert (len(images), images.image_shape) == (3, (1, 4, 5))


@pytest.mark.parametrize(
    ("pixels", "labels", "message"),
    [
        (PIXELS.float(), LABELS, "torch.uint8, got torch.float32"),
        (PIXELS[0], LABELS, r"\(N, C, H, W\).*got \(1, 2, 2\)"),
        (PIXELS[:0], LABELS[:0], r"got \(0, 1, 2, 2\)"),
        (PIXELS, LABELS.int(), "torch.int64, got torch.int32"),
        (PIXELS, LABELS[:2], r"shape \(3,\), got \(2,\)"),
        (PIXELS, LABELS + 1, r"labels in 0..1, got '1..2'"),
        (PIXELS, LABELS - 1, r"labels in 0..1, got '-1..0'"),
    ],
)
def test_misfits_are_refused(pixels: torch.Tensor, labels: torch.Tensor, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Images(pixels, labels, ("a", "b"))


def test_moving_to_where_they_are_copies_nothing(images: Images) -> None:
    assert images.to("cpu").pixels is images.pixels


def test_subset_keeps_images_and_labels_together(images: Images) -> None:
    chosen = torch.tensor([7, 3, 7])
    subset = images.subset(chosen)
    assert torch.equal(subset.pixels, images.pixels[chosen])
    assert torch.equal(subset.labels, images.labels[chosen])
    assert subset.classes == images.classes


def test_a_selection_copies_nothing_until_it_is_asked(images: Images) -> None:
    chosen = torch.tensor([7, 3, 9])
    selection = Selection(images, chosen)
    assert selection.whole is images
    assert (len(selection), selection.device) == (3, images.pixels.device)
    assert torch.equal(selection.inputs, images.pixels[chosen])
    assert torch.equal(selection.targets, images.labels[chosen])


def test_a_selection_gives_the_images_that_a_copy_would_give(images: Images) -> None:
    chosen, some = torch.tensor([7, 3, 9, 40]), torch.tensor([3, 0, 0])
    for ours, copied in zip(Selection(images, chosen).take(some), images.subset(chosen).take(some), strict=True):
        assert torch.equal(ours, copied)
