"""The closed form gives the textbook path's gradients and targets, with the same noise."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from targetprop import DTP, FIXED_DTP, LayerRule, Learner, PairedNetwork, explain, register
from targetprop.feedback.closed_form import l_drl_gradient
from targetprop.feedback.losses import l_drl
from targetprop.layers.base import Context, Style
from targetprop.models.shapes import output_shape
from targetprop.network.linear_feedback import LinearPart
from targetprop.network.pair import Pair
from targetprop.noise import Kind

ACTIVATIONS = [nn.ELU, nn.ReLU, nn.LeakyReLU, nn.Tanh, nn.GELU, nn.Identity]
POOLS = [
    lambda: nn.MaxPool2d(2),
    lambda: nn.MaxPool2d(3, stride=2, padding=1),
    lambda: nn.AvgPool2d(2, padding=1),
    lambda: nn.AdaptiveAvgPool2d(2),
    lambda: nn.AdaptiveMaxPool2d((2, 3)),
    lambda: nn.Dropout(0.3),
    nn.Identity,
]


@st.composite
def convolution_blocks(draw: st.DrawFn) -> tuple[nn.Sequential, tuple[int, ...]]:
    """A block with one convolution of any setting, and the shape of its input."""
    groups = draw(st.sampled_from([1, 2]))
    shape = (2 * draw(st.integers(1, 2)), draw(st.integers(6, 9)), draw(st.integers(6, 9)))
    stride = (draw(st.integers(1, 3)), draw(st.integers(1, 2)))
    padding: object = (draw(st.integers(0, 2)), draw(st.integers(0, 1)))
    if stride == (1, 1):
        padding = draw(st.sampled_from(["same", "valid", padding]))
    conv = nn.Conv2d(
        shape[0],
        2 * draw(st.integers(1, 2)),
        (draw(st.integers(1, 3)), draw(st.integers(1, 4))),
        stride=stride,
        padding=padding,  # type: ignore[arg-type]
        dilation=(draw(st.integers(1, 2)), 1),
        groups=groups,
        bias=draw(st.booleans()),
    )
    rest: list[nn.Module] = [draw(st.sampled_from(ACTIVATIONS))(), draw(st.sampled_from(POOLS))()]
    if draw(st.booleans()):
        rest.insert(draw(st.integers(0, 2)), nn.BatchNorm2d(conv.out_channels))
    before: list[nn.Module] = draw(st.sampled_from([[], [nn.Dropout(0.2)], [nn.Identity()], [nn.AvgPool2d(1)]]))
    return nn.Sequential(*before, conv, *rest), shape


@st.composite
def linear_blocks(draw: st.DrawFn) -> tuple[nn.Sequential, tuple[int, ...]]:
    """A block with one fully connected layer, perhaps behind a reshape."""
    units = draw(st.integers(1, 5))
    norm: list[nn.Module] = [nn.BatchNorm1d(units)] if draw(st.booleans()) else []
    activation = draw(st.sampled_from(ACTIVATIONS))()
    return nn.Sequential(nn.Flatten(), nn.Linear(18, units), *norm, activation, nn.Dropout(0.3)), (2, 3, 3)


def paired(block: nn.Sequential, shape: tuple[int, ...], style: Style) -> Pair:
    """The block as the second of a network, in float64."""
    torch.manual_seed(1)
    try:
        output_shape(block, shape, "drawn")
    except Exception:
        pytest.skip("the kernel is larger than the image")
    first = nn.Sequential(nn.Conv2d(shape[0], shape[0], 1), nn.Tanh())
    return PairedNetwork.of(nn.Sequential(first, block).double(), style).pairs[1]


def recorded_noise() -> object:
    """Draws of one and the same noise, however often it is asked for."""
    drawn: dict[Kind, Tensor] = {}

    def draw(kind: Kind, like: Tensor) -> Tensor:
        return drawn.setdefault(kind, 0.3 * torch.randn_like(like))

    return draw


def assert_close(fast: Tensor, slow: Tensor) -> None:
    scale = slow.norm().clamp_min(1e-12)
    assert (fast - slow).norm() / scale <= 1e-9


@pytest.mark.filterwarnings("ignore:Using padding=.same.")
@given(st.one_of(convolution_blocks(), linear_blocks()), st.sampled_from(["published", "adjoint", "linear"]))
def test_gradients_loss_and_targets_equal_those_of_autograd(
    case: tuple[nn.Sequential, tuple[int, ...]], style: Style
) -> None:
    block, shape = case
    pair = paired(block, shape, style)
    part = pair.linear
    if style == "published" and any(isinstance(each, nn.BatchNorm1d | nn.BatchNorm2d) for each in block):
        assert pair.not_linear == "its feedback has 2 layers with weights"
        return
    if style == "published" and isinstance(block[0], nn.AvgPool2d):
        assert pair.not_linear == "the feedback of AvgPool2d is not its transpose"
        return
    assert isinstance(part, LinearPart)
    x = torch.randn(3, *shape, dtype=torch.float64)
    network = PairedNetwork([pair])
    trace = network.trace(x)[0].detach()
    draw = recorded_noise()
    slow_loss = l_drl(pair, trace, draw)  # type: ignore[arg-type]
    (slow,) = torch.autograd.grad(slow_loss, part.map.weight)
    clean = part.features(trace.y, trace.context)
    fast, fast_loss = l_drl_gradient(pair, part, trace, clean, draw)  # type: ignore[arg-type]
    assert_close(fast, slow)
    assert_close(fast_loss, slow_loss.detach())
    with torch.no_grad():
        target = trace.y + 0.1 * torch.randn_like(trace.y)
        two_passes = pair.decode(target, trace.context) - pair.decode(trace.y, trace.context)
        assert_close(pair.decode_difference(trace.y, target - trace.y, trace.context), two_passes)


def test_explain_says_which_path_and_why() -> None:
    class Doubling(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * x

    @register(Doubling)
    class DoublingRule(LayerRule[Doubling]):
        def vjp(self, layer: Doubling, delta: Tensor, context: Context) -> Tensor:
            return 2 * delta

    network = nn.Sequential(
        nn.Linear(4, 4),
        nn.Sequential(nn.Linear(4, 4), nn.Tanh()),
        nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4)),
        nn.Sequential(nn.Tanh(), nn.Linear(4, 4)),
        nn.Sequential(nn.Linear(4, 4), Doubling()),
    )
    lines = explain(Learner(network, DTP))
    assert [line.split(": ")[1] for line in lines] == [
        "no feedback",
        "closed form",
        "autograd, because its feedback has 2 layers with weights",
        "autograd, because Tanh stands before its linear map",
        "closed form",
    ]
    assert "autograd, because the rule asks" in explain(Learner(network, DTP.with_numbers(gradient="autograd")))[1]
    assert "feedback stays as it is" in explain(Learner(network, FIXED_DTP))[1]
