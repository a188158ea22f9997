"""What is target propagation here and what is backprop with other weights: the identity, and the number that tells."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from targetprop import (
    ALGORITHMS,
    AMORTISED_DTP,
    DELTA_MIRROR,
    DTP,
    FEEDBACK_ALIGNMENT,
    KOLEN_POLLACK,
    WEIGHT_MIRROR,
    Algorithm,
    Learner,
    Residual,
)
from targetprop.feedback.sign_symmetry import SignSymmetry
from targetprop.layers.linear import Dense
from targetprop.layers.maps import MapFeedback
from targetprop.layers.sequence import FeedbackChain
from targetprop.measure import block_gradients, nonlinearity
from targetprop.models import lenet, mlp, norm_vgg, simple_vgg

IMAGE, CLASSES = (3, 16, 16), 5
MIRRORS = {"delta_mirror": DELTA_MIRROR, "weight_mirror": WEIGHT_MIRROR, "kolen_pollack": KOLEN_POLLACK}
MIRRORS |= {"feedback_alignment": FEEDBACK_ALIGNMENT}
MIRRORS |= {name: each for name, each in ALGORITHMS.items() if isinstance(each.feedback, SignSymmetry)}
NETWORKS: dict[str, Callable[[], nn.Sequential]] = {
    "vgg elu": lambda: simple_vgg(IMAGE, CLASSES, (6, 8, 8), "elu"),
    "vgg relu": lambda: simple_vgg(IMAGE, CLASSES, (6, 8, 8), "relu"),
    "lenet tanh": lambda: lenet(IMAGE, CLASSES, (4, 6), 20, "tanh"),
    "norm gelu": lambda: norm_vgg(IMAGE, CLASSES, (6, 8, 8)),
    "mlp": lambda: mlp(IMAGE, CLASSES, (30, 20), "tanh"),
}


class ThroughV(nn.Module):
    """A layer with weights whose errors go down through V in place of W^T."""

    def __init__(self, layer: nn.Conv2d | nn.Linear, transposed: Tensor) -> None:
        super().__init__()
        self.layer, self.transposed = layer, transposed

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x.detach())
        if isinstance(self.layer, nn.Linear):
            instead = F.linear(x, self.transposed)
        else:
            stride, padding = self.layer.stride, self.layer.padding
            instead = F.conv2d(x, self.transposed, None, stride, cast(tuple[int, ...], padding))
        return y + instead - instead.detach()


def backprop_through(learner: Learner, x: Tensor, y: Tensor) -> list[Tensor]:
    """Gradients of backprop on the learner's network, with its feedback weights in place of the transposed ones."""
    layers: list[nn.Module] = []
    for pair in learner.network.pairs:
        children = list(pair.block.children())
        parts = [None] * len(children) if pair.feedback is None else list(cast(FeedbackChain, pair.feedback))
        for layer, part in zip(children, parts, strict=True):
            if isinstance(part, MapFeedback) and isinstance(layer, (nn.Conv2d, nn.Linear)):
                layers.append(ThroughV(layer, part.transposed.detach().clone()))
            else:
                layers.append(layer)
    F.cross_entropy(nn.Sequential(*layers)(x), y).backward()
    gradients = [gradient.clone() for gradient in block_gradients(learner.network)]
    learner.network.zero_grad()
    return gradients


def with_random_feedback(network: nn.Sequential, algorithm: Algorithm) -> Learner:
    """A learner in float64 whose feedback weights are random and stay so."""
    learner = Learner(network, algorithm).double()
    for parameter in learner.network.feedback_parameters():
        nn.init.normal_(parameter, std=0.3).requires_grad_(False)
    return learner


def batch() -> tuple[Tensor, Tensor]:
    return torch.randn(24, *IMAGE).double(), torch.randint(CLASSES, (24,))


