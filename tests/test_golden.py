"""Recorded steps of published implementations, reproduced number by number (tests/golden/README.md)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from targetprop import (
    Algorithm,
    ByLoss,
    DifferenceTargets,
    Learner,
    OptimizerSpec,
    PairedNetwork,
    PlainTargets,
    Residual,
    rule_of,
)
from targetprop.baselines.notebook import FEEDBACK, TARGETS, AsPrinted, negative_probability
from targetprop.feedback.by_loss import Gradient
from targetprop.feedback.losses import l_drl, reconstruction
from targetprop.layers.sequence import feedback_of
from targetprop.models import lenet, mlp, resnet, simple_vgg
from targetprop.models.activations import activation_layer
from targetprop.models.resnet import Head
from targetprop.network.network import layer_by_layer, with_convolution_biases
from targetprop.noise import NoiseKey

GOLDEN = Path(__file__).parent / "golden"


class Record:
    """A golden file, its arrays as tensors."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.arrays = np.load(GOLDEN / f"{name}.npz")
        self.steps = sum(key.startswith("step") and key.endswith("/x") for key in self.arrays.files)

    def __getitem__(self, key: str) -> Tensor:
        return torch.from_numpy(self.arrays[key])

    def get(self, key: str, default: Any) -> Any:
        """A number or a text, or what it is in files that do not say."""
        return self.arrays[key].item() if key in self.arrays else default


