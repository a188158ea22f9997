"""Linear maps as matrices: patches, both ways to correlate, and their layouts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor, nn

from targetprop import maps
from targetprop.maps import Convolution, Dense, linear_map


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
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, groups, bias=draw(st.booleans())).double()
    size = [d * (k - 1) + 1 + draw(st.integers(0, 4)) for d, k in zip(dilation, kernel, strict=True)]
    x = normal(draw(st.integers(1, 3)), inputs, *size)
    return conv, x.contiguous(memory_format=torch.channels_last) if draw(st.booleans()) else x


@pytest.mark.filterwarnings("ignore:Using padding=.same.")
@given(convolutions())
def test_a_convolution_is_a_product_with_patches(case: tuple[nn.Conv2d, Tensor]) -> None:
    conv, x = case
    found, y = Convolution.of(conv), conv(x).detach()
    assert torch.equal(found.from_matrix(found.matrix(conv.weight)), conv.weight)
    bias = 0 if conv.bias is None else conv.bias.unflatten(0, (conv.groups, 1, -1))
    torch.testing.assert_close(found.patches(x) @ found.matrix(conv.weight).mT + bias, found.rows(y))


@contextmanager
def computing(*, by_products: bool, threads: int) -> Iterator[None]:
    """On so many threads, by products wherever there are views for them, or by the library."""
    torch.set_num_threads(threads)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(maps, "WIDE", 0 if by_products else 1 << 30)
        patch.setattr(maps, "SMALL", 1 << 30)
        patch.setattr(maps, "TINY", 1 << 30)
        yield
    torch.set_num_threads(1)


@pytest.mark.filterwarnings("ignore:Using padding=.same.")
@given(convolutions(), st.booleans(), st.integers(1, 3))
@example((nn.Conv2d(2, 1, 1, padding=2).double(), normal(1, 2, 3, 3)), True, 1)  # kernels that see nothing but border
def test_both_ways_to_apply_correlate_and_transpose_are_those_of_autograd(
    case: tuple[nn.Conv2d, Tensor], by_products: bool, threads: int
) -> None:
    conv, x = case
    found, y = Convolution.of(conv), normal(*conv(x).shape, seed=1)
    x_gradient, gradient = torch.autograd.grad((conv(x.requires_grad_()) * y).sum(), [x, conv.weight])
    bias = normal(x.shape[1], seed=2)
    with computing(by_products=by_products, threads=threads), torch.no_grad():
        torch.testing.assert_close(found.apply(conv, x), conv(x))
        torch.testing.assert_close(found.correlate(x, y), gradient)
        size = (x.shape[2], x.shape[3])
        torch.testing.assert_close(found.transpose(y, conv.weight, None, size), x_gradient)
        torch.testing.assert_close(found.transpose(y, conv.weight, bias, size), x_gradient + bias.view(-1, 1, 1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_small_images_of_many_channels_go_by_products(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    by_products: list[str] = []
    for name in ("apply", "correlate", "transpose"):
        name = f"_{name}_by_products"
        inner = getattr(Convolution, name)
        monkeypatch.setattr(Convolution, name, lambda *args, i=inner, n=name: by_products.append(n) or i(*args))
    conv = nn.Conv2d(64, 8, 3, padding=1).to(dtype)
    found = Convolution.of(conv)
    for rows in (2, 4, 5):
        x = torch.zeros(2, 64, rows, rows, dtype=dtype)
        with torch.no_grad():
            found.apply(conv, x)
            found.correlate(x, conv(x))
            found.transpose(conv(x), conv.weight, None, (rows, rows))
        with torch.no_grad(), torch.autocast("cpu"):
            found.transpose(found.apply(conv, x), conv.weight, None, (rows, rows))
        found.transpose(found.apply(conv, x), conv.weight, None, (rows, rows)).sum().backward()
    small = ["_apply_by_products", "_correlate_by_products", "_transpose_by_products", "_correlate_by_products"]
    assert by_products == (small if dtype == torch.float32 else [])


def test_a_dense_map_may_have_positions_of_its_own() -> None:
    layer = nn.Linear(4, 3, bias=False).double()
    x, y = normal(2, 5, 4), normal(2, 5, 3, seed=1)
    dense = Dense()
    torch.testing.assert_close(dense.patches(x) @ dense.matrix(layer.weight).mT, dense.rows(layer(x)))
    expected = torch.autograd.grad((layer(x) * y).sum(), layer.weight)[0]
    torch.testing.assert_close(dense.correlate(x, y), expected)


def test_only_layers_known_exactly_have_a_map() -> None:
    class Odd(nn.Linear):
        pass

    assert isinstance(linear_map(nn.Linear(2, 3)), Dense)
    assert linear_map(Odd(2, 3)) is None
    assert linear_map(nn.Conv2d(1, 1, 3, padding=1, padding_mode="reflect")) is None
    assert linear_map(nn.utils.parametrizations.weight_norm(nn.Linear(2, 3))) is None
