"""Feedback layers: of linear layers without weights of their own, and of pooling, they are the exact adjoint."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from targetprop import (
    DTP,
    FeedbackLayer,
    LayerRule,
    Learner,
    PairedNetwork,
    Reshape,
    UserError,
    explain,
    register,
    register_elementwise,
    rule_of,
)
from targetprop.layers.base import STYLES, WITH_JACOBIANS, Context, Style, add_rule
from targetprop.layers.conv import ConvolutionFeedback
from targetprop.layers.linear import DenseFeedback
from targetprop.layers.sequence import FeedbackChain, feedback_of
from targetprop.network.network import with_convolution_biases

Two = tuple[int, int]


def encode(layer: nn.Module, x: Tensor) -> tuple[Tensor, Context]:
    return rule_of(layer).run(layer, x)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def pairs(least: int, most: int) -> st.SearchStrategy[Two]:
    return st.tuples(st.integers(least, most), st.integers(least, most))


def pullback(layer: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """The layer's transposed Jacobian at x, applied to y: the oracle."""
    x = x.clone().requires_grad_()
    return torch.autograd.grad(layer(x), x, y)[0]


def assert_adjoint(layer: nn.Module, x: Tensor) -> None:
    """The layer's feedback in that style carries any y back as autograd does, to the shape of x."""
    output, context = encode(layer, x)
    torch.testing.assert_close(output, layer(x), rtol=0, atol=0)
    y = normal(*output.shape, seed=1)
    torch.testing.assert_close(feedback_of(layer, "adjoint").decode(y, context), pullback(layer, x, y))


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
    feedback = feedback_of(conv, "adjoint").double()
    assert isinstance(feedback, ConvolutionFeedback)
    assert isinstance(feedback.map, nn.ConvTranspose2d)
    with torch.no_grad():
        feedback.weight.copy_(conv.weight)
        assert feedback.bias is not None
        feedback.bias.zero_()
        if conv.bias is not None:
            conv.bias.zero_()
    output, context = encode(conv, x)
    y = normal(*output.shape, seed=1)
    decoded = feedback.decode(y, context)
    assert decoded.shape == x.shape
    torch.testing.assert_close((output * y).sum(), (x * decoded).sum())
    torch.testing.assert_close(decoded, pullback(conv, x, y))


def test_convolution_feedback_adds_its_own_bias_everywhere() -> None:
    conv = nn.Conv2d(2, 3, 2, stride=3, padding="valid")
    feedback = feedback_of(conv)
    assert isinstance(feedback, ConvolutionFeedback)
    output, context = encode(conv, torch.zeros(1, 2, 10, 7))
    decoded = feedback.decode(torch.zeros_like(output), context)
    assert feedback.bias is not None
    assert torch.equal(decoded, feedback.bias.view(1, 2, 1, 1).expand(1, 2, 10, 7))


@given(st.integers(1, 5), st.integers(1, 5))
def test_linear_with_equal_weights_is_adjoint(inputs: int, outputs: int) -> None:
    layer = nn.Linear(inputs, outputs).double()
    feedback = feedback_of(layer).double()
    assert isinstance(feedback, DenseFeedback)
    with torch.no_grad():
        feedback.weight.copy_(layer.weight.T)
        assert feedback.bias is not None
        feedback.bias.zero_()
    x, y = normal(3, inputs), normal(3, outputs, seed=1)
    torch.testing.assert_close(feedback.decode(y, encode(layer, x)[1]), pullback(layer, x, y))


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


def test_max_pooling_adds_the_values_of_windows_with_one_maximum_or_as_published_keeps_the_last() -> None:
    layer = nn.MaxPool2d((1, 3), stride=1)
    x = torch.tensor([0.0, 1.0, 9.0, 1.0, 0.0]).view(1, 1, 1, 5)
    y, context = encode(layer, x)
    assert y.flatten().tolist() == [9, 9, 9]
    values = torch.tensor([1.0, 10.0, 100.0]).view(1, 1, 1, 3)
    assert feedback_of(layer, "adjoint").decode(values, context).flatten().tolist() == [0, 0, 111, 0, 0]
    assert feedback_of(layer, "published").decode(values, context).flatten().tolist() == [0, 0, 100, 0, 0]


