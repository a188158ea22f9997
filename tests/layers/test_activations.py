"""The matched feedback of an activation has, at y = act(u), the slope that the activation has at u."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from layer_cases import Make, made, name_of
from torch import nn

from targetprop import rule_of
from targetprop.layers.activation import ActivationFeedback, MatchedFeedback
from targetprop.layers.base import AdjointFeedback
from targetprop.utils.errors import UserError

MATCHED: list[Make] = [
    made(nn.ELU), made(nn.ELU, 0.7), made(nn.CELU, 0.5), made(nn.SELU), made(nn.LeakyReLU, 0.3), made(nn.Tanh),
    made(nn.Softsign), made(nn.Sigmoid), made(nn.LogSigmoid), made(nn.Softplus), made(nn.Softplus, 2.5, 30.0),
]  # fmt: skip
UNMATCHED: list[Make] = [
    made(nn.ReLU), made(nn.ELU, -1.0), made(nn.CELU, -1.0), made(nn.LeakyReLU, -0.1), made(nn.LeakyReLU, 0.0),
    made(nn.Softplus, 1.0, 2.0), made(nn.SiLU), made(nn.GELU), made(nn.Mish), made(nn.PReLU), made(nn.Softmax, 1),
]  # fmt: skip


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


@pytest.mark.parametrize("make", UNMATCHED, ids=name_of)
def test_where_the_output_does_not_tell_the_slope_the_clean_one_is_used(make: Make) -> None:
    layer = make()
    assert isinstance(rule_of(layer).feedback(layer, "matched"), AdjointFeedback)
    assert isinstance(rule_of(layer).feedback(layer, "published"), ActivationFeedback)


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
