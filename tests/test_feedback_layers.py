"""Feedback twins: of linear layers without weights of their own, and of pooling, they are the exact adjoint."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from targetprop.layers.twins import _FACTORIES
from torch import Tensor, nn

from targetprop import Learner, Reshape, Twin, UserError, encode, register_twin, twin_of

Two = tuple[int, int]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def pairs(least: int, most: int) -> st.SearchStrategy[Two]:
    return st.tuples(st.integers(least, most), st.integers(least, most))


def pullback(layer: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """The layer's transposed Jacobian at x, applied to y: the oracle."""
    x = x.clone().requires_grad_()
    return torch.autograd.grad(layer(x), x, y)[0]


def assert_adjoint(layer: nn.Module, x: Tensor) -> None:
    """The layer's twin carries any y back as autograd does, to the shape of x."""
    output, context = encode(layer, x)
    torch.testing.assert_close(output, layer(x), rtol=0, atol=0)
    y = normal(*output.shape, seed=1)
    torch.testing.assert_close(twin_of(layer).double().decode(y, context), pullback(layer, x, y))


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[nn.Conv2d, Tensor]:
    """A convolution, without symmetry between height and width, and an image that it can take."""
    kernel, dilation = draw(pairs(1, 5)), draw(pairs(1, 3))
    padding: Two | str = draw(st.sampled_from(["same", "valid"]) | pairs(0, 3))
    stride = (1, 1) if padding == "same" else draw(pairs(1, 4))
    groups = draw(st.integers(1, 3))
    inputs, outputs = (groups * draw(st.integers(1, 2)) for _ in range(2))
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, groups, bias=draw(st.booleans()))
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    size = [r + draw(st.integers(0, 5)) for r in reach]
    return conv.double(), normal(2, inputs, *size)


@pytest.mark.filterwarnings("ignore:Using padding=.same.")
@given(convolutions())
def test_convolution_with_equal_weights_is_adjoint(case: tuple[nn.Conv2d, Tensor]) -> None:
    conv, x = case
    twin = twin_of(conv).double()
    assert isinstance(twin.map, nn.ConvTranspose2d)
    with torch.no_grad():
        twin.map.weight.copy_(conv.weight)
        assert twin.map.bias is not None
        twin.map.bias.zero_()
        if conv.bias is not None:
            conv.bias.zero_()
    output, context = encode(conv, x)
    y = normal(*output.shape, seed=1)
    decoded = twin.decode(y, context)
    assert decoded.shape == x.shape
    torch.testing.assert_close((output * y).sum(), (x * decoded).sum())
    torch.testing.assert_close(decoded, pullback(conv, x, y))


def test_convolution_twin_adds_its_own_bias_everywhere() -> None:
    conv = nn.Conv2d(2, 3, 2, stride=3, padding="valid")
    twin = twin_of(conv)
    assert isinstance(twin.map, nn.ConvTranspose2d)
    output, context = encode(conv, torch.zeros(1, 2, 10, 7))
    decoded = twin.decode(torch.zeros_like(output), context)
    assert twin.map.bias is not None
    assert torch.equal(decoded, twin.map.bias.view(1, 2, 1, 1).expand(1, 2, 10, 7))


@given(st.integers(1, 5), st.integers(1, 5))
def test_linear_with_equal_weights_is_adjoint(inputs: int, outputs: int) -> None:
    layer = nn.Linear(inputs, outputs).double()
    twin = twin_of(layer).double()
    assert isinstance(twin.map, nn.Linear)
    with torch.no_grad():
        twin.map.weight.copy_(layer.weight.T)
        twin.map.bias.zero_()
    x, y = normal(3, inputs), normal(3, outputs, seed=1)
    torch.testing.assert_close(twin.decode(y, encode(layer, x)[1]), pullback(layer, x, y))


