"""Networks that other people defined train as they stand: their updates, and what they stay for their owners."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from foreign_networks import FOREIGN, made
from torch import Tensor, nn

from targetprop import (
    AMORTISED_DTP,
    DELTA_MIRROR,
    DTP,
    Algorithm,
    DifferenceTargets,
    Fixed,
    Learner,
    OptimizerSpec,
    PairedNetwork,
)
from targetprop.baselines.backprop import Backprop
from targetprop.layers.maps import MapFeedback
from targetprop.measure import nonlinearity
from targetprop.measure.alignment import feedback_angles

EXACT = Algorithm(DifferenceTargets(beta=0.5), Fixed(init_symmetric_weights=True, style="linear"))
"""Feedback that is the transposed Jacobian, made of V = W^T and of what the graph is."""
NAMES = list(FOREIGN)
LEARNING = ["ResNet-18", "MobileNetV3", "MLP-Mixer", "ViT", "BERT", "GPT", "LLaMA", "Highway", "GRU", "BiT"]


def loss_for(network: nn.Module, x: Tensor) -> Callable[[Tensor], Tensor]:
    """A random linear function of the output: errors of all units differ."""
    with torch.no_grad():
        shape = copy.deepcopy(network).eval()(x)
    weights = torch.randn_like(shape)
    return lambda output: (output * weights).flatten(1).sum(1).mean()


def gradients(network: nn.Module) -> dict[str, Tensor]:
    return {name: torch.zeros_like(p) if p.grad is None else p.grad.clone() for name, p in network.named_parameters()}


def backprop(owner: nn.Module, network: nn.Module, x: Tensor, loss: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    """Gradients of the owner's parameters by backprop through a network that holds them."""
    owner.zero_grad()
    torch.manual_seed(1)
    loss(network(x)).backward()
    found = gradients(owner)
    owner.zero_grad()
    return found


def update(owner: nn.Module, learner: Learner, x: Tensor, loss: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    """What a step adds to the gradients of the owner's parameters, without the factor of beta."""
    torch.manual_seed(1)
    learner.backward(loss(learner(x)))
    assert learner.update_scale is not None
    return {name: each / learner.update_scale for name, each in gradients(owner).items()}


def distance(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """Of all gradients together, relative to what is expected."""
    assert found.keys() == expected.keys()
    power = sum(float((found[name] - each).double().square().sum()) for name, each in expected.items())
    return float((power / sum(float(each.double().square().sum()) for each in expected.values())) ** 0.5)


@pytest.mark.parametrize("name", NAMES)
def test_with_forward_weights_every_update_is_that_of_backprop_in_the_owners_network(name: str) -> None:
    network, x = made(name, torch.float64)
    learner, loss = Learner(network, EXACT), loss_for(network, x)
    expected = backprop(network, network, x, loss)
    assert distance(update(network, learner, x, loss), expected) < 1e-12
    assert sum(bool(each.any()) for each in expected.values()) > 0.8 * len(expected)


@pytest.mark.parametrize("name", NAMES)
def test_it_is_in_float32_as_well(name: str) -> None:
    """Backprop goes through the same kernels here: in another memory order its own gradients differ by 1e-6."""
    network, x = made(name)
    learner, loss = Learner(network, EXACT), loss_for(network, x)
    expected = backprop(network, learner.network, x, loss)
    assert distance(update(network, learner, x, loss), expected) < 1e-6


@pytest.mark.parametrize("name", NAMES)
def test_a_network_stays_its_owners(name: str) -> None:
    """Same names, no copies: it is trained in place, loads what it has saved, and works alone, in either mode."""
    network, x = made(name)
    names, kinds = list(network.state_dict()), [type(each) for each in network.modules()]
    learner = Learner(network, EXACT)
    assert list(network.state_dict()) == names
    assert [type(each) for each in network.modules()] == kinds
    network(x).sum().backward()
    used = {id(p) for p in learner.network.forward_parameters()}
    assert used == {id(p) for p in network.parameters() if p.grad is not None}
    other, _ = made(name)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1.1)
    network.load_state_dict(other.state_dict())
    learner.eval()
    assert not any(each.training for each in network.modules())
    torch.testing.assert_close(learner(x), other.eval()(x), rtol=1e-4, atol=1e-5)
    learner.train()
    assert all(each.training for each in network.modules())


@pytest.mark.parametrize("name", LEARNING)
def test_each_map_learns_by_itself(name: str) -> None:
    """The first batch brings every one of them to the weights that it follows."""
    network, x = made(name)
    learner, loss = Learner(network, AMORTISED_DTP), loss_for(network, x)
    learner.backward(loss(learner(x)))
    pairs = learner.network.trained
    weights = sum(isinstance(each, MapFeedback) for pair in pairs for each in pair.modules())
    assert sum(len(pair.maps) for pair in pairs) == weights >= len(pairs)
    assert max(float(each) for pair in pairs for each in feedback_angles(pair)) < 1


@pytest.mark.parametrize("name", ["ResNet-18", "MLP-Mixer", "BERT", "GPT", "Highway"])
def test_what_is_target_propagation_and_what_is_not(name: str) -> None:
    """The number of each block below an activation, by genuine feedback and by a mirror."""
    network, x = made(name)
    loss = loss_for(network, x)
    genuine, mirror = (Learner(copy.deepcopy(network), each) for each in (AMORTISED_DTP, DELTA_MIRROR))
    numbers = []
    for learner in (genuine, mirror):
        learner.backward(loss(learner(x)))
        found = nonlinearity(learner.network, learner.algorithm.targets, x, loss)
        assert found is not None
        numbers.append([float(each) for each in found])
    assert min(numbers[0][:-2]) > 0.003
    assert max(numbers[1]) < 1e-10


@pytest.mark.parametrize("algorithm", [DTP, AMORTISED_DTP], ids=["dtp", "amortised_dtp"])
@pytest.mark.parametrize("name", LEARNING)
def test_copies_go_on_as_the_original(name: str, algorithm: Algorithm) -> None:
    if algorithm is DTP:
        algorithm = DTP.with_numbers(feedback_training_iterations=1, b_optim=OptimizerSpec(lr=1e-5))
    network, x = made(name)
    learner, loss = Learner(network, algorithm), loss_for(network, x)
    learner.backward(loss(learner(x)))
    others = [copy.deepcopy(learner), pickle.loads(pickle.dumps(learner))]
    steps = []
    for each in (learner, *others):
        torch.manual_seed(2)
        steps.append(each.backward(loss(each(x))))
    for step in steps[1:]:
        assert torch.equal(step.local_losses, steps[0].local_losses)
        assert torch.equal(step.feedback_losses, steps[0].feedback_losses)
    for other in others:
        mine, its = learner.network.forward_parameters(), other.network.forward_parameters()
        assert all(a is not b and torch.equal(a, b) for a, b in zip(mine, its, strict=True))


@pytest.mark.parametrize("name", ["ResNet-18", "ViT", "GPT"])
def test_backprop_trains_the_same_blocks(name: str) -> None:
    network, x = made(name, torch.float64)
    loss, baseline = loss_for(network, x), Backprop(network)
    expected = backprop(network, network, x, loss)
    torch.manual_seed(1)
    baseline.backward(loss(baseline(x)))
    assert distance(gradients(network), expected) < 1e-12
    assert len(baseline.network.pairs) == len(PairedNetwork.of(made(name)[0]).pairs)