def overwritten(y: Tensor, indices: Tensor, x: Tensor) -> Tensor:
    """Window after window puts its value where its maximum was."""
    below = torch.zeros_like(x)
    for sample in range(len(x)):
        for channel in range(x.shape[1]):
            places, values = indices[sample, channel].flatten().tolist(), y[sample, channel].flatten().tolist()
            for place, value in zip(places, values, strict=True):
                below[sample, channel].view(-1)[place] = value
    return below


@given(windows(), pairs(1, 3), st.booleans(), st.booleans())
def test_published_un_pooling_overwrites_in_the_order_of_the_windows(
    window: tuple[Two, Two, Two, Two], dilation: Two, ceil_mode: bool, channels_last: bool
) -> None:
    kernel, stride, padding, size = window
    size = (size[0] + (dilation[0] - 1) * (kernel[0] - 1), size[1] + (dilation[1] - 1) * (kernel[1] - 1))
    layer = nn.MaxPool2d(kernel, stride, padding, dilation, ceil_mode=ceil_mode)
    order = torch.channels_last if channels_last else torch.contiguous_format
    x = normal(2, 3, *size).relu()  # with ties
    output, context = encode(layer, x.to(memory_format=order))
    y = normal(*output.shape, seed=1)
    decoded = feedback_of(layer, "published").decode(y.to(memory_format=order), context)
    assert torch.equal(decoded, overwritten(y, context[0], x))


@pytest.mark.parametrize(
    ("layer", "size"),
    [
        (nn.MaxPool1d(3, 1), (7,)),
        (nn.MaxPool3d(3, 2, 1), (5, 4, 5)),
        (nn.AdaptiveMaxPool1d(3), (7,)),
        (nn.AdaptiveMaxPool2d((3, 2)), (7, 5)),
        (nn.AdaptiveMaxPool3d(2), (3, 4, 5)),
    ],
    ids=repr,
)
def test_published_un_pooling_overwrites_in_any_number_of_dimensions(layer: nn.Module, size: tuple[int, ...]) -> None:
    x = normal(2, 3, *size)
    output, context = encode(layer, x)
    y = normal(*output.shape, seed=1)
    assert torch.equal(feedback_of(layer).decode(y, context), overwritten(y, context[0], x))


