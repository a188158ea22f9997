"""The second term in expectation is the mean of its samples."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from targetprop import DTP, PairedNetwork, Recipe
from targetprop.feedback.rules import l_drl_gradient, output_noise
from targetprop.feedback.updates import explain
from targetprop.measure import angle
from targetprop.models import simple_vgg
from targetprop.network.linear_feedback import LinearPart
from targetprop.network.network import Trace
from targetprop.network.pair import Pair

SIGMA = 0.3
SAMPLES = 2000
BLOCKS = {
    "strided": lambda act: [nn.Conv2d(2, 4, 3, stride=2, padding=1), act],
    "pooled": lambda act: [nn.Conv2d(2, 4, 3, padding=1), act, nn.MaxPool2d(2)],
    "wide": lambda act: [nn.Conv2d(2, 32, 3, padding=1), act],
    "grouped": lambda act: [nn.Conv2d(2, 4, (2, 3), dilation=2, groups=2), act],
    "linear": lambda act: [nn.Flatten(), nn.Linear(72, 5), act],
}
ACTIVATIONS = {"ELU": nn.ELU, "Tanh": nn.Tanh, "ReLU": nn.ReLU, "GELU": nn.GELU, "Identity": nn.Identity}


def paired(shape: str, activation: str) -> tuple[Pair, LinearPart, Trace]:
    torch.manual_seed(2)
    block = nn.Sequential(*BLOCKS[shape](ACTIVATIONS[activation]()))
    pair = PairedNetwork.of(nn.Sequential(nn.Conv2d(2, 2, 1), block).double()).pairs[1]
    assert isinstance(pair.linear, LinearPart)
    trace = PairedNetwork([pair]).trace(torch.randn(4, 2, 6, 6, dtype=torch.float64))[0].detach()
    return pair, pair.linear, trace


def sampled_second_term(part: LinearPart, trace: Trace) -> Tensor:
    """Half the gradient of ||V D2||^2 for each of many draws, (SAMPLES, *weight)."""
    clean = part.features(trace.y, trace.context)
    gradients = []
    for _ in range(SAMPLES):
        response = part.features(trace.y + SIGMA * torch.randn_like(trace.y), trace.context) - clean
        gradients.append(part.correlate(part.feed_back(response, trace.context), response, trace.context))
    return torch.stack(gradients)


@pytest.mark.parametrize("shape", ["strided", "pooled", "grouped", "linear"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@torch.no_grad()
def test_expectation_is_the_mean_of_many_samples_within_its_standard_error(shape: str, activation: str) -> None:
    _, part, trace = paired(shape, activation)
    samples = sampled_second_term(part, trace)
    expected, power = output_noise(part, trace, SIGMA, diagonal=False).gradient(part, trace)
    error = samples.mean(0) - expected
    standard_error = samples.std(0) / SAMPLES**0.5
    # Of a few dozen entries none should lie beyond 4.5 standard errors, and on average they lie near one.
    assert float((error / standard_error).abs().max()) < 4.5
    assert float((error / standard_error).square().mean()) < 2
    weight = part.map.map.weight
    means = (samples * weight).flatten(1).sum(1)
    assert float((means.mean() - power).abs()) < 4 * float(means.std()) / SAMPLES**0.5


@pytest.mark.parametrize(("activation", "bound"), [("ELU", 8), ("Tanh", 8), ("Identity", 1e-3)])
@torch.no_grad()
def test_the_diagonal_form_neglects_little_where_it_is_used(
    activation: str, bound: float, record_property: pytest.RecordProperty
) -> None:
    _, part, trace = paired("pooled", activation)
    whole, _ = output_noise(part, trace, SIGMA, diagonal=False).gradient(part, trace)
    diagonal, _ = output_noise(part, trace, SIGMA, diagonal=True).gradient(part, trace)
    neglected = float(angle(whole, diagonal))
    record_property(f"degrees neglected for {activation}", neglected)
    assert neglected < bound


@torch.no_grad()
def test_the_diagonal_form_would_neglect_much_for_relu() -> None:
    _, part, trace = paired("wide", "ReLU")
    whole, _ = output_noise(part, trace, SIGMA, diagonal=False).gradient(part, trace)
    diagonal, _ = output_noise(part, trace, SIGMA, diagonal=True).gradient(part, trace)
    assert float(angle(whole, diagonal)) > 15


@torch.no_grad()
def test_gradient_in_expectation_is_the_mean_of_sampled_gradients_and_needs_no_output_noise() -> None:
    pair, part, trace = paired("pooled", "ELU")
    clean = part.features(trace.y, trace.context)
    eps = SIGMA * torch.randn_like(trace.x)
    kinds = []

    def draw(kind: str, like: Tensor) -> Tensor:
        kinds.append(kind)
        return eps if kind == "input" else SIGMA * torch.randn_like(like)

    sampled = [l_drl_gradient(pair, part, trace, clean, draw) for _ in range(SAMPLES)]
    kinds.clear()
    moments = output_noise(part, trace, SIGMA, diagonal=False)
    gradient, loss = l_drl_gradient(pair, part, trace, clean, draw, moments)
    assert kinds == ["input"]
    gradients = torch.stack([g for g, _ in sampled])
    spread = gradients.std(0) / SAMPLES**0.5
    assert float(((gradients.mean(0) - gradient) / spread).abs().max()) < 4.5
    losses = torch.stack([value for _, value in sampled])
    assert float((losses.mean() - loss).abs()) < 4 * float(losses.std()) / SAMPLES**0.5


def test_explain_says_where_the_expectation_is_taken() -> None:
    network = PairedNetwork.of(
        nn.Sequential(
            nn.Linear(4, 4),
            nn.Sequential(nn.Linear(4, 16), nn.ELU()),
            nn.Sequential(nn.Linear(16, 16), nn.ReLU()),
            nn.Sequential(nn.Unflatten(1, (1, 4, 4)), nn.Conv2d(1, 2, 3), nn.ELU(), nn.AvgPool2d(2)),
        )
    )
    lines = explain(network, Recipe(feedback="expected"))
    assert "in expectation, diagonal" in lines[1]
    assert "in expectation, with its mean" in lines[2]
    assert "second term sampled" in lines[3]
    assert explain(network, DTP)[1].endswith("closed form")


def test_every_block_of_the_published_network_takes_the_diagonal_form() -> None:
    network = PairedNetwork.of(simple_vgg((3, 32, 32), 10, (2, 2, 2)))
    assert all(line.endswith("diagonal") for line in explain(network, Recipe(feedback="expected"))[1:])
