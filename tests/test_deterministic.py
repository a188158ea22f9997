"""Under torch's deterministic algorithms a step gives, on a CPU, the very gradients that it gives without."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
import torch.nn.functional as F
from algorithm_cases import GENERAL
from layer_cases import ALL, EXACT, Case, name_of, network, sample
from torch import Tensor, nn

from targetprop import ALGORITHMS, Learner
from targetprop.models import lenet, resnet, simple_vgg

NETWORKS: dict[str, Callable[[], nn.Sequential]] = {
    "pooling": lambda: simple_vgg((3, 8, 8), 4, (4, 5)),
    "overlapping pooling": lambda: lenet((3, 8, 8), 4, (4, 5), 6),
    "residual blocks": lambda: resnet((3, 8, 8), 4, (4, 6), (1, 1)),
    "pooling of sequences": lambda: nn.Sequential(
        nn.Flatten(2), nn.Conv1d(3, 4, 3), nn.ELU(), nn.MaxPool1d(2), nn.Flatten(), nn.Linear(124, 4)
    ),
}


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    yield
    torch.use_deterministic_algorithms(False)


def gradients(network: str, name: str, deterministic: bool) -> list[Tensor]:
    torch.use_deterministic_algorithms(deterministic)
    torch.manual_seed(0)
    algorithm = ALGORITHMS[name]
    if "feedback_training_iterations" in algorithm.numbers:
        algorithm = algorithm.with_numbers(feedback_training_iterations=2)
    learner = Learner(NETWORKS[network](), algorithm, seed=1, input_shape=(3, 8, 8))
    x, y = torch.randn(4, 3, 8, 8), torch.randint(0, 4, (4,))
    learner.backward(F.cross_entropy(learner(x), y), labels=y)
    return [p.grad for p in learner.network.forward_parameters() if p.grad is not None]


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("name", GENERAL)
def test_the_same_gradients(name: str, network: str) -> None:
    if (name, network) == ("analytic_dtp", "residual blocks"):
        pytest.skip("its closed form is one of a single linear map")
    plain, deterministic = (gradients(network, name, mode) for mode in (False, True))
    assert plain
    for one, other in zip(plain, deterministic, strict=True):
        assert torch.equal(one, other)


def layer_gradients(case: Case, name: str, deterministic: bool) -> list[Tensor]:
    torch.use_deterministic_algorithms(deterministic)
    torch.manual_seed(0)
    make, shape = case
    layer = make()
    algorithm = EXACT if name == "exact" else ALGORITHMS[name]
    if "feedback_training_iterations" in algorithm.numbers:
        algorithm = algorithm.with_numbers(feedback_training_iterations=2)
    learner = Learner(network(layer.float(), shape).float(), algorithm, seed=1)
    learner.backward(F.cross_entropy(learner(sample(shape).float()), torch.arange(5) % 3))
    return [p.grad for p in learner.network.forward_parameters() if p.grad is not None]


@pytest.mark.parametrize("case", ALL, ids=name_of)
@pytest.mark.parametrize("name", ["exact", "dtp"])
def test_the_same_gradients_with_every_layer(name: str, case: Case) -> None:
    plain, deterministic = (layer_gradients(case, name, mode) for mode in (False, True))
    assert plain
    for one, other in zip(plain, deterministic, strict=True):
        assert torch.equal(one, other)