@pytest.mark.parametrize(
    "pool", [nn.AvgPool2d((2, 3)), nn.AdaptiveAvgPool2d((2, 3)), nn.AdaptiveAvgPool2d(1)], ids=repr
)
def test_published_feedback_of_average_pooling_copies_a_mean_to_its_window(pool: nn.Module) -> None:
    x = normal(2, 3, 4, 9)
    output, context = encode(pool, x)
    y = normal(*output.shape, seed=1)
    copies = y.repeat_interleave(4 // y.shape[2], 2).repeat_interleave(9 // y.shape[3], 3)
    torch.testing.assert_close(feedback_of(pool).decode(y, context), copies)


@pytest.mark.parametrize(
    ("pool", "size"), [(nn.AvgPool1d(3, 2, 1), (7,)), (nn.AdaptiveAvgPool2d(2), (5, 3)), (nn.AvgPool3d(2), (5, 4, 6))]
)
def test_published_feedback_of_average_pooling_is_adaptive_pooling_to_its_input(
    pool: nn.Module, size: tuple[int, ...]
) -> None:
    output, context = encode(pool, normal(2, 3, *size))
    y = normal(*output.shape, seed=1)
    back = {1: nn.AdaptiveAvgPool1d, 2: nn.AdaptiveAvgPool2d, 3: nn.AdaptiveAvgPool3d}[len(size)](size)
    assert torch.equal(feedback_of(pool).decode(y, context), back(y))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("style", STYLES)
def test_published_feedback_has_a_bias_where_the_layer_has_one_and_that_of_other_styles_always(
    style: Style, bias: bool
) -> None:
    for layer in (nn.Linear(3, 2, bias), nn.Conv2d(3, 2, 1, bias=bias), nn.ConvTranspose2d(3, 2, 1, bias=bias)):
        found = {name.split(".")[-1] for name, _ in feedback_of(layer, style).named_parameters()}
        assert found == ({"weight"} if style == "published" and not bias else {"weight", "bias"})


def test_a_bias_for_every_convolution_is_a_switch() -> None:
    model = nn.Sequential(
        nn.Conv2d(2, 3, 1), nn.Conv2d(3, 4, 3, bias=False), nn.Flatten(), nn.Linear(16, 2, bias=False)
    )
    network = PairedNetwork.of(model, "published", with_convolution_biases)
    assert [[tuple(p.shape) for p in pair.feedback_parameters()] for pair in network.pairs] == [
        [],
        [(4, 3, 3, 3), (3,)],
        [(16, 2)],
    ]
    bias = network.pairs[1].feedback_parameters()[1]
    assert 0 < float(bias.abs().max()) <= 27**-0.5


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
    assert torch.equal(feedback_of(layer).decode(y, context), x)


def test_feedback_learns_through_the_feedback_of_pooling() -> None:
    """In a block of several maps, weights above a pooling get their gradient through the pooling's feedback."""
    block = nn.Sequential(nn.AvgPool2d(2), nn.MaxPool2d(2, 1), nn.Flatten(), nn.Linear(27, 4)).double()
    feedback = feedback_of(block).double()
    y, context = encode(block, normal(2, 3, 8, 8))

    assert torch.autograd.gradcheck(lambda *_: feedback.decode(y.detach(), context), tuple(feedback.parameters()))


def test_nested_sequentials_decode_in_reverse() -> None:
    inner = nn.Sequential(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(12, 6))
    block = nn.Sequential(nn.Sequential(nn.AvgPool2d((1, 2)), inner), nn.Unflatten(1, (2, 3))).double()
    feedback = feedback_of(block, "adjoint").double()
    (of_linear,) = [m for m in feedback.modules() if isinstance(m, nn.Linear)]
    linear = inner[2]
    assert isinstance(linear, nn.Linear)
    with torch.no_grad():
        of_linear.weight.copy_(linear.weight.T)
        of_linear.bias.zero_()
    x = normal(2, 3, 4, 8)
    y, context = encode(block, x)
    v = normal(*y.shape, seed=1)
    torch.testing.assert_close(feedback.decode(v, context), pullback(block, x, v))


@pytest.mark.parametrize("activation", [nn.ELU(0.7), nn.ReLU(), nn.LeakyReLU(0.3), nn.Tanh(), nn.GELU()], ids=repr)
def test_activation_feedback_is_the_same_activation(activation: nn.Module) -> None:
    y = normal(4, 5)
    assert torch.equal(feedback_of(activation).decode(y, encode(activation, y)[1]), activation(y))


@pytest.mark.parametrize("norm", [nn.BatchNorm1d(5), nn.BatchNorm2d(5), nn.BatchNorm3d(5)], ids=repr)
def test_published_feedback_of_batch_norm_is_a_batch_norm_of_its_own_that_learns(norm: nn.Module) -> None:
    y = normal(4, 5, *[3] * (2 if isinstance(norm, nn.BatchNorm2d) else 3 if isinstance(norm, nn.BatchNorm3d) else 0))
    nn.init.constant_(norm.get_parameter("weight"), 7.0)
    feedback = feedback_of(norm).double()
    others = [each for each in range(y.dim()) if each != 1]
    decoded = feedback.decode(y, None)
    torch.testing.assert_close(decoded.mean(others), torch.zeros(5, dtype=torch.float64))
    torch.testing.assert_close(decoded.var(others, correction=0), torch.ones(5, dtype=torch.float64), rtol=1e-3, atol=0)
    assert [p.tolist() for p in feedback.parameters()] == [[1] * 5, [0] * 5]
    assert not feedback.is_affine


@pytest.mark.parametrize("style", ["adjoint", "linear", "matched"])
def test_feedback_of_batch_norm_in_other_styles_is_the_jacobian_through_its_statistics(style: Style) -> None:
    norm, x, y = nn.BatchNorm2d(3).double(), normal(4, 3, 5, 5), normal(4, 3, 5, 5, seed=1)
    _, context = encode(norm, x)
    torch.testing.assert_close(feedback_of(norm, style).decode(y, context), pullback(norm, x, y))


def test_feedback_in_the_style_lee_ignores_batch_norm() -> None:
    y = normal(4, 5)
    assert torch.equal(feedback_of(nn.BatchNorm1d(5), "lee").decode(y, None), y)


def test_weights_around_a_published_batch_norm_learn_by_autograd() -> None:
    middle = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ELU(), nn.MaxPool2d(3, 2))
    model = nn.Sequential(nn.Conv2d(2, 3, 1), middle, nn.Flatten(), nn.Linear(16, 3))
    learner = Learner(model, DTP)
    assert explain(learner)[1].endswith("autograd, because its feedback has 2 layers with weights")
    before = [p.clone() for p in learner.network.pairs[1].feedback_parameters()]
    learner.backward(F.cross_entropy(learner(normal(5, 2, 8, 8).float()), torch.arange(5) % 3))
    after = learner.network.pairs[1].feedback_parameters()
    assert [tuple(p.shape) for p in after] == [(4, 3, 3, 3), (3,), (4,), (4,)]
    moved = [not torch.allclose(a, b, atol=1e-6) for a, b in zip(before, after, strict=True)]
    assert moved == [True, False, True, True]  # the bias of a linear map cancels in L-DRL


