"""Direct feedback alignment and DRTP, beside their equations in plain torch, over several steps."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from dense_helpers import random_batches, tanh_network
from torch import Tensor, nn

from targetprop import Algorithm, Learner, UserError
from targetprop.algorithms.projections import DIRECT_FEEDBACK_ALIGNMENT, DRTP
from targetprop.measure import angle, block_gradients
from targetprop.models import simple_vgg

SIZES, STEPS, RATE = (6, 9, 8, 4), 5, 0.3


def network() -> nn.Sequential:
    return tanh_network(SIZES)


def batches() -> list[tuple[Tensor, Tensor]]:
    return random_batches(SIZES, STEPS, samples=7)


def projections(learner: Learner) -> list[Tensor]:
    """B of the hidden blocks, (units, classes)."""
    return [p.detach().clone() for p in learner.network.feedback_parameters()]


@pytest.mark.parametrize("algorithm", [DIRECT_FEEDBACK_ALIGNMENT, DRTP])
def test_every_weight_is_as_by_its_equations(algorithm: Algorithm) -> None:
    torch.manual_seed(2)
    learner = Learner(network(), algorithm)
    optimizer = torch.optim.SGD(learner.optimizer_parameters(), lr=RATE)
    own = [p.detach().clone() for p in learner.network.forward_parameters()]
    weights, biases, b = own[::2], own[1::2], projections(learner)
    assert [tuple(each.shape) for each in b] == [(9, 4), (8, 4)]
    for x, y in batches():
        learner.backward(F.cross_entropy(learner(x), y), labels=y)
        optimizer.step()
        optimizer.zero_grad()

        h1 = (x @ weights[0].T + biases[0]).tanh()
        h2 = (h1 @ weights[1].T + biases[1]).tanh()
        output = h2 @ weights[2].T + biases[2]
        wanted = F.one_hot(y, SIZES[-1]).double()
        error = output.softmax(1) - wanted
        told = error if algorithm is DIRECT_FEEDBACK_ALIGNMENT else wanted
        deltas = (told @ b[0].T) * (1 - h1**2), (told @ b[1].T) * (1 - h2**2), error
        for number, (delta, h) in enumerate(zip(deltas, (x, h1, h2), strict=True)):
            weights[number] -= RATE * delta.T @ h / len(x)
            biases[number] -= RATE * delta.mean(0)
        for mine, expected in zip(learner.network.forward_parameters(), own, strict=True):
            torch.testing.assert_close(mine.detach(), expected, rtol=1e-9, atol=1e-11)
    assert all(torch.equal(one, other) for one, other in zip(projections(learner), b, strict=True))


def test_hidden_blocks_of_drtp_know_the_labels_and_no_error() -> None:
    (x, y), *_ = batches()
    learner, found = Learner(network(), DRTP), []
    for factor in (1.0, 50.0):
        learner.zero_grad()
        learner.backward(factor * F.cross_entropy(learner(x), y), labels=y)
        found.append(block_gradients(learner.network))
    for one, other in list(zip(*found, strict=True))[:-1]:
        torch.testing.assert_close(one, other)
    torch.testing.assert_close(50 * found[0][-1], found[1][-1])


def test_direct_feedback_alignment_is_exactly_proportional_to_beta_and_not_to_anything_if_divided_by_it() -> None:
    (x, y), *_ = batches()
    found = []
    for numbers in ({}, {"beta": 0.01}, {"beta": 0.01, "divide_by_beta": True}):
        torch.manual_seed(2)
        learner = Learner(network(), DIRECT_FEEDBACK_ALIGNMENT.with_numbers(**numbers))
        learner.backward(F.cross_entropy(learner(x), y))
        found.append(block_gradients(learner.network))
    for one, small, divided in zip(*found, strict=True):
        torch.testing.assert_close(one, 100 * small)
        torch.testing.assert_close(one, divided)


def test_forward_weights_come_to_agree_with_the_fixed_feedback() -> None:
    """What the paper observes: its update turns to within 90 degrees of backprop's gradient."""
    torch.manual_seed(2)
    learner, reference = Learner(network(), DIRECT_FEEDBACK_ALIGNMENT), network()
    optimizer = torch.optim.SGD(learner.optimizer_parameters(), lr=0.2)
    torch.manual_seed(3)
    x = torch.randn(200, SIZES[0]).double()
    y = (x[:, :4] + x[:, 2:]).argmax(1)

    def angles() -> list[float]:
        learner.zero_grad()
        learner.backward(F.cross_entropy(learner(x), y))
        reference.load_state_dict(dict(zip(reference.state_dict(), learner.network.forward_parameters(), strict=True)))
        reference.zero_grad()
        F.cross_entropy(reference(x), y).backward()
        gradients = [p.grad.flatten() for p in reference.parameters() if p.grad is not None]
        expected = [torch.cat(gradients[n : n + 2]) for n in range(0, len(gradients), 2)]
        return [float(angle(*each)) for each in zip(block_gradients(learner.network), expected, strict=True)]

    before = angles()
    for _ in range(300):
        learner.zero_grad()
        learner.backward(F.cross_entropy(learner(x), y))
        optimizer.step()
    after = angles()
    assert all(now < 75 for now in after[:-1])
    assert sum(after) < sum(before) - 20
    assert after[-1] < 1e-5


def test_projections_of_drtp_are_uniform_in_what_is_published() -> None:
    torch.manual_seed(0)
    learner = Learner(nn.Sequential(nn.Linear(3, 600), nn.Tanh(), nn.Linear(600, 5)), DRTP)
    (b,) = projections(learner)
    bound = (6 / 600) ** 0.5
    assert float(b.abs().max()) <= bound
    assert float(b.abs().max()) > 0.99 * bound
    assert float(b.std()) == pytest.approx(bound / 3**0.5, rel=0.05)


@pytest.mark.parametrize("labels", [None, torch.zeros(7), torch.zeros(7, 4).long()])
def test_drtp_needs_labels(labels: Tensor | None) -> None:
    (x, y), *_ = batches()
    learner = Learner(network(), DRTP)
    with pytest.raises(UserError, match=r"^labels: this rule needs the labels"):
        learner.backward(F.cross_entropy(learner(x), y), labels=labels)


@pytest.mark.parametrize("algorithm", [DIRECT_FEEDBACK_ALIGNMENT, DRTP])
def test_convolutions_are_told_at_the_output_of_their_block(algorithm: Algorithm) -> None:
    torch.manual_seed(0)
    learner = Learner(simple_vgg((1, 8, 8), 4, (3, 5)), algorithm, input_shape=(1, 8, 8))
    x, y = torch.randn(6, 1, 8, 8), torch.randint(4, (6,))
    learner.backward(F.cross_entropy(learner(x), y), labels=y)
    assert [tuple(b.shape) for b in projections(learner)] == [(48, 4), (20, 4)]
    assert all(float(g.abs().max()) > 0 for g in block_gradients(learner.network))


def test_what_they_need() -> None:
    assert DIRECT_FEEDBACK_ALIGNMENT.needs.global_error
    assert not DIRECT_FEEDBACK_ALIGNMENT.needs.transports
    assert DRTP.needs.transports == {"labels"}
    assert not DRTP.needs.global_error
