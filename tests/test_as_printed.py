"""The course notebook as printed; tests/test_golden.py holds it to recorded steps."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from targetprop import LEE_DTP, Learner, UserError
from targetprop.baselines.notebook import AsPrinted, negative_probability
from targetprop.models import mlp, simple_vgg


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return mlp((1, 4, 4), 3, (12, 10, 8))


def batch(step: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(step)
    y = torch.randint(3, (32,), generator=generator)
    x = torch.randn(32, 1, 4, 4, generator=generator)
    x[:, 0, 0, :3] += 3 * nn.functional.one_hot(y, 3)
    return x, y


def train(learner: Learner | AsPrinted, steps: int) -> list[float]:
    optimizer = torch.optim.RMSprop(learner.optimizer_parameters(), lr=0.01)
    losses = []
    for step in range(steps):
        x, y = batch(step)
        loss = negative_probability(learner(x), y)
        learner.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def test_only_the_output_layer_and_the_feedback_learn() -> None:
    learner, before = AsPrinted(network()), AsPrinted(network())
    before.load_state_dict(learner.state_dict())
    losses = train(learner, 200)
    assert losses[-1] < losses[0] - 0.2
    for name, parameter in learner.named_parameters():
        hidden = "block" in name and "pairs.3" not in name
        assert torch.equal(parameter, before.get_parameter(name)) == hidden, name


def test_with_targets_held_fixed_hidden_layers_learn() -> None:
    learner, before = Learner(network(), LEE_DTP), network()
    train(learner, 2)
    for pair, layer in zip(learner.network.pairs, before, strict=True):
        assert all(not torch.equal(p, q) for p, q in zip(pair.block.parameters(), layer.parameters(), strict=True))


def test_the_loss_is_minus_the_probability_of_the_true_class() -> None:
    logits = torch.tensor([[0.0, 0.0], [0.0, 1000.0]])
    assert float(negative_probability(logits, torch.tensor([0, 1]))) == -0.75


def test_a_state_goes_on_as_if_it_had_not_stopped() -> None:
    through, stopped, resumed = (AsPrinted(network(), seed=3) for _ in range(3))
    stopped.load_state_dict(through.state_dict())
    for learner in (through, stopped):
        train(learner, 2)
    resumed.load_state_dict(stopped.state_dict())
    for learner in (through, resumed):
        train(learner, 2)
    assert all(torch.equal(p, q) for p, q in zip(through.parameters(), resumed.parameters(), strict=True))


def test_other_networks_and_other_orders_are_refused() -> None:
    with pytest.raises(UserError, match=r"^network: .* is an MLP; block 2 \(Conv2d, ELU, MaxPool2d\) is not linear"):
        AsPrinted(simple_vgg((1, 8, 8), 3, (4, 5)))
    learner = AsPrinted(network())
    x, y = batch(0)
    loss = negative_probability(learner(x), y)
    learner.backward(loss)
    with pytest.raises(UserError, match="call the learner on a batch first"):
        learner.backward(loss)
