"""Units standardised over the batch: by which statistics, and what of it no other layer has."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from targetprop import Standardize, UserError, rule_of
from targetprop.models import mlp


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", [(3,), (2, 4, 5)])
def test_by_the_batch_with_the_unbiased_deviation_in_evaluation_too(training: bool, shape: tuple[int, ...]) -> None:
    x = 3 + 2 * torch.randn(6, *shape).double()
    centred = x - x.sum(0) / 6
    expected = centred / ((centred.square().sum(0) / 5).sqrt() + 1e-12)
    torch.testing.assert_close(Standardize().train(training)(x), expected, rtol=1e-12, atol=1e-12)


def test_the_small_number_is_added_to_the_deviation() -> None:
    x = torch.tensor([[0.0], [2e-12]]).double()
    std = 2**0.5 * 1e-12
    expected = torch.tensor([[-1e-12], [1e-12]]).double() / (std + 1e-12)
    torch.testing.assert_close(Standardize()(x), expected, rtol=1e-6, atol=0)


def test_a_unit_that_does_not_vary_is_zero_and_has_no_gradient_of_its_own() -> None:
    x = torch.randn(5, 3).double()
    x[:, 1] = 0.7
    layer, delta = Standardize(), torch.randn(5, 3).double()
    rule = rule_of(layer)
    y, context = rule.run(layer, x)
    assert torch.equal(y[:, 1], torch.zeros(5).double())
    assert torch.isfinite(rule.vjp(layer, delta, context)).all()


def test_a_noisy_pass_has_its_own_statistics_and_goes_back_by_the_clean_ones() -> None:
    """Not as a batch norm, which keeps the clean statistics: so it is in the published code."""
    layer, x = Standardize(), torch.randn(6, 3).double()
    rule = rule_of(layer)
    _, clean = rule.run(layer, x)
    noisy, context = rule.run(layer, 5 * x + 1, clean)
    torch.testing.assert_close(noisy.std(0), torch.ones(3).double())
    assert context is clean


def test_half_precision_is_standardised_in_single() -> None:
    x = torch.randn(64, 3) + 100
    y = Standardize()(x.bfloat16())
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), Standardize()(x.bfloat16().float()), rtol=1e-2, atol=1e-2)


def test_one_sample_has_no_deviation() -> None:
    with pytest.raises(UserError, match=r"^Standardize: expected a batch of 2 samples or more, got 1$"):
        Standardize()(torch.randn(1, 3))


def test_multi_layer_perceptrons_have_it_behind_their_activations() -> None:
    def kinds(hidden: tuple[int, ...] = (5, 4), **options: Any) -> list[str]:
        model = mlp((1, 2, 2), 3, hidden, **options)
        return [type(layer).__name__ for layer in model.modules() if not isinstance(layer, nn.Sequential)]

    plain = ["Flatten", "Linear", "Tanh", "Linear", "Tanh", "Linear"]
    hidden = ["Flatten", "Linear", "Tanh", "Standardize", "Linear", "Tanh", "Standardize", "Linear"]
    assert kinds() == plain
    assert kinds(norm="hidden") == hidden
    assert kinds(norm="all") == [*hidden, "Standardize"]
    assert kinds((), norm="all") == ["Flatten", "Linear", "Standardize"]
    assert kinds((), norm="hidden") == ["Flatten", "Linear"]
    with pytest.raises(UserError, match=r"^norm: unknown value 'hiden'\. Did you mean 'hidden'\? Valid: all, hidden\."):
        kinds(norm="hiden")
