"""The matched feedback of an activation has, at y = act(u), the slope that the activation has at u."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from layer_cases import Make, made, name_of
from torch import Tensor, nn

from targetprop import rule_of
from targetprop.layers.activation import Elementwise
from targetprop.layers.activation_feedback import (
    ActivationFeedback,
    AgainFeedback,
    GainedFeedback,
    MatchedFeedback,
    channel_gain,
)
from targetprop.layers.base import AdjointFeedback, Style
from targetprop.utils.errors import UserError

MATCHED: list[Make] = [
    made(nn.ELU), made(nn.ELU, 0.7), made(nn.CELU, 0.5), made(nn.SELU), made(nn.LeakyReLU, 0.3), made(nn.Tanh),
    made(nn.Softsign), made(nn.Sigmoid), made(nn.LogSigmoid), made(nn.Softplus), made(nn.Softplus, 2.5, 30.0),
]  # fmt: skip
UNMATCHED: list[Make] = [
    made(nn.ReLU), made(nn.ELU, -1.0), made(nn.CELU, -1.0), made(nn.LeakyReLU, -0.1), made(nn.LeakyReLU, 0.0),
    made(nn.Softplus, 1.0, 2.0), made(nn.PReLU), made(nn.Softmax, 1),
]  # fmt: skip
TURNING: list[Make] = [made(nn.GELU), made(nn.GELU, "tanh"), made(nn.SiLU), made(nn.Mish)]


@pytest.mark.parametrize("make", MATCHED, ids=name_of)
@settings(max_examples=25)
@given(st.lists(st.floats(-8, 8), min_size=1, max_size=9))
def test_slope_at_the_output_is_the_slope_at_the_input(make: Make, units: list[float]) -> None:
    layer = make()
    u = torch.tensor([units], dtype=torch.float64, requires_grad=True)
    out = layer(u)
    (wanted,) = torch.autograd.grad(out.sum(), u)
    y = out.detach().requires_grad_()
    feedback = rule_of(layer).feedback(layer, "matched")
    assert isinstance(feedback, MatchedFeedback)
    (found,) = torch.autograd.grad(feedback.decode(y, None).sum(), y)
    torch.testing.assert_close(found, wanted, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("make", MATCHED, ids=name_of)
def test_matched_feedback_is_continuous_and_never_falls(make: Make) -> None:
    layer = make()
    y = torch.linspace(-4, 4, 80001, dtype=torch.float64)[None]
    steps = rule_of(layer).feedback(layer, "matched").decode(y, None).diff()
    assert float(steps.min()) >= -1e-15
    assert float(steps.max()) < 2e-4


@pytest.mark.parametrize("make", TURNING, ids=name_of)
def test_an_activation_that_turns_has_the_slope_of_the_jacobian_on_the_side_where_it_was(make: Make) -> None:
    layer, size = make(), 1e-5
    u = torch.linspace(-8, 14, 3001, dtype=torch.float64)[None]
    wanted = rule_of(layer).vjp(layer, torch.ones_like(u), u)
    for sign in (1, -1):
        found = carried(layer, "matched", u, torch.full_like(u, sign * size)) / (sign * size)
        at_the_turn = wanted.abs() < 0.02  # within a step of the least value, below which the function is constant
        assert float((found - wanted)[~at_the_turn].abs().max()) < 2e-3
        assert float((found - wanted).abs().max()) < 0.03


@pytest.mark.parametrize("make", TURNING, ids=name_of)
def test_an_activation_that_turns_is_evaluated_at_the_target(make: Make) -> None:
    """By integration, beside the table: a(t) - a(s) is the integral of the slope from s to t on the same side."""
    layer = make()
    u = torch.tensor([[2.0, 0.3, -0.2, -3.0, -5.0]], dtype=torch.float64)
    wanted_u = torch.tensor([[9.5, 1.0, 0.4, -2.0, -3.5]], dtype=torch.float64)
    path = u + (wanted_u - u) * torch.linspace(0, 1, 20001, dtype=torch.float64)[:, None]
    slope = rule_of(layer).vjp(layer, torch.ones_like(path), path)
    expected = torch.trapezoid(slope.square(), path, dim=0)
    found = carried(layer, "matched", u, layer(wanted_u) - layer(u))
    torch.testing.assert_close(found[0], expected, rtol=1e-3, atol=1e-5)
    unreachable = carried(layer, "matched", u, torch.full_like(u, -30.0))
    assert bool(unreachable.isfinite().all())
    torch.testing.assert_close(unreachable, carried(layer, "matched", u, torch.full_like(u, -40.0)))


@pytest.mark.parametrize("make", UNMATCHED, ids=name_of)
def test_where_the_output_does_not_tell_the_slope_the_activation_comes_again(make: Make) -> None:
    layer = make()
    feedback = rule_of(layer).feedback(layer, "matched")
    assert isinstance(feedback, AgainFeedback)
    assert isinstance(feedback, GainedFeedback) == isinstance(rule_of(layer), Elementwise)
    assert isinstance(rule_of(layer).feedback(layer, "published"), ActivationFeedback)
    assert isinstance(rule_of(layer).feedback(layer, "linear"), AdjointFeedback)


def carried(layer: nn.Module, style: Style, u: Tensor, difference: Tensor) -> Tensor:
    rule = rule_of(layer)
    _, context = rule.run(layer, u)
    feedback = rule.feedback(layer, style)
    assert feedback.carries
    assert not feedback.is_affine
    return feedback.carry(difference, context)


@pytest.mark.parametrize("make", MATCHED, ids=name_of)
def test_a_matched_difference_is_that_of_its_function_at_the_clean_output_and_at_the_target(make: Make) -> None:
    torch.manual_seed(0)
    layer, u, difference = make(), torch.randn(6, 5).double(), torch.randn(6, 5).double()
    y = layer(u)
    feedback = rule_of(layer).feedback(layer, "matched")
    expected = feedback.decode(y + difference, None) - feedback.decode(y, None)
    torch.testing.assert_close(carried(layer, "matched", u, difference), expected)


@pytest.mark.parametrize("make", [*MATCHED, *UNMATCHED, *TURNING], ids=name_of)
def test_a_gained_difference_has_the_slope_of_the_jacobian_in_the_least_squares_of_each_channel(make: Make) -> None:
    torch.manual_seed(0)
    layer, size = make(), 1e-6
    if not isinstance(rule_of(layer), Elementwise) or not layer(torch.tensor([-1.0])).all():
        return  # an activation that is zero below zero stands on its kink there
    u, difference = torch.randn(64, 5, 3).double(), size * torch.randn(64, 5, 3).double()
    u.requires_grad_()
    (jacobian,) = torch.autograd.grad(layer(u).sum(), u)
    y = layer(u).detach().requires_grad_()
    (again,) = torch.autograd.grad(layer(y).sum(), y)
    gain = (jacobian * again).sum((0, 2), keepdim=True) / again.square().sum((0, 2), keepdim=True)
    found = carried(layer, "gained", u.detach(), difference)
    torch.testing.assert_close(found / size, (gain * again * difference / size).nan_to_num(), rtol=1e-4, atol=1e-4)


def test_a_gain_counts_the_units_that_a_difference_reaches_and_is_one_where_none_is() -> None:
    slope, wanted = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[2.0, 2.0], [9.0, 9.0]])
    reached = torch.tensor([[True, False], [False, False]])
    assert channel_gain(slope, wanted, reached).tolist() == [[2.0, 1.0]]
    assert channel_gain(slope, wanted, ~reached).tolist() == [[3.0, 2.0]]


@pytest.mark.parametrize(
    "layer",
    [nn.Hardtanh(-1, 2), nn.ReLU6(), nn.Hardswish(), nn.Hardsigmoid(), nn.Softplus(1, 2), nn.ELU(), nn.LeakyReLU(),
     nn.ReLU(), nn.SELU(), nn.CELU(), nn.Softsign(), nn.PReLU()],
    ids=repr,
)  # fmt: skip
def test_at_kinks_and_thresholds_slopes_are_those_of_autograd(layer: nn.Module) -> None:
    u = torch.tensor([[-3.0, -2.0, -1.0, -0.0, 0.0, 1.0, 2.0, 3.0, 6.0]], dtype=torch.float64, requires_grad=True)
    layer.double()
    (wanted,) = torch.autograd.grad(layer(u).sum(), u)
    y, context = rule_of(layer).run(layer, u.detach())
    torch.testing.assert_close(rule_of(layer).vjp(layer, torch.ones_like(y), context), wanted, rtol=1e-12, atol=0)


def test_a_slope_for_each_channel_has_no_place_behind_the_map() -> None:
    with pytest.raises(UserError, match="PReLU with a slope for each channel"):
        rule_of(nn.PReLU(3)).feedback(nn.PReLU(3), "lee")
