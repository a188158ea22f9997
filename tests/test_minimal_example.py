"""examples/minimal_dtp.py computes what `Learner` computes, weight by weight."""

from __future__ import annotations

import importlib
from itertools import pairwise
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from targetprop import DTP, Learner, OptimizerSpec
from targetprop.noise import GaussianNoise, NoiseKey

SIZES = [6, 8, 7, 3]


@pytest.fixture(scope="module")
def example() -> ModuleType:
    return importlib.import_module("examples.minimal_dtp")


def learner_like(example: ModuleType, blocks: list[nn.Module]) -> Learner:
    """A learner with the same weights and numbers."""
    layers: list[nn.Module] = []
    for block, (inputs, outputs) in zip(blocks, pairwise(SIZES), strict=True):
        linear = nn.Linear(inputs, outputs).double()
        linear.load_state_dict(block.forward_map.state_dict())  # type: ignore[union-attr]
        layers += [linear, nn.ELU()]
    numbers = {
        "beta": example.BETA,
        "noise": example.SIGMA,
        "feedback_training_iterations": example.ITERATIONS,
        "b_optim": OptimizerSpec(lr=0.1, momentum=0.9),
    }
    learner = Learner(layers[:-1], DTP.with_numbers(**numbers), seed=4)
    for pair, block in zip(learner.network.pairs[1:], blocks[1:], strict=True):
        own = dict(zip(("weight", "bias"), pair.feedback_parameters(), strict=True))
        for name, parameter in own.items():
            parameter.data.copy_(getattr(block.feedback_map, name))
    return learner


def test_every_weight_after_every_step(example: ModuleType) -> None:
    torch.manual_seed(0)
    blocks = [block.double() for block in example.build(SIZES)]
    learner = learner_like(example, blocks)
    feedback_optimizers, forward_optimizer = example.optimizers(blocks)
    optimizer = torch.optim.SGD(learner.optimizer_parameters(), lr=0.05, momentum=0.9)
    noise = GaussianNoise(4)
    for step in range(3):
        x, y = torch.randn(5, SIZES[0], dtype=torch.float64), torch.randint(SIZES[-1], (5,))

        def draw(block: int, iteration: int, kind: str, like: Tensor, step: int = step) -> Tensor:
            return noise(NoiseKey(step, block, iteration, kind), like)  # type: ignore[arg-type]

        loss = F.cross_entropy(learner(x), y)
        learner.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        shown = example.train_step(blocks, feedback_optimizers, forward_optimizer, x, y, draw)
        assert shown == pytest.approx(float(loss.detach()), rel=1e-12)
        for n, (pair, block) in enumerate(zip(learner.network.pairs, blocks, strict=True)):
            ours = [*pair.block.parameters(), *pair.feedback_parameters()]
            theirs = [*block.forward_map.parameters(), *(block.feedback_map.parameters() if n else [])]
            for one, other in zip(ours, theirs, strict=True):
                torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-13)
