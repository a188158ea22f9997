"""Patches of images."""

from __future__ import annotations

from collections.abc import Sequence

from targetprop.models.shapes import IMAGE
from targetprop.utils.errors import require, require_whole


def require_patches(image_shape: Sequence[int], patch: int) -> int:
    """How many patches cut images into squares.

    Args:
        image_shape: (channels, height, width).
        patch: side of a patch, in pixels.

    Raises:
        UserError: there are no images, or patches do not cut them.
    """
    require(len(image_shape) == IMAGE, "image_shape", "images (channels, height, width)", tuple(image_shape))
    require_whole("patch", patch, least=1)
    _, height, width = image_shape
    fits = height % patch == 0 and width % patch == 0
    require(fits, "patch", f"a number that divides the sides of images, {height} and {width}", patch)
    return (height // patch) * (width // patch)
