"""Backprop with other weights in place of W^T, beside its equations written down in plain torch, over several steps."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from dense_helpers import random_batches, tanh_network
from torch import Tensor, nn

from targetprop import (
    BATCHWISE_SIGN_SYMMETRY,
    FEEDBACK_ALIGNMENT,
    FIXED_SIGN_SYMMETRY,
    KOLEN_POLLACK,
    UNIFORM_SIGN_SYMMETRY,
    Algorithm,
    LayerRule,
    Learner,
    UserError,
    explain,
)
from targetprop.layers.base import FeedbackLayer, Style, register
from targetprop.noise import GaussianNoise, NoiseKey

SIZES, STEPS, RATE, DECAY, SEED = (6, 8, 7, 4), 5, 0.3, 0.1, 4
SIGN_SYMMETRIES = [UNIFORM_SIGN_SYMMETRY, BATCHWISE_SIGN_SYMMETRY, FIXED_SIGN_SYMMETRY]


def network() -> nn.Sequential:
    return tanh_network(SIZES)


def batches() -> list[tuple[Tensor, Tensor]]:
    return random_batches(SIZES, STEPS, samples=9)


def learner_of(algorithm: Algorithm, **numbers: object) -> Learner:
    torch.manual_seed(2)
    return Learner(network(), algorithm.with_numbers(divide_by_beta=True, **numbers), seed=SEED).double()


def feedback_weights(learner: Learner) -> list[Tensor]:
    """V^T of every block but the first, in the shape of its W; views."""
    return [pair.maps[0].map.transposed.detach() for pair in learner.network.trained]


def errors(weights: list[Tensor], biases: list[Tensor], transposed: list[Tensor], x: Tensor, y: Tensor) -> list[Tensor]:
    """The gradients of the mean cross-entropy, of W and b in turn, with V in place of W^T: f' comes after V."""
    h = [x]
    for number, (w, b) in enumerate(zip(weights, biases, strict=True)):
        a = h[-1] @ w.T + b
        h.append(a if number == len(weights) - 1 else a.tanh())
    delta = (h[-1].softmax(1) - F.one_hot(y, SIZES[-1])) / len(x)
    found: list[Tensor] = []
    for number in range(len(weights) - 1, -1, -1):
        found = [delta.T @ h[number], delta.sum(0), *found]
        if number:
            delta = (delta @ transposed[number - 1]) * (1 - h[number] ** 2)
    return found


def compare(
    algorithm: Algorithm,
    before: Callable[[int, list[Tensor], list[Tensor]], None] = lambda *_: None,
    after: Callable[[list[Tensor], list[Tensor]], None] = lambda *_: None,
    decay: float = 0.0,
) -> None:
    """Train by both, and compare all weights after every step.

    Args:
        before: sets V^T from (step, W of the blocks with feedback, V^T), at the start of a step.
        after: changes V^T by (V^T, gradients of W of those blocks), at its end.
    """
    learner = learner_of(algorithm)
    optimizer = torch.optim.SGD(learner.optimizer_parameters(), lr=RATE, weight_decay=decay)
    own = [p.detach().clone() for p in learner.network.forward_parameters()]
    weights, biases = own[::2], own[1::2]
    transposed = [each.clone() for each in feedback_weights(learner)]
    for step, (x, y) in enumerate(batches()):
        learner.backward(F.cross_entropy(learner(x), y))
        optimizer.step()
        optimizer.zero_grad()
        before(step, weights[1:], transposed)
        gradients = errors(weights, biases, transposed, x, y)
        for each, gradient in zip(own, gradients, strict=True):
            each.mul_(1 - RATE * decay).sub_(RATE * gradient)
        after(transposed, gradients[2::2])
        pairs = [*zip(learner.network.forward_parameters(), own, strict=True)]
        for mine, expected in [*pairs, *zip(feedback_weights(learner), transposed, strict=True)]:
            torch.testing.assert_close(mine.detach(), expected, rtol=1e-9, atol=1e-11)
    assert all(float((p - q.detach()).abs().max()) > 1e-3 for p, q in zip(own, network().parameters(), strict=True))


def test_feedback_alignment() -> None:
    compare(FEEDBACK_ALIGNMENT)


def test_kolen_pollack() -> None:
    """W <- r W - rate dW and V^T <- r V^T - rate dW, with the same r = 1 - rate decay."""

    def follow(transposed: list[Tensor], gradients: list[Tensor]) -> None:
        for v, gradient in zip(transposed, gradients, strict=True):
            v.mul_(1 - RATE * DECAY).sub_(RATE * gradient)

    compare(KOLEN_POLLACK, after=follow, decay=DECAY)


