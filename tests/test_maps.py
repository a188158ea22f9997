"""Linear maps as matrices: patches, both ways to correlate, and their layouts."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from targetprop import rule_of
from targetprop.layers.conv import Convolution
from targetprop.layers.linear import Dense
from targetprop.layers.linear_map import LinearMap


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def pairs(least: int, most: int) -> st.SearchStrategy[tuple[int, int]]:
    return st.tuples(st.integers(least, most), st.integers(least, most))


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[nn.Conv2d, Tensor]:
    kernel, dilation = draw(pairs(1, 4)), draw(pairs(1, 2))
    padding = draw(st.sampled_from(["same", "valid"]) | pairs(0, 2))
    stride = (1, 1) if padding == "same" else draw(pairs(1, 3))
    groups = draw(st.integers(1, 2))
    inputs, outputs = groups * draw(st.integers(1, 3)), groups * draw(st.integers(1, 3))
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, groups, bias=False).double()
    size = [d * (k - 1) + 1 + draw(st.integers(0, 4)) for d, k in zip(dilation, kernel, strict=True)]
    x = normal(draw(st.integers(1, 3)), inputs, *size)
    return conv, x.contiguous(memory_format=torch.channels_last) if draw(st.booleans()) else x


@pytest.mark.filterwarnings("ignore:Using padding=.same.")
@given(convolutions())
def test_a_convolution_is_a_product_with_patches(case: tuple[nn.Conv2d, Tensor]) -> None:
    conv, x = case
    found, y = Convolution.of(conv), conv(x).detach()
    assert torch.equal(found.from_matrix(found.matrix(conv.weight)), conv.weight)
    torch.testing.assert_close(found.patches(x) @ found.matrix(conv.weight).mT, found.rows(y))


@pytest.mark.filterwarnings("ignore:Using padding=.same.")
@given(convolutions())
def test_correlating_gives_the_gradient(case: tuple[nn.Conv2d, Tensor]) -> None:
    conv, x = case
    y = normal(*conv(x).shape, seed=1)
    expected = torch.autograd.grad((conv(x) * y).sum(), conv.weight)[0]
    torch.testing.assert_close(Convolution.of(conv).correlate(x, y), expected)


def test_a_dense_map_may_have_positions_of_its_own() -> None:
    layer = nn.Linear(4, 3, bias=False).double()
    x, y = normal(2, 5, 4), normal(2, 5, 3, seed=1)
    dense = Dense()
    torch.testing.assert_close(dense.patches(x) @ dense.matrix(layer.weight).mT, dense.rows(layer(x)))
    expected = torch.autograd.grad((layer(x) * y).sum(), layer.weight)[0]
    torch.testing.assert_close(dense.correlate(x, y), expected)


def linear_map(layer: nn.Module) -> LinearMap | None:
    return rule_of(layer).linear_map(layer)


def test_only_layers_known_exactly_have_a_map() -> None:
    class Odd(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x)

    class Named(nn.Linear):
        """Computes what its parent does."""

    hooked = nn.Linear(2, 3)
    hooked.register_forward_hook(lambda module, inputs, y: 2 * y)
    assert isinstance(linear_map(nn.Linear(2, 3)), Dense)
    assert isinstance(linear_map(Named(2, 3)), Dense)
    assert isinstance(linear_map(nn.Conv2d(1, 1, 3, padding=1)), Convolution)
    assert linear_map(Odd(2, 3)) is None
    assert linear_map(hooked) is None
    assert linear_map(nn.utils.parametrizations.weight_norm(nn.Linear(2, 3))) is None