def test_feedback_starts_from_weights_of_their_own() -> None:
    layer = nn.Linear(5, 4)
    first, second = feedback_of(layer), feedback_of(layer)
    assert isinstance(first, DenseFeedback)
    assert isinstance(second, DenseFeedback)
    assert not torch.equal(first.weight, second.weight)
    assert not torch.equal(first.weight, layer.weight.T)


class Unheard(nn.Module):
    """Of it nothing is known."""

    def forward(self, x: Tensor) -> Tensor:
        return x


@pytest.mark.parametrize("layer", [nn.LSTM(5, 4), nn.GRU(5, 4), nn.LocalResponseNorm(2), Unheard()], ids=repr)
def test_unsupported_layer_is_refused_by_name_and_block(layer: nn.Module) -> None:
    name = type(layer).__name__
    with pytest.raises(UserError) as refusal:
        Learner(nn.Sequential(nn.Linear(5, 5), nn.ReLU(), nn.Sequential(nn.Linear(5, 5), layer), nn.Linear(5, 5)))
    message = str(refusal.value)
    assert message.startswith(f"network: block 2 (Linear, {name}): layer {name} has no feedback, because ")
    known = message.split("Layers with one: ")[1].split(". ")[0].split(", ")
    assert known == sorted(known)
    assert {"LeakyReLU", "Linear", "MaxPool2d"} <= set(known)
    assert f"@targetprop.register({name})" in message


