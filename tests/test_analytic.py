"""Feedback in closed form is the minimiser of L-DRL with linear feedback, for small noise; derived here."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
import torch.nn.functional as F
from noise_helpers import Drawn
from torch import Tensor, nn

from targetprop import ANALYTIC_DTP, Learner, Needs, Pair, Residual, UserError, explain
from targetprop.feedback.losses import l_drl
from targetprop.network.pair import Trace

SIGMA = 0.01
"""Of input and output noise; what the limit of small noise leaves out is of the order of its square."""


def mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 4), nn.Softplus(), nn.Linear(4, 3))


def conv() -> nn.Sequential:
    """Without padding, at whose border the mean over positions would be another one for each weight of a kernel.

    And without pooling: noise that moves a maximum moves what is unpooled, of which the closed form knows nothing.
    """
    hidden = [nn.Conv2d(1, 2, 3), nn.ELU(), nn.Conv2d(2, 3, 3, stride=2), nn.Tanh()]
    return nn.Sequential(*hidden, nn.Flatten(), nn.Linear(12, 3))


def learned(network: nn.Sequential, x: Tensor) -> tuple[Learner, list[Trace]]:
    """A learner in float64 whose feedback has learned on x, and the pass."""
    learner = Learner(network, ANALYTIC_DTP).double()
    assert torch.equal(learner.learn_feedback(x), torch.zeros(len(learner.network.fed)))
    return learner, [trace.detach() for trace in learner.network.trace(x)]


def weight(pair: Pair) -> nn.Parameter:
    """V."""
    (found,) = (p for p in pair.feedback_parameters() if p.dim() > 1)
    return found


def mean_and_error(samples: list[Tensor]) -> tuple[Tensor, float]:
    """Mean of independent estimates, and its standard error in the Frobenius norm."""
    stacked = torch.stack(samples)
    return stacked.mean(0), float((stacked.var(0).sum() / len(samples)).sqrt())


def test_it_is_the_batch_mean_of_the_transposed_jacobian() -> None:
    """To rounding, where blocks are a fully connected layer and an activation."""
    x = torch.randn(8, 5).double()
    learner, traces = learned(mlp(), x)
    for number, pair in learner.network.fed.items():
        trace = traces[number]
        jacobians = [torch.autograd.functional.jacobian(lambda h, p=pair: p.encode(h[None])[0][0], h) for h in trace.x]
        torch.testing.assert_close(weight(pair).detach(), torch.stack(jacobians).mean(0).t(), rtol=1e-13, atol=1e-14)


def test_it_solves_the_normal_equations_of_l_drl() -> None:
    """V E[eta eta^T] = E[eps (F(s + eps) - F(s))^T], both sides from 2000 draws for each of 8 samples, 30 times over.

    The mean of the 30 solutions lies within 1.5 standard errors (of its Frobenius norm, .5 % of ||V||) of V; W^T, which
    leaves out the slopes, lies at more than 20.
    """
    x = torch.randn(8, 5).double()
    learner, traces = learned(mlp(), x)
    pair, trace = learner.network.pairs[1], traces[1]

    def solution() -> Tensor:
        h = trace.x.repeat(2000, 1)
        eps, eta = SIGMA * torch.randn_like(h), SIGMA * torch.randn(len(h), 4).double()
        with torch.no_grad():
            response = pair.encode(h + eps)[0] - pair.encode(h)[0]
        return torch.linalg.solve(eta.t() @ eta, response.t() @ eps).t()

    found, error = mean_and_error([solution() for _ in range(30)])
    v = weight(pair).detach()
    assert error < 0.006 * float(v.norm())
    assert float((found - v).norm()) < 1.5 * error
    (forward,) = (p.detach() for p in pair.block.parameters() if p.dim() > 1)
    assert float((found - forward.t()).norm()) > 20 * error


def gradients(pair: Pair, trace: Trace, count: int) -> Iterator[Tensor]:
    """Of the package's own loss for V, each on fresh noise."""
    for _ in range(count):
        loss = l_drl(pair, trace, Drawn(lambda kind, like: SIGMA * torch.randn_like(like), SIGMA))
        yield torch.autograd.grad(loss, weight(pair))[0]


@pytest.mark.parametrize(("make", "shape"), [(mlp, (5,)), (conv, (1, 8, 8))])
def test_the_gradient_of_the_loss_is_zero_there(make: Callable[[], nn.Sequential], shape: tuple[int, ...]) -> None:
    """Within 1.5 standard errors of its mean over 400 draws; at another V it is not within 5."""
    learner, traces = learned(make(), torch.randn(16, *shape).double())
    for number, pair in learner.network.fed.items():
        mean, error = mean_and_error(list(gradients(pair, traces[number], 400)))
        assert float(mean.norm()) < 1.5 * error
        weight(pair).data.mul_(1.5)
        mean, error = mean_and_error(list(gradients(pair, traces[number], 400)))
        assert float(mean.norm()) > 5 * error


def test_it_reads_weights_and_says_where_it_is_from() -> None:
    assert ANALYTIC_DTP.needs == Needs(frozenset({"weights"}))
    assert str(ANALYTIC_DTP.source).endswith("derived here, and not verified to be theirs)")


def test_every_step_sets_it_anew_unless_it_is_frozen() -> None:
    x, y = torch.randn(8, 5), torch.randint(3, (8,))
    learner = Learner(mlp(), ANALYTIC_DTP)
    lines = explain(learner)
    assert lines[1].endswith("closed form, W^T times mean slopes")
    frozen = weight(learner.network.pairs[1])
    frozen.requires_grad_(False)
    before = [weight(pair).clone() for pair in learner.network.trained]
    learner.backward(F.cross_entropy(learner(x), y))
    kept = [torch.equal(weight(pair), was) for pair, was in zip(learner.network.trained, before, strict=True)]
    assert kept == [True, False]
    assert explain(learner)[1].endswith("feedback stays as it is, its weights are frozen")


def test_a_block_without_one_linear_map_is_refused() -> None:
    body = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4))
    with pytest.raises(
        UserError, match=r"^network: block 2 \(Residual\): the closed form of its feedback needs one linear"
    ) as why:
        Learner(nn.Sequential(nn.Linear(5, 4), Residual(body), nn.Linear(4, 3)), ANALYTIC_DTP)
    assert "\n" not in str(why.value)
