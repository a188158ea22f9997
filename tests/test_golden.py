"""Recorded steps of the published L-DRL implementation, reproduced number by number (tests/golden/README.md)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from targetprop import Learner, OptimizerSpec, PairedNetwork, Recipe
from targetprop.networks import simple_vgg
from targetprop.noise import NoiseKey

GOLDEN = Path(__file__).parent / "golden"


class Record:
    """A golden file, its arrays as tensors."""

    def __init__(self, name: str) -> None:
        self.arrays = np.load(GOLDEN / f"{name}.npz")
        self.steps = sum(key.endswith("/x") for key in self.arrays.files)

    def __getitem__(self, key: str) -> Tensor:
        return torch.from_numpy(self.arrays[key])

    def noise(self, key: NoiseKey, like: Tensor) -> Tensor:
        return self[f"step{key.step}/{key.kind}_noise{key.block}"][key.iteration].clone()

    def learner(self, feedback: str) -> Learner:
        net = simple_vgg((3, 32, 32), 10, self["C"].tolist(), str(self.arrays["activation"])).double()
        network = PairedNetwork.of(net).double()
        recipe = Recipe(
            beta=float(self["beta"]),
            feedback=feedback,
            feedback_training_iterations=self["iterations"].tolist(),
            noise=self["noise"].tolist(),
            b_optim=OptimizerSpec("sgd", self["lr_b"].tolist(), momentum=float(self["momentum"])),
        )
        learner = Learner(network, recipe, noise=self.noise)
        for name, parameter in self.parameters(learner):
            parameter.data.copy_(self[f"init/{name}"])
        return learner

    @staticmethod
    def parameters(learner: Learner) -> list[tuple[str, torch.nn.Parameter]]:
        """Parameters by the file's names."""
        named = []
        for i, pair in enumerate(learner.network.pairs):
            for side, module in (("forward", pair.block), ("feedback", pair.twin)):
                if module is not None:
                    named += [(f"{side}{i}/{n.split('.')[-1]}", p) for n, p in module.named_parameters()]
        return named


def assert_equal(actual: Tensor, expected: Tensor, what: str) -> None:
    """Within 1e-9 of the expected tensor, relative to its norm."""
    error = (actual - expected).norm() / expected.norm().clamp_min(1e-300)
    assert error <= 1e-9, f"{what}: relative error {error:.1e}"


@pytest.mark.parametrize("feedback", ["textbook", "exact"])
@pytest.mark.parametrize("name", ["ldrl_simple_vgg_elu", "ldrl_vgg3_relu"])
def test_every_step_of_the_record(name: str, feedback: str) -> None:
    record = Record(name)
    learner = record.learner(feedback)
    optimizer = torch.optim.SGD(
        learner.network.forward_parameters(),
        lr=float(record["lr_f"]),
        momentum=float(record["momentum"]),
        weight_decay=float(record["weight_decay"]),
    )
    assert record.steps >= 2
    for s in range(record.steps):
        logits = learner(record[f"step{s}/x"])
        step = learner.backward(F.cross_entropy(logits, record[f"step{s}/y"]))
        for i, loss in enumerate(step.feedback_losses, start=1):
            assert_equal(loss, record[f"step{s}/mean_feedback_loss{i}"], f"feedback loss {i}")
        for i, loss in enumerate(step.local_losses):
            assert_equal(loss, record[f"step{s}/forward_loss{i}"], f"forward loss {i}")
        for parameter_name, parameter in record.parameters(learner):
            assert_equal(parameter, record[f"step{s}/after_feedback/{parameter_name}"], parameter_name)
            if parameter_name.startswith("forward"):
                key = f"step{s}/{parameter_name.replace('forward', 'forward_grad')}"
                assert_equal(parameter.grad, record[key], key)
        optimizer.step()
        optimizer.zero_grad()
        for parameter_name, parameter in record.parameters(learner):
            assert_equal(parameter, record[f"step{s}/after_forward/{parameter_name}"], parameter_name)