@pytest.mark.parametrize("decay", [0.0, DECAY])
def test_what_kolen_pollack_leaves_of_the_difference_is_exactly_r_of_it_in_every_step(decay: float) -> None:
    """Also r = 1, of the authors' script: nothing aligns."""
    learner = learner_of(KOLEN_POLLACK)
    optimizer = torch.optim.SGD(learner.optimizer_parameters(), lr=RATE, weight_decay=decay)
    for x, y in batches():
        before = [w - v for pair in learner.network.trained for w, v in pair.weights()]
        learner.backward(F.cross_entropy(learner(x), y))
        optimizer.step()
        optimizer.zero_grad()
        after = [w - v for pair in learner.network.trained for w, v in pair.weights()]
        for now, then in zip(after, before, strict=True):
            torch.testing.assert_close(now, (1 - RATE * decay) * then, rtol=1e-12, atol=1e-14)


def xavier(weight: Tensor) -> float:
    return float((2 / sum(weight.shape)) ** 0.5)


def test_uniform_sign_symmetry() -> None:
    def follow(step: int, weights: list[Tensor], transposed: list[Tensor]) -> None:
        for v, w in zip(transposed, weights, strict=True):
            v.copy_(xavier(w) * w.sign())

    compare(UNIFORM_SIGN_SYMMETRY, before=follow)


def test_batchwise_sign_symmetry() -> None:
    noise = GaussianNoise(SEED)

    def follow(step: int, weights: list[Tensor], transposed: list[Tensor]) -> None:
        for block, (v, w) in enumerate(zip(transposed, weights, strict=True), start=1):
            drawn = noise(NoiseKey(step, block, 0, "magnitude"), w)
            v.copy_(xavier(w) * drawn.abs() * w.sign())

    compare(BATCHWISE_SIGN_SYMMETRY, before=follow)


def test_fixed_sign_symmetry() -> None:
    drawn = [buffer.clone() for buffer in learner_of(FIXED_SIGN_SYMMETRY).buffers()]
    assert [tuple(each.shape) for each in drawn] == [(7, 8), (4, 7)]

    def follow(step: int, weights: list[Tensor], transposed: list[Tensor]) -> None:
        for v, w, magnitude in zip(transposed, weights, drawn, strict=True):
            v.copy_(magnitude * w.sign())

    compare(FIXED_SIGN_SYMMETRY, before=follow)


@pytest.mark.parametrize("algorithm", SIGN_SYMMETRIES)
def test_signs_are_those_of_the_weights_as_they_are_and_zero_has_none(algorithm: Algorithm) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 40, 3), nn.ELU(), nn.Conv2d(40, 40, 3), nn.ELU(), nn.Flatten(), nn.Linear(640, 5)
    )
    learner = Learner(model, algorithm)
    x, y = torch.randn(4, 1, 8, 8), torch.randint(5, (4,))
    for _ in range(2):
        with torch.no_grad():
            for weight in (model[2].weight, model[5].weight):
                assert isinstance(weight, Tensor)
                weight.neg_()
                weight[0, 0] = 0
        learner.backward(F.cross_entropy(learner(x), y))
        for pair in learner.network.trained:
            ((w, v),) = pair.weights()
            assert torch.equal(v.sign(), w.sign())
            fans = w[0].numel() + w[:, 0].numel()
            assert float(v[w != 0].square().mean()) == pytest.approx(2 / fans, rel=0.1)
    assert {"weight signs"} == learner.needs.transports
    assert all("signs of the forward weights" in line for line in explain(learner)[1:])


def test_magnitudes_change_with_every_batch_only_where_they_are_drawn_for_it() -> None:
    for algorithm in SIGN_SYMMETRIES:
        learner, seen = learner_of(algorithm), []
        for x, y in batches()[:2]:
            learner.backward(F.cross_entropy(learner(x), y))
            seen.append([v.abs() for v in feedback_weights(learner)])
        same = [torch.equal(one, other) for one, other in zip(*seen, strict=True)]
        assert same == [algorithm is not BATCHWISE_SIGN_SYMMETRY] * 2


def test_magnitudes_that_are_drawn_once_are_part_of_the_state() -> None:
    models = network(), network()
    learner, other = (Learner(model, FIXED_SIGN_SYMMETRY) for model in models)
    assert not all(torch.equal(one, two) for one, two in zip(learner.buffers(), other.buffers(), strict=True))
    other.load_state_dict(learner.state_dict())
    assert all(torch.equal(one, two) for one, two in zip(learner.buffers(), other.buffers(), strict=True))


class Doubled(nn.Linear):
    """A layer of the user's own, whose feedback has a weight that is no matrix."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


class Scales(FeedbackLayer):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(5))

    def decode(self, y: Tensor, context: object) -> Tensor:
        return y * self.scale


@register(Doubled)
class DoubledRule(LayerRule[Doubled]):
    def feedback(self, layer: Doubled, style: Style) -> FeedbackLayer:
        return Scales()


def test_feedback_without_a_matrix_for_each_of_the_blocks_is_refused() -> None:
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), Doubled(5, 5), nn.Linear(5, 3))
    with pytest.raises(UserError, match=r"block 2 \(Doubled\): sign symmetry needs a weight matrix"):
        Learner(model, UNIFORM_SIGN_SYMMETRY)