def test_sequential_with_a_forward_of_its_own_is_traced_unless_it_has_a_rule_of_its_own() -> None:
    class Skip(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            return x + super().forward(x)

    traced = Learner(nn.Sequential(nn.Linear(5, 5), Skip(nn.Linear(5, 5)))).network.pairs
    assert [len(pair.maps) for pair in traced] == [0, 1]

    class KnownSkip(Skip):
        pass

    class SkipFeedback(FeedbackLayer):
        def __init__(self, inner: FeedbackLayer) -> None:
            super().__init__()
            self.inner = inner

        def decode(self, y: Tensor, context: Context) -> Tensor:
            return y + self.inner.decode(y, context)

    @register(KnownSkip)
    class SkipRule(LayerRule[KnownSkip]):
        def feedback(self, layer: KnownSkip, style: Style) -> FeedbackLayer:
            return SkipFeedback(feedback_of(layer[0], style))

    learner = Learner(nn.Sequential(nn.Linear(5, 5), KnownSkip(nn.Linear(5, 5)), nn.Linear(5, 3)))
    before = [p.clone() for p in learner.network.pairs[1].feedback_parameters()]
    learner.backward(F.cross_entropy(learner(torch.randn(9, 5)), torch.randint(3, (9,))))
    assert not torch.equal(before[0], learner.network.pairs[1].feedback_parameters()[0])


class Swap(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flip(1)


def test_a_rule_registered_for_a_users_layer_is_used_and_for_subclasses_that_only_add_to_it() -> None:
    class OwnSwap(Swap):
        pass

    @register(OwnSwap)
    class SwapRule(LayerRule[OwnSwap]):
        def vjp(self, layer: OwnSwap, delta: Tensor, context: Context) -> Tensor:
            return delta.flip(1)

    class FastSwap(OwnSwap):
        def also(self) -> int:
            return 1

    class Roll(OwnSwap):
        def forward(self, x: Tensor) -> Tensor:
            return x.roll(1, 1)

    learner = Learner(nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 5), FastSwap()))
    step = learner.backward(learner(torch.randn(2, 3)).square().sum(1), keep=True)
    assert step.targets[0].shape == (2, 4)
    assert learner.network.pairs[1].chain is not None
    y = torch.randn(2, 5)
    assert torch.equal(feedback_of(FastSwap()).decode(y, None), y.flip(1))
    with pytest.raises(UserError, match="layer Roll has no feedback"):
        feedback_of(Roll())


def test_a_rule_may_make_other_feedback_and_be_replaced() -> None:
    known = {kind: rule_of(kind()) for kind in (nn.Tanh, nn.ReLU)}

    class NoActivation(LayerRule[nn.Module]):
        def feedback(self, layer: nn.Module, style: Style) -> FeedbackLayer:
            return feedback_of(nn.Identity())

    y = torch.randn(2, 5)
    register(nn.Tanh, nn.ReLU)(NoActivation)
    try:
        assert torch.equal(feedback_of(nn.Tanh()).decode(y, None), y)
        assert torch.equal(feedback_of(nn.ReLU()).decode(y, None), y)
    finally:
        for kind, rule in known.items():
            add_rule(rule, kind)
    assert torch.equal(feedback_of(nn.Tanh()).decode(y, None), y.tanh())


def test_a_layer_without_a_rule_is_refused_but_goes_by_its_jacobian_where_slopes_are_the_jacobians() -> None:
    for style in STYLES:
        if style not in WITH_JACOBIANS:
            with pytest.raises(UserError, match="layer Swap has no feedback"):
                feedback_of(Swap(), style)
    x, y = normal(2, 5), normal(2, 5, seed=1)
    for style in ("adjoint", "linear"):
        assert torch.equal(feedback_of(Swap(), style).decode(y, encode(Swap(), x)[1]), y.flip(1))


def test_an_activation_of_the_users_own_takes_one_line() -> None:
    class Cube(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x**3

    register_elementwise(Cube, slope=lambda layer, delta, x: 3 * x**2 * delta, keeps="input")
    assert_adjoint_in_the_linear_style(Cube(), normal(3, 4))
    learner = Learner(nn.Sequential(nn.Linear(3, 4), Cube(), nn.Linear(4, 5), Cube()))
    learner.backward(learner(torch.randn(2, 3)).square().sum(1))
    assert all(pair.chain is not None for pair in learner.network.pairs)


def assert_adjoint_in_the_linear_style(layer: nn.Module, x: Tensor) -> None:
    output, context = encode(layer, x)
    y = normal(*output.shape, seed=1)
    torch.testing.assert_close(feedback_of(layer, "linear").decode(y, context), pullback(layer, x, y))


ACTIVATIONS = [nn.ELU(0.7), nn.ReLU(), nn.LeakyReLU(0.3), nn.Tanh(), nn.GELU(), nn.GELU("tanh")]


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=repr)
def test_activation_feedback_in_the_linear_style_is_the_slope(activation: nn.Module) -> None:
    assert_adjoint_in_the_linear_style(activation, normal(4, 5))


def doubling_hook(module: nn.Module, inputs: tuple[Tensor, ...], y: Tensor) -> Tensor:
    return 2 * y


def watching_hook(module: nn.Module, inputs: tuple[Tensor, ...], y: Tensor) -> None:
    pass