@pytest.mark.parametrize("beta", [0.7, 0.001])
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("mirror", MIRRORS)
def test_a_mirror_is_beta_times_backprop_through_its_feedback_weights_whatever_they_are(
    mirror: str, name: str, beta: float
) -> None:
    torch.manual_seed(3)
    learner = with_random_feedback(NETWORKS[name](), MIRRORS[mirror].with_numbers(beta=beta))
    x, y = batch()
    expected = backprop_through(learner, x, y)
    learner.backward(F.cross_entropy(learner(x), y))
    for update, gradient in zip(block_gradients(learner.network), expected, strict=True):
        assert float((update / beta - gradient).norm() / gradient.norm()) < 1e-13


@pytest.mark.parametrize("algorithm", [AMORTISED_DTP, AMORTISED_DTP.with_numbers(style="gained"), DTP])
def test_genuine_difference_target_propagation_is_not(algorithm: Algorithm) -> None:
    torch.manual_seed(3)
    learner = with_random_feedback(NETWORKS["vgg elu"](), algorithm)
    x, y = batch()
    expected = backprop_through(learner, x, y)
    learner.backward(F.cross_entropy(learner(x), y))
    updates = block_gradients(learner.network)
    for update, gradient in list(zip(updates, expected, strict=True))[:-2]:
        assert float((update / 0.7 - gradient).norm() / gradient.norm()) > 0.01


def numbers_of(learner: Learner, steps: int = 1) -> list[float]:
    for _ in range(steps):
        x, y = batch()
        learner.backward(F.cross_entropy(learner(x), y))
    before = {name: value.clone() for name, value in learner.network.state_dict().items()}
    found = nonlinearity(learner.network, learner.algorithm.targets, x, lambda output: F.cross_entropy(output, y))
    assert found is not None
    assert all(torch.equal(value, before[name]) for name, value in learner.network.state_dict().items())
    return [float(each) for each in found]


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("mirror", MIRRORS)
def test_the_number_of_a_mirror_is_zero(mirror: str, name: str) -> None:
    assert max(numbers_of(Learner(NETWORKS[name](), MIRRORS[mirror]).double())) < 1e-10


FROM_OUTPUT = ["ddtp_linear", "ddtp_control", "gauss_newton", "meulemans_dfa", "direct_feedback_alignment"]
"""Straight from the output by a matrix, or by each sample's Jacobian."""
LINEAR = ["itp", "analytic_dtp"]
"""Published as target propagation, but nothing in their feedback is evaluated at the target."""
WITHOUT = ["gait_prop", "drtp"]
"""Without the number: targets that are no function of the output's step size alone."""
GENUINE = [name for name in ALGORITHMS if name not in (*MIRRORS, *FROM_OUTPUT, *LINEAR, *WITHOUT)]


@pytest.mark.parametrize("name", FROM_OUTPUT)
def test_the_number_of_targets_by_a_matrix_from_the_output_is_zero(name: str) -> None:
    learner = Learner(NETWORKS["vgg elu"](), name, input_shape=IMAGE).double()
    assert max(numbers_of(learner)) < 1e-10


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("name", LINEAR)
def test_the_number_of_linear_feedback_is_zero(name: str, network: str) -> None:
    assert max(numbers_of(Learner(NETWORKS[network](), name).double())) < 1e-10


@pytest.mark.parametrize("name", GENUINE)
def test_the_number_of_target_propagation_is_not_zero_below_an_activation(name: str) -> None:
    torch.manual_seed(0)
    learner = Learner(simple_vgg((3, 32, 32), CLASSES, (8, 8, 16, 16), "elu"), name, input_shape=(3, 32, 32))
    learner = learner.double()
    x, y = torch.randn(24, 3, 32, 32).double(), torch.randint(CLASSES, (24,))
    learner.backward(F.cross_entropy(learner(x), y))
    numbers = nonlinearity(learner.network, learner.algorithm.targets, x, lambda output: F.cross_entropy(output, y))
    assert numbers is not None
    assert min(map(float, numbers[:-2])) > (0.001 if "lee_dtp" in name else 0.01)  # its targets start with less
    assert float(numbers[-1]) < 1e-10  # the output block's own difference, whatever its step size
    after_the_map = ALGORITHMS[name].feedback.style in ("lee", "range")
    if name not in ("tp", "ddtp_rhl") and not after_the_map:  # whose targets are more than a difference
        assert max(map(float, numbers[-2:])) < 1e-10  # no activation lies between these and the output


