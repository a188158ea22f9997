"""Losses, targets and updates, beside their equations worked out by hand."""

from __future__ import annotations

import pytest
import torch
from noise_helpers import Drawn
from torch import Tensor, nn

from targetprop import DifferenceTargets, Pair, PlainTargets, Trace
from targetprop.feedback.losses import BlockLoss, l_drl, reconstruction
from targetprop.layers.sequence import feedback_of
from targetprop.local import local_loss
from targetprop.noise import Kind
from targetprop.targets.base import adjoint_difference, output_difference

FORWARD = torch.tensor([[2.0, 0.0], [1.0, -1.0], [0.0, 3.0]])
FEEDBACK = torch.tensor([[1.0, 2.0, 0.0], [0.0, 1.0, -1.0]])
EPS = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
ETA = torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, -1.0]])


@pytest.fixture
def pair() -> Pair:
    """F(x) = W x and G(y) = V y + 1."""
    block = nn.Linear(2, 3, bias=False)
    block.weight.data.copy_(FORWARD)
    feedback = feedback_of(block, "adjoint")
    weight, bias = feedback.parameters()
    weight.data.copy_(FEEDBACK)
    bias.data.fill_(1)
    return Pair(block, feedback)


@pytest.fixture
def trace(pair: Pair) -> Trace:
    x = torch.tensor([[1.0, 1.0], [0.0, -1.0]])
    return Trace(x, *pair.encode(x)).detach()


@Drawn
def draw(kind: Kind, like: Tensor) -> Tensor:
    noise = EPS if kind == "input" else ETA
    assert noise.shape == like.shape
    return noise


def test_l_drl_by_hand(pair: Pair, trace: Trace) -> None:
    # V W = [[4, -2], [1, -4]]; V W eps = (4, 1), (-4, -8); V eta = (2, 1), (1, 1).
    # Sample 1: -2 * 4 + 5 = -3; sample 2: -2 * (2 * -8) + 2 = 34; their mean is 15.5.
    loss = l_drl(pair, trace, draw)
    assert loss.item() == pytest.approx(15.5)
    weight, bias = torch.autograd.grad(loss, pair.feedback_parameters())
    # d/dV = (-2 eps (W eps)^T + 2 V eta eta^T), mean over samples; the bias cancels.
    expected = (-2 * EPS.T @ (EPS @ FORWARD.T) + 2 * FEEDBACK @ ETA.T @ ETA) / 2
    torch.testing.assert_close(weight, expected)
    torch.testing.assert_close(bias, torch.zeros(2))


def test_reconstruction_by_hand(pair: Pair, trace: Trace) -> None:
    # x + eps = (2, 1), (0, 1); G(F(.)) = (7, -1), (-1, -3); squared errors 25 + 4 and 1 + 16; their mean is 23.
    loss = reconstruction(pair, trace, draw)
    assert loss.item() == pytest.approx(23)
    assert all(bool(g.abs().sum() > 0) for g in torch.autograd.grad(loss, pair.feedback_parameters()))


def test_noisy_pass_is_decoded_with_its_own_pooling_indices() -> None:
    pool = nn.MaxPool2d((1, 2))
    pair = Pair(pool, feedback_of(pool))
    x = torch.tensor([[[[1.0, 2.0]]]])
    trace = Trace(x, *pair.encode(x))
    noise = {"input": torch.tensor([[[[5.0, 0.0]]]]), "output": torch.tensor([[[[1.0]]]])}
    # Clean, G(F(s)) = (0, 2); noisy, (6, 0): their difference is (6, -2), and -2 * 5 * 6 + 1 = -59.
    assert l_drl(pair, trace, Drawn(lambda kind, like: noise[kind])).item() == -59
    # Of x + eps = (6, 2), (6, 0) comes back: 2 * 2.
    assert reconstruction(pair, trace, Drawn(lambda kind, like: noise[kind])).item() == 4


@pytest.mark.parametrize("rule", [l_drl, reconstruction])
def test_feedback_losses_give_the_forward_block_no_gradient(pair: Pair, trace: Trace, rule: BlockLoss) -> None:
    rule(pair, trace, draw).backward()
    assert all(p.grad is None for p in pair.block.parameters())


def test_targets_by_hand(pair: Pair, trace: Trace) -> None:
    plain, difference = PlainTargets().carry(pair, trace, ETA), DifferenceTargets().carry(pair, trace, ETA)
    torch.testing.assert_close(plain, (trace.y + ETA) @ FEEDBACK.T + 1 - trace.x)
    torch.testing.assert_close(difference, ETA @ FEEDBACK.T)


def test_below_an_output_that_follows_the_loss_the_difference_goes_down_the_transposed_block(
    pair: Pair, trace: Trace
) -> None:
    torch.testing.assert_close(adjoint_difference(pair, trace, ETA), ETA @ FORWARD)


def test_output_target_steps_down_the_gradient() -> None:
    assert output_difference(torch.tensor([[0.5, -1.0]]), 0.5).tolist() == [[-0.25, 0.5]]


def test_local_loss_is_half_the_squared_distance_mean_over_the_batch() -> None:
    assert local_loss(torch.tensor([[1.0, 2.0], [-3.0, 0.0]])).item() == 3.5
