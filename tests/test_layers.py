"""Reshape."""

from __future__ import annotations

import pytest
import torch

from targetprop import Reshape


def test_reshape_reshapes_every_sample() -> None:
    x = torch.arange(24.0).view(2, 12)
    y = Reshape(3, 2, 2)(x)
    assert y.shape == (2, 3, 2, 2)
    assert torch.equal(y.flatten(1), x)
    assert Reshape(-1, 4)(x).shape == (2, 3, 4)
    assert Reshape(4)(torch.zeros(0, 2, 2)).shape == (0, 4)


def test_reshape_never_mixes_samples() -> None:
    with pytest.raises(RuntimeError, match="invalid"):
        Reshape(6)(torch.zeros(2, 12))


def test_reshape_shows_its_shape() -> None:
    assert repr(Reshape(3, 2)) == "Reshape(3, 2)"