def test_targets_are_told_from_their_slopes_at_the_runs_own_beta() -> None:
    torch.manual_seed(0)
    x, y = batch()
    found = []
    for beta in (0.7, 0.07):
        learner = Learner(NETWORKS["vgg elu"](), AMORTISED_DTP.with_numbers(beta=beta)).double()
        torch.manual_seed(0)
        numbers = nonlinearity(learner.network, learner.algorithm.targets, x, lambda output: F.cross_entropy(output, y))
        assert numbers is not None
        found.append(float(numbers[0]))
    assert found[0] == pytest.approx(10 * found[1], rel=0.5)


@pytest.mark.parametrize("style", ["matched", "gained"])
def test_activations_without_a_matched_function_are_evaluated_at_targets_all_the_same(style: str) -> None:
    """No mirror takes their place."""
    algorithm = AMORTISED_DTP.with_numbers(style=style)
    for activation in ("relu", "gelu", "silu"):
        network = mlp(IMAGE, CLASSES, (30, 20, 10), activation)
        assert min(numbers_of(Learner(network, algorithm).double())[:-2]) > 0.01
    body = nn.Sequential(nn.Linear(12, 12), nn.PReLU(), nn.Linear(12, 12))
    residual = nn.Sequential(nn.Flatten(), nn.Linear(768, 12), nn.Tanh(), Residual(body), nn.PReLU(), nn.Linear(12, 5))
    assert min(numbers_of(Learner(residual, algorithm).double())[:-2]) > 0.01


def test_measuring_responses_and_reading_weights_give_the_same_feedback() -> None:
    """With the same noise: budgets so large that both get the most, and a fixed plan."""
    numbers = {"budget": 1e3, "adaptive": False}
    for base in (AMORTISED_DTP, DELTA_MIRROR):
        weights = []
        for reads in (False, True):
            torch.manual_seed(5)
            network = NETWORKS["vgg elu"]()
            learner = Learner(network, base.with_numbers(reads_weights=reads, **numbers), seed=7).double()
            for step in range(4):
                torch.manual_seed(step)
                x, y = batch()
                learner.backward(F.cross_entropy(learner(x), y))
                with torch.no_grad():
                    for parameter in learner.network.forward_parameters():
                        parameter.sub_(cast(Tensor, parameter.grad), alpha=0.05)
                        parameter.grad = None
            weights.append([p.detach().clone() for p in learner.network.feedback_parameters() if p.dim() > 1])
        for measured, read in zip(*weights, strict=True):
            assert float((measured - read).norm() / read.norm()) < 1e-13


def test_who_measures_computes_no_difference_of_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """W - V^T never comes up; what comes up of W is its product with the noise."""
    products: list[Tensor] = []
    matrix = Dense.matrix

    def recorded(self: Dense, weight: Tensor) -> Tensor:
        products.append(weight)
        return matrix(self, weight)

    monkeypatch.setattr(Dense, "matrix", recorded)
    for reads in (False, True):
        learner = Learner(NETWORKS["mlp"](), AMORTISED_DTP.with_numbers(reads_weights=reads))
        products.clear()
        learner.backward(F.cross_entropy(learner(torch.randn(8, *IMAGE)), torch.randint(CLASSES, (8,))))
        whole = {p.data_ptr() for p in learner.network.parameters()}
        assert products
        assert all(weight.data_ptr() in whole for weight in products) == (not reads)
