"""torch.compile beside a learner: training is never compiled, so weights are the same; what hides layers is refused."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from loop_cases import Branched, learner_of, weights
from torch import Tensor, nn

from targetprop import Learner, UserError, hooked

BACKEND = "aot_eager"
"""The whole compiler but for making machine code, which needs a compiler of C++."""


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def sequential() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ELU(), nn.MaxPool2d(2), nn.Dropout(0.2),
        nn.Conv2d(6, 6, 3), nn.ELU(), nn.Flatten(), nn.Linear(6, 10),
    )  # fmt: skip


def in_place(learner: Learner, network: nn.Module) -> Learner:
    learner.compile(backend=BACKEND)
    return learner


def network_in_place(learner: Learner, network: nn.Module) -> Learner:
    network.compile(backend=BACKEND)
    return learner


def layers_in_place(learner: Learner, network: nn.Module) -> Learner:
    for each in network.children():
        each.compile(backend=BACKEND)
    return learner


WAYS: dict[str, Callable[[Learner, nn.Module], Any]] = {
    "nothing": lambda learner, network: learner,
    "the learner": lambda learner, network: torch.compile(learner, backend=BACKEND),
    "the learner in place": in_place,
    "the network in place": network_in_place,
    "its layers in place": layers_in_place,
}


def trained(base: nn.Module, way: str, *, hook: bool = False, whole: bool = False) -> tuple[Tensor, Tensor]:
    """Weights after two steps, and the output in evaluation."""
    torch.manual_seed(1)
    learner = learner_of(base, "amortised_dtp")
    if hook:
        hooked(learner)
    network = learner.network.owners[0]
    model, optimizer = WAYS[way](learner, network), torch.optim.SGD(learner.parameters(), lr=0.05)

    def step(x: Tensor, y: Tensor) -> None:
        loss = F.cross_entropy(model(x), y)
        if hook:
            loss.backward()
        else:
            learner.backward(loss)

    run: Any = torch.compile(step, backend=BACKEND) if whole else step
    for number in range(2):
        torch.manual_seed(number)
        optimizer.zero_grad()
        run(torch.randn(8, 3, 6, 6), torch.randint(10, (8,)))
        optimizer.step()
    learner.eval()
    with torch.no_grad():
        return weights(learner), model(torch.randn(8, 3, 6, 6))


@pytest.mark.parametrize("way", list(WAYS)[1:])
@pytest.mark.parametrize("make", [sequential, Branched])
def test_every_weight_is_that_of_the_loop_that_is_not_compiled(make: Callable[[], nn.Module], way: str) -> None:
    base = make()
    (made, output), (expected, reference) = trained(base, way), trained(base, "nothing")
    assert torch.equal(made, expected)
    torch.testing.assert_close(output, reference)


@pytest.mark.parametrize("hook", [False, True])
def test_a_step_that_is_compiled_as_a_function_is_the_same_step(hook: bool) -> None:
    base = Branched()
    made, _ = trained(base, "the learner", hook=hook, whole=True)
    assert torch.equal(made, trained(base, "nothing")[0])


def compiled(module: nn.Module) -> Any:
    return torch.compile(module, backend=BACKEND)


def a_layer(network: nn.Module) -> nn.Module:
    first, *_ = dict(network.named_children())
    setattr(network, first, compiled(getattr(network, first)))
    return network


def a_forward(network: nn.Module) -> nn.Module:
    network.forward = torch.compile(network.forward, backend=BACKEND)
    return network


HIDDEN: dict[str, Callable[[nn.Module], Any]] = {
    "a compiled one: the learner": compiled,
    "a compiled one as its layer": a_layer,
    "a compiled one: ": a_forward,
    "a compiled one as its layer '0'": lambda network: [compiled(network), nn.Linear(10, 10)],
}


@pytest.mark.parametrize("said", HIDDEN)
@pytest.mark.parametrize("make", [sequential, Branched])
def test_what_hides_its_layers_is_refused_with_its_place(make: Callable[[], nn.Module], said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        Learner(HIDDEN[said](copy.deepcopy(make())), "amortised_dtp")
    assert "as it was before" in str(caught.value)
    assert "\n" not in str(caught.value)