class LayerwiseRecord(Record):
    """Steps of L-DRL, DTP with the reconstruction loss, or TP on a network that the file describes."""

    @property
    def architecture(self) -> list[dict[str, Any]]:
        """What each block is; the first two files are VGGs and do not say."""
        if "architecture" in self.arrays:
            described: list[dict[str, Any]] = json.loads(self.arrays["architecture"].item())
            return described
        activation = self.arrays["activation"].item()
        conv = {"kind": "conv", "kernel": 3, "padding": 1, "stride": 1, "activation": activation, "pool": [2, 2, 0]}
        return [conv] * len(self["C"]) + [{"kind": "linear", "flatten": True}]

    def model(self) -> nn.Sequential:
        """The network, its sizes taken from the recorded weights."""
        return nn.Sequential(*(self._block(i, each) for i, each in enumerate(self.architecture)))

    def _block(self, number: int, described: dict[str, Any]) -> nn.Sequential:
        at = f"init/forward{number}"
        if described["kind"] == "residual":
            blocks = [self._residual(f"{at}/block{j}", each) for j, each in enumerate(described["blocks"])]
            return nn.Sequential(*(layer for block in blocks for layer in block))
        outputs, inputs = self[f"{at}/weight"].shape[:2]
        bias = f"{at}/bias" in self.arrays
        layers: list[nn.Module] = [nn.AdaptiveAvgPool2d(1)] if described.get("average_pool") else []
        if described["kind"] == "linear":
            before = described.get("average_pool") or described.get("flatten")
            layers += [*([nn.Flatten()] if before else []), nn.Linear(inputs, outputs, bias)]
        else:
            layers.append(_convolution(self[f"{at}/weight"], described["stride"], described["padding"], bias))
        if described.get("activation"):
            layers.append(activation_layer(described["activation"]))
        if described.get("pool"):
            layers.append(nn.MaxPool2d(*described["pool"]))
        return nn.Sequential(*layers)

    def _residual(self, at: str, described: dict[str, Any]) -> list[nn.Module]:
        stride = described["stride"]
        first, second = _convolution(self[f"{at}/conv1/weight"], stride, 1), _convolution(self[f"{at}/conv2/weight"])
        skip = _convolution(self[f"{at}/shortcut/weight"], stride, 0) if described["shortcut"] else None
        return [Residual(nn.Sequential(first, nn.ReLU(), second), skip), nn.ReLU()]

    def algorithm(self, gradient: Gradient) -> Algorithm:
        kind = self.get("algorithm", "ldrl")
        optimizer, decay = self.get("optimizer", "sgd"), self.get("feedback_weight_decay", 0.0)
        momentum = self["momentum"].item() if optimizer == "sgd" else 0.0
        feedback = ByLoss(
            l_drl if kind.endswith("ldrl") else reconstruction,
            gradient=gradient,
            feedback_training_iterations=self["iterations"].tolist(),
            noise=self["noise"].tolist(),
            noise_samples=self.get("samples", 1),
            b_optim=OptimizerSpec(optimizer, self["lr_b"].tolist(), momentum, decay),
        )
        beta = self["beta"].item()
        return Algorithm(PlainTargets(beta) if kind == "tp" else DifferenceTargets(beta), feedback)

    def learner(self, gradient: Gradient, model: nn.Sequential | None = None) -> Learner:
        biases = self.get("source", "") == "amoudgl/distributed-dtp"
        build = with_convolution_biases if biases else layer_by_layer
        network = PairedNetwork.of((model or self.model()).double(), "published", build).double()
        learner = Learner(network, self.algorithm(gradient), noise=self.noise)
        recorded = {key.removeprefix("init/") for key in self.arrays if key.startswith("init/")}
        assert {name for name, _ in self.parameters(learner)} == recorded
        for name, parameter in self.parameters(learner):
            parameter.data.copy_(self[f"init/{name}"])
        return learner

    def forward_optimizer(self, learner: Learner) -> torch.optim.Optimizer:
        parameters, rate, decay = learner.network.forward_parameters(), self["lr_f"].item(), self["weight_decay"].item()
        if self.get("optimizer", "sgd") == "sgd":
            return torch.optim.SGD(parameters, rate, self["momentum"].item(), weight_decay=decay)
        adam = torch.optim.Adam(parameters, rate, weight_decay=decay)
        assert [*adam.defaults["betas"], adam.defaults["eps"]] == [*self["adam_betas"].tolist(), self["adam_eps"]]
        return adam

    def noise(self, key: NoiseKey, like: Tensor) -> Tensor:
        drawn = self[f"step{key.step}/{key.kind}_noise{key.block}"]
        return (drawn.flatten(0, 1) if self.get("samples", 1) > 1 else drawn)[key.iteration].clone()

    def parameters(self, learner: Learner) -> list[tuple[str, nn.Parameter]]:
        """Parameters by the file's names."""
        named: list[tuple[str, nn.Parameter]] = []
        for i, (pair, described) in enumerate(zip(learner.network.pairs, self.architecture, strict=True)):
            sides = {"forward": [each for each in pair.block.modules() if isinstance(each, nn.Conv2d | nn.Linear)]}
            if pair.feedback is not None:
                sides["feedback"] = [each.map.map for each in pair.maps]  # type: ignore[misc]
            for side, layers in sides.items():
                for name, layer in zip(_names(described), layers, strict=True):
                    named += [(f"{side}{i}/{name}{n}", parameter) for n, parameter in layer.named_parameters()]
        return named

    def check(self, learner: Learner, order: torch.memory_format = torch.contiguous_format) -> None:
        """Take all steps and compare everything that they leave behind."""
        optimizer = self.forward_optimizer(learner)
        assert self.steps >= 2
        for s in range(self.steps):
            self._check_step(learner, s, order)
            optimizer.step()
            optimizer.zero_grad()
            for name, parameter in self.parameters(learner):
                assert_equal(parameter, self[f"step{s}/after_forward/{name}"], name)

    def _check_step(self, learner: Learner, s: int, order: torch.memory_format) -> None:
        logits = learner(self[f"step{s}/x"].to(memory_format=order))
        step = learner.backward(F.cross_entropy(logits, self[f"step{s}/y"]), keep=True)
        for i, loss in enumerate(step.feedback_losses, start=1):
            assert_equal(loss, self[f"step{s}/mean_feedback_loss{i}"], f"feedback loss {i}")
        for i, loss in enumerate(step.local_losses):
            assert_equal(loss, self[f"step{s}/forward_loss{i}"], f"forward loss {i}")
        for i, target in enumerate(step.targets[:-1]):
            if f"step{s}/target{i}" in self.arrays:
                assert_equal(target, self[f"step{s}/target{i}"], f"target {i}")
        for name, parameter in self.parameters(learner):
            assert_equal(parameter, self[f"step{s}/after_feedback/{name}"], name)
            if name.startswith("forward"):
                key = f"step{s}/{name.replace('forward', 'forward_grad', 1)}"
                assert parameter.grad is not None
                assert_equal(parameter.grad, self[key], key)


