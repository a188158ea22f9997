"""Recorded steps of published implementations, reproduced number by number (tests/golden/README.md)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from targetprop import Algorithm, ByLoss, DifferenceTargets, Learner, OptimizerSpec, PairedNetwork
from targetprop.baselines.notebook import FEEDBACK, TARGETS, AsPrinted, negative_probability
from targetprop.feedback.by_loss import Gradient
from targetprop.models import mlp, simple_vgg
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

    def learner(self, gradient: Gradient) -> Learner:
        net = simple_vgg((3, 32, 32), 10, self["C"].tolist(), str(self.arrays["activation"])).double()
        network = PairedNetwork.of(net).double()
        algorithm = Algorithm(
            DifferenceTargets(beta=float(self["beta"])),
            ByLoss(
                gradient=gradient,
                feedback_training_iterations=self["iterations"].tolist(),
                noise=self["noise"].tolist(),
                b_optim=OptimizerSpec("sgd", self["lr_b"].tolist(), momentum=float(self["momentum"])),
            ),
        )
        learner = Learner(network, algorithm, noise=self.noise)
        for name, parameter in self.parameters(learner):
            parameter.data.copy_(self[f"init/{name}"])
        return learner

    @staticmethod
    def parameters(learner: Learner) -> list[tuple[str, torch.nn.Parameter]]:
        """Parameters by the file's names."""
        named = []
        for i, pair in enumerate(learner.network.pairs):
            for side, module in (("forward", pair.block), ("feedback", pair.feedback)):
                if module is not None:
                    named += [(f"{side}{i}/{n.split('.')[-1]}", p) for n, p in module.named_parameters()]
        return named


def assert_equal(actual: Tensor, expected: Tensor, what: str) -> None:
    """Within 1e-9 of the expected tensor, relative to its norm."""
    error = (actual - expected).norm() / expected.norm().clamp_min(1e-300)
    assert error <= 1e-9, f"{what}: relative error {error:.1e}"


@pytest.mark.parametrize("gradient", ["autograd", "closed_form"])
@pytest.mark.parametrize("name", ["ldrl_simple_vgg_elu", "ldrl_vgg3_relu"])
def test_every_step_of_the_record(name: str, gradient: Gradient) -> None:
    record = Record(name)
    learner = record.learner(gradient)
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
                assert parameter.grad is not None
                assert_equal(parameter.grad, record[key], key)
        optimizer.step()
        optimizer.zero_grad()
        for parameter_name, parameter in record.parameters(learner):
            assert_equal(parameter, record[f"step{s}/after_forward/{parameter_name}"], parameter_name)


class NotebookRecord(Record):
    """The course notebook's MLP."""

    def noise(self, key: NoiseKey, like: Tensor) -> Tensor:
        return self[f"step{key.step}/noise_G{key.block + 1}"].clone()

    def as_printed(self) -> AsPrinted:
        inputs, *hidden, classes = self["sizes"].tolist()
        learner = AsPrinted(mlp((inputs,), classes, hidden), noise=self.noise).double()
        for name, parameter in self.weights(learner):
            parameter.data.copy_(self[f"init/{name}"])
        return learner

    @staticmethod
    def weights(learner: AsPrinted) -> list[tuple[str, torch.nn.Parameter]]:
        """Parameters by the file's names."""
        return [
            (f"{side}{number}/{name.split('.')[-1]}", parameter)
            for number, pair in enumerate(learner.network.pairs, start=1)
            for side, module in (("F", pair.block), ("G", pair.feedback))
            if module is not None
            for name, parameter in module.named_parameters()
        ]


def test_every_step_of_the_notebook_and_that_its_hidden_layers_never_move() -> None:
    record = NotebookRecord("dtp_mlp_notebook")
    assert TARGETS.beta == float(record["first_target_step"])
    assert FEEDBACK.noise == float(record["noise_std"])
    assert FEEDBACK.b_optim.lr == float(record["rmsprop_lr"])
    learner = record.as_printed()
    optimizer = torch.optim.RMSprop(learner.optimizer_parameters(), lr=float(record["rmsprop_lr"]))
    assert record.steps == 3
    for s in range(record.steps):
        loss = negative_probability(learner(record[f"step{s}/x"]), record[f"step{s}/y"])
        assert_equal(loss.detach(), record[f"step{s}/loss"], "loss")
        step = learner.backward(loss, keep=True)
        for n, target in enumerate(step.targets, start=1):
            assert_equal(target, record[f"step{s}/target_H{n}_"], f"target {n}")
        for pair in learner.network.pairs[:-1]:
            assert all(p.grad is not None and not p.grad.any() for p in pair.block.parameters())
        optimizer.step()
        optimizer.zero_grad()
        for name, parameter in record.weights(learner):
            assert_equal(parameter, record[f"step{s}/after/{name}"], name)
            if name[:2] in ("F1", "F2", "F3"):
                assert torch.equal(parameter, record[f"init/{name}"])
