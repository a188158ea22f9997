"""What the feedback of amortised DTP tracks is the minimiser of L-DRL. The whole table is docs/tracking.md."""

from __future__ import annotations

from math import cos, radians

import pytest
import torch
from noise_helpers import Drawn
from torch import Tensor

from cases import random_batch
from minimiser import Minimiser, OutputNoise, Twin, as_rows, left_side, product_gain, right_sides
from targetprop import PairedNetwork, Trace
from targetprop.feedback.losses import l_drl
from tracking import GOALS, Case, Style, compare, scaled, settle

VGG, AVERAGE = (Case("vgg", "elu", pool, seed=1, epochs=0) for pool in ("max", "average"))
MLP = Case("mlp", "elu", "none", seed=1, epochs=0)
SIGMA, PARTS, CPU = 0.05, 10, torch.device("cpu")


def within_sampling_error(difference: Tensor, estimates: Tensor, allowed: float = 0.0) -> bool:
    """Whether the power of a difference to the mean of independent estimates is what their noise makes, and `allowed`.

    The noise of the mean has the power sum(v), v being the variances of its elements, give or take sqrt(2 sum(v^2));
    that of the estimate of it adds a share of 1 / (parts - 1) to the square. Four such deviations are let pass.
    """
    parts = len(estimates)
    variance = estimates.var(0) / parts
    deviation = (2 * variance.square().sum() * (1 + 1 / (parts - 1))).sqrt()
    return bool(difference.square().sum() - variance.sum() <= allowed + 4 * deviation)


@pytest.mark.parametrize("style", ["matched", "gained"])
@pytest.mark.parametrize("case", [VGG, AVERAGE, MLP], ids=["max", "average", "mlp"])
def test_feedback_tracks_the_minimiser(case: Case, style: Style) -> None:
    """Within 3 degrees and 5 % of the norm, at small noise that leaves the maxima of pooling in their places."""
    settled = settle(case.build(), style, *random_batch(16, CPU), 10)
    generator = torch.Generator().manual_seed(0)
    for block, pair in settled.learner.network.fed.items():
        trace = settled.seen.trace(block)
        twin = Twin.of(pair)
        right, _ = right_sides({0: (twin, "held", SIGMA)}, trace, 2000, PARTS, generator)
        with torch.no_grad():
            found = Minimiser.of(left_side(twin.part, OutputNoise.on(twin, trace, SIGMA), trace.y), right[0])
            tracked = found.seen @ as_rows(scaled(twin.part.map.transposed, product_gain(pair, trace)))
        mean = found.estimates.mean(0)
        near = (GOALS["norm"] / 100) ** 2 + 2 * (1 + GOALS["norm"] / 100) * (1 - cos(radians(GOALS["angle"])))
        assert within_sampling_error(tracked - mean, found.estimates, near * float(tracked.square().sum()))
        assert not within_sampling_error(1.5 * tracked - mean, found.estimates)  # the draws are enough to tell


@pytest.mark.parametrize(("case", "style"), [(VGG, "gained"), (VGG, "matched"), (AVERAGE, "gained"), (MLP, "gained")])
def test_left_side_is_that_of_draws(case: Case, style: Style) -> None:
    settled = settle(case.build(), style, *random_batch(8, CPU), 1)
    generator = torch.Generator().manual_seed(0)
    block, sigma = 2, 0.4
    trace, twin = settled.seen.trace(block), Twin.of(settled.learner.network.pairs[block])

    def drawn() -> Tensor:
        eta = sigma * torch.randn(trace.y.shape, generator=generator, dtype=torch.float64)
        seen = twin.part.map.forward_map.patches(twin.carry(eta, trace.context))[0]
        return seen.mT @ seen / len(eta)

    with torch.no_grad():
        left = left_side(twin.part, OutputNoise.on(twin, trace, sigma), trace.y)
        estimates = torch.stack([drawn() for _ in range(100)])
    assert within_sampling_error(left - estimates.mean(0), estimates)
    assert not within_sampling_error(1.2 * left - estimates.mean(0), estimates)


def test_gradient_of_the_loss_is_that_of_the_normal_equations() -> None:
    """Of L-DRL by autograd in the published style, which decodes with the noisy pass's own maxima."""
    sigma, (x, _) = 0.3, random_batch(16, CPU)
    model = VGG.build().double()
    network, gained = PairedNetwork.of(model, "published"), PairedNetwork.of(model, "gained")
    trace, twin = network.trace(x.double())[1].detach(), Twin.of(gained.pairs[1])
    twin.part.map.load_state_dict(network.pairs[1].maps[0].map.state_dict())
    generator = torch.Generator().manual_seed(0)
    right, _ = right_sides({0: (twin, "own", sigma)}, trace, 4000, PARTS, generator)
    with torch.no_grad():
        left = left_side(twin.part, OutputNoise.on(twin, trace, sigma), trace.y)
        rows = torch.stack([as_rows(each) for each in right[0]])
        expected = 2 * (left @ as_rows(twin.part.map.transposed) - rows)
    gradients = torch.stack([as_rows(gradient(network, trace, sigma, generator)) for _ in range(100)])
    difference = gradients.mean(0) - expected.mean(0)
    paired = torch.stack([each.mean(0) for each in gradients.chunk(PARTS)]) - expected
    assert within_sampling_error(difference, paired)


def gradient(network: PairedNetwork, trace: Trace, sigma: float, generator: torch.Generator) -> Tensor:
    weight = network.pairs[1].feedback_parameters()[0]
    draw = Drawn(lambda kind, like: sigma * torch.randn(like.shape, generator=generator, dtype=like.dtype), sigma)
    return torch.autograd.grad(l_drl(network.pairs[1], trace, draw), weight)[0]


def test_noise_of_the_estimates_is_taken_off() -> None:
    generator = torch.Generator().manual_seed(0)
    truth = torch.randn(100, 40, generator=generator, dtype=torch.float64)
    noisy = truth + torch.randn(10, 100, 40, generator=generator, dtype=torch.float64)
    measured = compare(1.1 * truth, noisy)
    assert measured["error"] == pytest.approx(17.5, abs=1)  # arctan of 1 / sqrt(10)
    assert measured["angle"] < 3
    assert measured["norm"] == pytest.approx(10, abs=2)  # a deviation of it is 1.1 / sqrt(10 * 4000)