@st.composite
def windows(draw: st.DrawFn) -> tuple[Two, Two, Two, Two]:
    """Kernel, stride, padding (at most half the kernel) and the size of an image that the kernel fits in."""
    kernel, stride = draw(pairs(1, 4)), draw(pairs(1, 4))
    padding = (draw(st.integers(0, kernel[0] // 2)), draw(st.integers(0, kernel[1] // 2)))
    size = (kernel[0] + draw(st.integers(0, 6)), kernel[1] + draw(st.integers(0, 6)))
    return kernel, stride, padding, size


@given(windows(), st.booleans(), st.booleans(), st.none() | st.integers(1, 5))
def test_average_pooling_is_adjoint(
    window: tuple[Two, Two, Two, Two], ceil_mode: bool, count_include_pad: bool, divisor: int | None
) -> None:
    kernel, stride, padding, size = window
    assert_adjoint(nn.AvgPool2d(kernel, stride, padding, ceil_mode, count_include_pad, divisor), normal(2, 3, *size))


@given(windows(), pairs(1, 3), st.booleans())
def test_max_pooling_is_adjoint_of_its_selection(
    window: tuple[Two, Two, Two, Two], dilation: Two, ceil_mode: bool
) -> None:
    kernel, stride, padding, size = window
    size = (size[0] + (dilation[0] - 1) * (kernel[0] - 1), size[1] + (dilation[1] - 1) * (kernel[1] - 1))
    assert_adjoint(nn.MaxPool2d(kernel, stride, padding, dilation, ceil_mode=ceil_mode), normal(2, 3, *size))


def test_max_pooling_adds_the_values_of_windows_with_one_maximum() -> None:
    layer = nn.MaxPool2d((1, 3), stride=1)
    x = torch.tensor([0.0, 1.0, 9.0, 1.0, 0.0]).view(1, 1, 1, 5)
    y, context = encode(layer, x)
    assert y.flatten().tolist() == [9, 9, 9]
    decoded = twin_of(layer).decode(torch.tensor([1.0, 10.0, 100.0]).view(1, 1, 1, 3), context)
    assert decoded.flatten().tolist() == [0, 0, 111, 0, 0]


sizes = st.none() | st.integers(1, 5)


@given(sizes, sizes, pairs(1, 9))
def test_adaptive_pooling_is_adjoint(height: int | None, width: int | None, size: Two) -> None:
    x = normal(2, 3, *size)
    assert_adjoint(nn.AdaptiveAvgPool2d((height, width)), x)
    assert_adjoint(nn.AdaptiveMaxPool2d((height, width)), x)


@given(st.integers(1, 3))
def test_adaptive_pooling_of_one_number_is_adjoint(size: int) -> None:
    x = normal(2, 3, 5, 4)
    assert_adjoint(nn.AdaptiveAvgPool2d(size), x)
    assert_adjoint(nn.AdaptiveMaxPool2d(size), x)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Flatten(),
        nn.Flatten(2),
        nn.Flatten(1, 2),
        nn.Unflatten(1, (2, 3)),
        Reshape(4, 6, 5),
        Reshape(-1),
        nn.Identity(),
    ],
    ids=repr,
)
def test_reshaping_is_undone(layer: nn.Module) -> None:
    x = normal(3, 6, 4, 5)
    y, context = encode(layer, x)
    assert torch.equal(twin_of(layer).decode(y, context), x)


def test_feedback_learns_through_the_twin_of_pooling() -> None:
    """In a block of several maps, weights above a pooling get their gradient through the pooling's twin."""
    block = nn.Sequential(nn.AvgPool2d(2), nn.MaxPool2d(2, 1), nn.Flatten(), nn.Linear(27, 4)).double()
    twin = twin_of(block).double()
    y, context = encode(block, normal(2, 3, 8, 8))

    assert torch.autograd.gradcheck(lambda *_: twin.decode(y.detach(), context), tuple(twin.parameters()))


def test_nested_sequentials_decode_in_reverse() -> None:
    inner = nn.Sequential(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(12, 6))
    block = nn.Sequential(nn.Sequential(nn.AvgPool2d((1, 2)), inner), nn.Unflatten(1, (2, 3))).double()
    twin = twin_of(block).double()
    (linear_twin,) = [m for m in twin.modules() if isinstance(m, nn.Linear)]
    linear = inner[2]
    assert isinstance(linear, nn.Linear)
    with torch.no_grad():
        linear_twin.weight.copy_(linear.weight.T)
        linear_twin.bias.zero_()
    x = normal(2, 3, 4, 8)
    y, context = encode(block, x)
    v = normal(*y.shape, seed=1)
    torch.testing.assert_close(twin.decode(v, context), pullback(block, x, v))


@pytest.mark.parametrize("activation", [nn.ELU(0.7), nn.ReLU(), nn.LeakyReLU(0.3), nn.Tanh(), nn.GELU()], ids=repr)
def test_activation_twin_is_the_same_activation(activation: nn.Module) -> None:
    y = normal(4, 5)
    assert torch.equal(twin_of(activation).decode(y, encode(activation, y)[1]), activation(y))


@pytest.mark.parametrize("norm", [nn.BatchNorm1d(5), nn.BatchNorm2d(5)], ids=repr)
def test_feedback_ignores_batch_norm(norm: nn.Module) -> None:
    y = normal(4, 5)
    assert torch.equal(twin_of(norm).decode(y, None), y)


def test_twins_start_from_weights_of_their_own() -> None:
    layer = nn.Linear(5, 4)
    first, second = twin_of(layer).map, twin_of(layer).map
    assert isinstance(first, nn.Linear)
    assert isinstance(second, nn.Linear)
    assert not torch.equal(first.weight, second.weight)
    assert not torch.equal(first.weight, layer.weight.T)


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_padding_other_than_zeros_is_refused_by_name(mode: Literal["reflect", "replicate", "circular"]) -> None:
    with pytest.raises(UserError, match=f"Conv2d: padding_mode='{mode}' .* use 'zeros'"):
        twin_of(nn.Conv2d(1, 1, 3, padding=1, padding_mode=mode))


@pytest.mark.parametrize("layer", [nn.PReLU(), nn.LSTM(5, 4), nn.Softmax(1), nn.Dropout2d()], ids=repr)
def test_unsupported_layer_is_refused_by_name_and_block(layer: nn.Module) -> None:
    name = type(layer).__name__
    with pytest.raises(UserError) as refusal:
        Learner(nn.Sequential(nn.Linear(5, 5), nn.ReLU(), nn.Sequential(nn.Linear(5, 5), layer), nn.Linear(5, 5)))
    message = str(refusal.value)
    assert message.startswith(f"Block 2 (Linear, {name}): Layer {name} has no feedback twin.")
    assert "LeakyReLU, Linear, MaxPool2d" in message
    assert f"@targetprop.register_twin({name})" in message


def test_sequential_with_a_forward_of_its_own_is_refused_by_name() -> None:
    class Residual(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            return x + super().forward(x)

    with pytest.raises(UserError, match=r"Block 2 .*Residual is a Sequential with a forward of its own"):
        Learner(nn.Sequential(nn.Linear(5, 5), Residual(nn.Linear(5, 5))))


@pytest.fixture
def _registry() -> Iterator[None]:
    """Twins registered in a test are forgotten after it."""
    published = _FACTORIES["published"]
    before = dict(published)
    yield
    published.clear()
    published.update(before)


class Swap(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flip(1)


@pytest.mark.usefixtures("_registry")
def test_registered_twin_of_a_users_layer_is_used() -> None:
    @register_twin(Swap)
    class SwapTwin(Twin):
        def decode(self, y: Tensor, context: object) -> Tensor:
            return y.flip(1)

    class FastSwap(Swap):
        pass

    learner = Learner(nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 5), FastSwap()))
    step = learner.backward(learner(torch.randn(2, 3)).square().sum(1), keep=True)
    assert step.targets[0].shape == (2, 4)
    y = torch.randn(2, 5)
    assert torch.equal(twin_of(FastSwap()).decode(y, None), y.flip(1))


@pytest.mark.usefixtures("_registry")
def test_twin_may_be_made_by_a_function_and_replaced() -> None:
    @register_twin(nn.Tanh, nn.ReLU)
    def no_activation(layer: nn.Module) -> Twin:
        return twin_of(nn.Identity())

    y = torch.randn(2, 5)
    assert torch.equal(twin_of(nn.Tanh()).decode(y, None), y)
    assert torch.equal(twin_of(nn.ReLU()).decode(y, None), y)


def test_registry_is_clean_again() -> None:
    with pytest.raises(UserError, match="Layer Swap has no feedback twin"):
        twin_of(Swap())


def test_the_twin_of_2015_has_the_map_first_and_the_notebooks_no_activation() -> None:
    block, y = nn.Sequential(nn.Flatten(), nn.Linear(6, 4), nn.Tanh()), normal(3, 4)
    _, context = encode(block, normal(3, 2, 3).float())
    for style, activation in (("lee", torch.tanh), ("map", torch.clone)):
        twin = twin_of(block, style).double()
        weight, bias = twin.parameters()
        expected = activation(y @ weight.T + bias).view(3, 2, 3)
        torch.testing.assert_close(twin.decode(y, context), expected)


def test_the_twin_of_2015_un_pools_before_its_map() -> None:
    pool = nn.Sequential(nn.MaxPool2d(2), nn.ELU())
    x = normal(1, 1, 4, 4)
    output, context = encode(pool, x)
    torch.testing.assert_close(
        twin_of(pool, "lee").decode(output, context), nn.ELU()(twin_of(pool[0]).decode(output, context[0]))
    )