THROUGH: list[tuple[nn.Module, Style]] = [
    *((layer, style) for layer in (nn.Tanh(), nn.Flatten(), nn.AvgPool2d(2)) for style in ("published", "linear")),
    (Unheard(), "linear"),
]


@pytest.mark.parametrize(("layer", "style"), THROUGH, ids=repr)
def test_feedback_learns_through_layers_below_its_map_that_only_autograd_knows(layer: nn.Module, style: Style) -> None:
    """A hooked layer, or one without a rule: it takes part in the path from the feedback weights to their loss."""
    image = isinstance(layer, nn.Flatten | nn.AvgPool2d)

    def learned(hooked: bool) -> list[Tensor]:
        torch.manual_seed(0)
        below = nn.Unflatten(1, (1, 4, 4)) if image else nn.Identity()
        above = [nn.Flatten()] if isinstance(layer, nn.AvgPool2d) else []
        width = 4 if isinstance(layer, nn.AvgPool2d) else 16
        middle = nn.Sequential(below, layer, *above, nn.Linear(width, 5), nn.ELU())
        model = nn.Sequential(nn.Linear(6, 16), middle, nn.Linear(5, 3)).double()
        learner = Learner(model, DTP.with_numbers(gradient="autograd", style=style), seed=2)
        handle = layer.register_forward_hook(watching_hook) if hooked else None
        x, y = normal(9, 6), torch.arange(9) % 3
        before = [p.clone() for p in learner.network.pairs[1].feedback_parameters()]
        learner.backward(F.cross_entropy(learner(x), y))
        if handle is not None:
            handle.remove()
        after = learner.network.pairs[1].feedback_parameters()
        assert not torch.equal(before[0], after[0])
        return [p.detach() for p in after]

    for mine, theirs in zip(learned(True), learned(False), strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("layer", [nn.Tanh(), nn.BatchNorm1d(5), nn.Dropout(0.5), nn.Identity()], ids=repr)
def test_what_a_hook_does_to_a_layer_is_in_its_jacobian(layer: nn.Module) -> None:
    layer = layer.double().eval()
    handle = layer.register_forward_hook(doubling_hook)
    x, y = normal(4, 5), normal(4, 5, seed=1)
    output, context = encode(layer, x)
    assert torch.equal(output, layer(x))
    torch.testing.assert_close(feedback_of(layer, "linear").decode(y, context), pullback(layer, x, y))
    handle.remove()


def test_the_feedback_of_2015_has_the_map_first_and_the_notebooks_no_activation() -> None:
    block, y = nn.Sequential(nn.Flatten(), nn.Linear(6, 4), nn.Tanh()), normal(3, 4)
    _, context = encode(block, normal(3, 2, 3).float())
    activations: dict[Style, Callable[[Tensor], Tensor]] = {"lee": torch.tanh, "map": torch.clone}
    for style, activation in activations.items():
        feedback = feedback_of(block, style).double()
        weight, bias = feedback.parameters()
        expected = activation(y @ weight.T + bias).view(3, 2, 3)
        torch.testing.assert_close(feedback.decode(y, context), expected)


def test_the_feedback_of_2015_un_pools_before_its_map() -> None:
    pool = nn.Sequential(nn.MaxPool2d(2), nn.ELU())
    x = normal(1, 1, 4, 4)
    output, context = encode(pool, x)
    torch.testing.assert_close(
        feedback_of(pool, "lee").decode(output, context), nn.ELU()(feedback_of(pool[0]).decode(output, context[0]))
    )


def test_the_parts_of_a_chain_are_those_of_its_layers_in_forward_order() -> None:
    feedback = feedback_of(nn.Sequential(nn.Flatten(), nn.Linear(6, 4), nn.Tanh()), "lee")
    assert isinstance(feedback, FeedbackChain)
    assert [type(part).__name__ for part in feedback.parts] == [
        "AdjointFeedback",
        "DenseFeedback",
        "ActivationFeedback",
    ]
    assert list(feedback) == list(feedback.parts)
    assert feedback.order == [1, 0, 2]
