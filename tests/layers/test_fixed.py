"""Layers with nothing to learn by an error."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from targetprop import DTP, Learner, PairedNetwork
from targetprop.layers.fixed import Scale, Whitening


def images(count: int = 40) -> Tensor:
    """Neighbouring pixels are alike, and so are channels."""
    noise = torch.randn(count, 3, 11, 12)
    return F.avg_pool2d(noise, 2, stride=1) + 0.5 * noise[:, :1, 1:, 1:]


def test_whitened_patches_are_uncorrelated_and_of_unit_variance() -> None:
    whitening, x = Whitening(3, 2, epsilon=0.0), images()
    whitening.fit(x)
    y = whitening(x)
    features = y.movedim(1, 0).flatten(1).double()
    assert y.shape == (40, 24, 9, 10)
    assert torch.equal(features[12:], -features[:12])
    torch.testing.assert_close(torch.cov(features[:12]), torch.eye(12).double(), atol=1e-4, rtol=0)


def test_whitening_begins_with_the_strongest_component_and_small_ones_stay_small() -> None:
    whitening, x = Whitening(3, 2, epsilon=1.0), images()
    whitening.fit(x)
    spread = whitening(x).movedim(1, 0).flatten(1)[:12].std(1)
    assert (spread.diff() < 0).all()
    assert spread[-1] < 0.5 < spread[0] < 1


def test_whitening_depends_on_the_images_alone() -> None:
    x = images()
    one, other = Whitening(3, 2), Whitening(3, 2)
    assert not torch.equal(one.weight, other.weight)
    for each in (one, other):
        each.fit(x)
    assert torch.equal(one.weight, other.weight)
    kernels = one.weight[:12].flatten(1)
    assert (kernels.gather(1, kernels.abs().argmax(1, keepdim=True)) > 0).all()


def test_whitening_is_kept_with_the_weights_and_trained_by_nobody() -> None:
    whitening = Whitening(3, 2)
    network = PairedNetwork.of(nn.Sequential(whitening, nn.ELU(), nn.Conv2d(24, 4, 3), nn.Flatten(), nn.Linear(224, 2)))
    assert [len(list(pair.block)) for pair in network.pairs] == [3, 2]  # type: ignore[call-overload]
    assert network.pairs[0].chain is not None, "the gradients of the block that begins with it are known"
    assert not any(each.shape == whitening.weight.shape for each in network.parameters())
    assert any(each.shape == whitening.weight.shape for each in network.state_dict().values())


def test_a_scale_divides_the_logits_and_the_errors_that_come_down() -> None:
    linear = nn.Linear(4, 3)
    net = nn.Sequential(nn.Linear(5, 4), nn.ELU(), linear, Scale(0.25)).double()
    x, y = torch.randn(6, 5).double(), torch.arange(6) % 3
    learner = Learner(net, DTP)
    output = learner(x)
    torch.testing.assert_close(output, 0.25 * linear(net[1](net[0](x))))
    learner.backward(F.cross_entropy(output, y))
    assert learner.update_scale is not None
    (expected,) = torch.autograd.grad(learner.update_scale * F.cross_entropy(net(x), y), [linear.weight])
    torch.testing.assert_close(linear.weight.grad, expected)
