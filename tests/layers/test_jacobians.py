"""A layer's rule runs it as it is, and goes back through it as autograd does, with its gradients."""

from __future__ import annotations

import copy

import pytest
import torch
from layer_cases import ALL, Case, name_of, sample
from torch import Tensor, nn

from targetprop import rule_of
from targetprop.layers.lookup import Opaque, has_matrix


def relative(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm().clamp_min(1e-6))


@pytest.mark.parametrize("case", ALL, ids=name_of)
def test_a_rule_is_the_layer_and_its_transposed_jacobian(case: Case) -> None:
    make, shape = case
    layer, x = make(), sample(shape)
    rule = rule_of(layer)
    assert not isinstance(rule, Opaque)
    reference = copy.deepcopy(layer)
    leaf = x.clone().requires_grad_()
    torch.manual_seed(3)
    expected = reference(leaf)
    torch.manual_seed(3)
    y, context = rule.run(layer, x)
    torch.testing.assert_close(y, expected, rtol=1e-14, atol=0)
    for ours, theirs in zip(layer.buffers(), reference.buffers(), strict=True):
        assert torch.equal(ours, theirs)
    delta = torch.randn_like(y)
    names = [name for name, _ in layer.named_parameters()]
    below, *own = torch.autograd.grad(expected, [leaf, *reference.parameters()], delta)
    if rule.knows_its_gradients:
        found, gradients = rule.gradients(layer, delta, context)
        assert relative(found, below) <= 1e-10
        assert relative(rule.vjp(layer, delta, context), below) <= 1e-10
        for name, wanted in zip(names, own, strict=True):
            assert relative(gradients[name], wanted) <= 1e-10, name
    else:
        assert has_matrix(layer)
    assert rule.facts(layer).dims in (None, x.dim())


@pytest.mark.parametrize("case", ALL, ids=name_of)
def test_a_noisy_pass_leaves_nothing_behind_and_keeps_what_was_drawn(case: Case) -> None:
    make, shape = case
    layer, x = make(), sample(shape)
    rule = rule_of(layer)
    y, context = rule.run(layer, x)
    buffers = [buffer.clone() for buffer in layer.buffers()]
    again, _ = rule.run(layer, x, context)
    torch.testing.assert_close(again, y)
    rule.run(layer, x + 1, context)
    assert all(torch.equal(a, b) for a, b in zip(buffers, layer.buffers(), strict=True))


@pytest.mark.parametrize("case", ALL, ids=name_of)
def test_what_is_said_to_be_linear_or_to_keep_sums_is_and_does(case: Case) -> None:
    make, shape = case
    layer, x = make(), sample(shape)
    rule = rule_of(layer)
    facts = rule.facts(layer)
    y, context = rule.run(layer, x)
    if facts.linear:
        torch.testing.assert_close(
            rule.run(layer, 2 * x - 0.5, context)[0], 2 * y - rule.run(layer, 0 * x + 0.5, context)[0]
        )
    if facts.keeps_sums:
        delta = torch.randn_like(y)
        torch.testing.assert_close(rule.vjp(layer, delta, context).flatten(2).sum(2), delta.flatten(2).sum(2))
    if not facts.varies:
        torch.testing.assert_close(rule.run(layer, x)[0], y, rtol=0, atol=0)
    if facts.commutes_with_max_pool:
        a, b = torch.randn(2, 1000, dtype=torch.float64)
        assert bool(((layer(a) < layer(b)) == (a < b)).all())
        assert float(layer(torch.zeros(1).double())) == 0


def test_what_does_not_commute_with_pooling_is_not_said_to() -> None:
    for layer in (
        nn.Sigmoid(),
        nn.Softplus(),
        nn.ReLU(),
        nn.Hardtanh(),
        nn.ReLU6(),
        nn.ELU(-1.0),
        nn.SiLU(),
        nn.PReLU(),
    ):
        assert not rule_of(layer).facts(layer).commutes_with_max_pool