def _convolution(weight: Tensor, stride: int = 1, padding: int = 1, bias: bool = False) -> nn.Conv2d:
    outputs, inputs, kernel, _ = weight.shape
    return nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=bias)


def _names(described: dict[str, Any]) -> list[str]:
    """What the file calls the layers with weights of one block."""
    if described["kind"] != "residual":
        return [""]
    each = [["conv1", "conv2", *(["shortcut"] if block["shortcut"] else [])] for block in described["blocks"]]
    return [f"block{j}/{name}/" for j, names in enumerate(each) for name in names]


def assert_equal(actual: Tensor, expected: Tensor, what: str) -> None:
    """Within 1e-9 of the expected tensor, relative to its norm."""
    error = (actual - expected).norm() / expected.norm().clamp_min(1e-300)
    assert error <= 1e-9, f"{what}: relative error {error:.1e}"


L_DRL = [
    "ldrl_simple_vgg_elu", "ldrl_vgg3_relu", "ldrl_vgg_samples3", "ldrl_lenet_pad1_elu", "ldrl_lenet_pad0_elu",
    "ldrl_resnet_average", "ldrl_resnet_flatten", "ldrl_resnet_average_feedback_bias", "parallel_ldrl_vgg_adam",
]  # fmt: skip
OTHERS = ["tp_vgg_elu", "vanilla_dtp_vgg_elu"]
"""Their losses have no closed form."""
CASES: list[tuple[str, Gradient]] = [
    *((name, "closed_form") for name in L_DRL),
    *((name, "autograd") for name in L_DRL + OTHERS),
]


@pytest.mark.parametrize(("name", "gradient"), CASES)
def test_every_step_of_the_record(name: str, gradient: Gradient) -> None:
    record = LayerwiseRecord(name)
    record.check(record.learner(gradient))


@pytest.mark.parametrize("name", L_DRL + OTHERS)
def test_threads_and_memory_order_change_nothing(name: str) -> None:
    record, before = LayerwiseRecord(name), torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        record.check(record.learner("closed_form"), torch.channels_last)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("name", ["ldrl_lenet_pad1_elu", "ldrl_lenet_pad0_elu"])
def test_pooling_takes_the_recorded_maxima_and_overwrites(name: str, order: torch.memory_format) -> None:
    record = LayerwiseRecord(name)
    pool = next(each for each in record.model().modules() if isinstance(each, nn.MaxPool2d))
    pooled, context = rule_of(pool).run(pool, record["unpool/x"].to(memory_format=order))
    assert torch.equal(pooled, record["unpool/pooled"])
    assert torch.equal(context[0], record["unpool/indices"])
    y = record["unpool/y"].to(memory_format=order)
    assert torch.equal(feedback_of(pool).decode(y, context), record["unpool/out"])
    added = feedback_of(pool, "adjoint").decode(y, context)
    assert float((added - record["unpool/out"]).norm()) > 0.1 * float(added.norm())


def published_resnet(head: Head) -> nn.Sequential:
    return resnet((3, 8, 8), 10, (4, 5), (1, 2), norm=False, bias=False, whole_stages=True, head=head)


MODELS: dict[str, Callable[[], nn.Sequential]] = {
    "ldrl_simple_vgg_elu": lambda: simple_vgg((3, 32, 32), 10, (4, 4, 6, 6, 8)),
    "ldrl_lenet_pad1_elu": lambda: lenet((3, 20, 20), 10, (4, 5), 14),
    "ldrl_lenet_pad0_elu": lambda: lenet((3, 20, 20), 10, (4, 5), 14, pool_padding=0),
    "ldrl_resnet_average": lambda: published_resnet("average"),
    "ldrl_resnet_flatten": lambda: published_resnet("flatten"),
    "ldrl_resnet_average_feedback_bias": lambda: published_resnet("average"),
}


@pytest.mark.parametrize("name", MODELS)
def test_the_models_are_the_published_networks(name: str) -> None:
    record = LayerwiseRecord(name)
    record.check(record.learner("closed_form", MODELS[name]()))


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
