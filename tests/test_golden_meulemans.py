"""Recorded steps of the code of "A Theoretical Framework for Target Propagation" (arXiv 2006.14331), number by number.

Each record is driven through `Learner`, its algorithm from `ALGORITHMS` with the record's numbers. Where the published
code differs from what the paper says, and from the defaults here, the network is built, or a number set, as it has it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from targetprop import ALGORITHMS, Algorithm, Blocks, Learner, OptimizerSpec, PairedNetwork
from targetprop.feedback.after_targets import AfterTargetsLearning
from targetprop.feedback.by_loss import ByLossLearning
from targetprop.layers.activation_feedback import ActivationFeedback
from targetprop.layers.base import FeedbackLayer, Style
from targetprop.layers.direct import DirectFeedback, RandomLayer
from targetprop.layers.sequence import FeedbackChain, feedback_of
from targetprop.network.network import FeedbackBuilder
from targetprop.noise import NoiseKey

GOLDEN = Path(__file__).parent / "golden"
RECORDS = {
    "dtp": "meulemans_dtp",
    "dtp_small_sigma": "meulemans_dtp",
    "dtp_drl": "drl",
    "lee_dtp": "meulemans_lee_dtp",
    "ddtp_linear": "ddtp_linear",
    "ddtp_conv": "ddtp_linear",
    "ddtp_rhl": "ddtp_rhl",
    "ddtp_rhl_recurrent": "ddtp_rhl",
    "ddtp_control": "ddtp_control",
    "ddtp_conv_control": "ddtp_control",
    "gnt": "gauss_newton",
    "gnt_damped": "gauss_newton",
    "dfa": "meulemans_dfa",
}
"""The name of the algorithm that each file records."""


class Record:
    """One file, its arrays as tensors; it remembers which of them a test has looked at."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.arrays = np.load(GOLDEN / f"meulemans_{kind}.npz")
        self.seen: set[str] = set()

    def __getitem__(self, key: str) -> Tensor:
        self.seen.add(key)
        return torch.from_numpy(self.arrays[key])

    def meta(self, key: str) -> Any:
        """A setting."""
        return self.arrays[f"meta/{key}"].tolist()

    def unseen(self) -> list[str]:
        """Arrays that nothing was compared with."""
        return [key for key in self.arrays.files if key not in self.seen and not key.startswith("meta/")]

    @property
    def blocks(self) -> int:
        return sum(key.startswith("init/F") and key.endswith("weight") for key in self.arrays.files)

    def model(self) -> nn.Sequential:
        """The network, its sizes taken from the recorded weights; layers have a bias where the record has one."""
        layers: list[nn.Module] = []
        for i in range(self.blocks):
            weight, bias = self.arrays[f"init/F{i}/weight"], f"init/F{i}/bias" in self.arrays
            if weight.ndim == 4:
                kernel, stride, padding = self.meta("conv")
                conv = nn.Conv2d(weight.shape[1], weight.shape[0], kernel, stride, padding, bias=bias)
                layers += [conv, nn.Tanh(), nn.MaxPool2d(*self.meta("pool"))]
                continue
            layers += [nn.Flatten()] if layers and isinstance(layers[-1], nn.MaxPool2d) else []
            layers += [nn.Linear(weight.shape[1], weight.shape[0], bias)]
            layers += [nn.Tanh()] if i < self.blocks - 1 else []
        return nn.Sequential(*layers).double()

    @property
    def algorithm(self) -> Algorithm:
        """With the record's numbers: a target step before the gradient of the batch's mean loss, a step of Adam."""
        chosen = ALGORITHMS[RECORDS[self.kind]]
        step = 1.0 if self.kind.startswith("gnt") else self.meta("target_stepsize")  # of which Gauss-Newton has none
        numbers: dict[str, Any] = {"beta": step / self.meta("batch")}
        if "noise" in chosen.numbers:
            names = {"lr": "lr_fb", "betas": "betas_fb", "eps": "eps_fb", "weight_decay": "feedback_wd"}
            adam = OptimizerSpec("adam", **{ours: self.meta(theirs) for ours, theirs in names.items()})
            numbers |= {"noise": self.meta("sigma"), "b_optim": adam}
        if "damping" in chosen.numbers:
            numbers |= {"damping": self.meta("damping")}
        if "hidden_units" in chosen.numbers:
            numbers |= {"hidden_units": len(self["init/R/bias"]), "recurrent": self.meta("recurrent_input")}
        if "feedback_bias" in chosen.numbers:
            numbers |= {"feedback_bias": True}
        return chosen.with_numbers(**numbers)

    def feedback(self, algorithm: Algorithm) -> FeedbackBuilder:
        """Makes the feedback as the published code does."""

        def build(blocks: Blocks, block: int, style: Style) -> FeedbackLayer | None:
            made = algorithm.targets.feedback_layer(blocks, block, style)
            if self.kind == "lee_dtp" and made is not None:  # ReLU, whatever the network's activation is
                parts = feedback_of(blocks[block], "map")
                assert isinstance(parts, FeedbackChain)
                return FeedbackChain(list(parts), "map", ActivationFeedback(nn.ReLU()))
            if isinstance(made, DirectFeedback) and f"init/G{block}/bias" not in self.arrays:
                made.map.register_parameter("bias", None)  # none where the option of the forward layer is passed on
            return made

        return build

    def learner(self) -> Learner:
        algorithm = self.algorithm
        shape = self.meta("input_shape") if "meta/input_shape" in self.arrays else None
        style = algorithm.feedback.style
        network = PairedNetwork.of(self.model(), style, self.feedback(algorithm), input_shape=shape)
        learner = Learner(network, algorithm, noise=self.noise)
        recorded = {key.removeprefix("init/") for key in self.arrays if key.startswith("init/")}
        named = {**dict(self.parameters(learner)), **self.fixed(learner)}
        assert set(named) == recorded
        for name, tensor in named.items():
            tensor.data.copy_(self[f"init/{name}"])
        return learner

    @staticmethod
    def parameters(learner: Learner) -> list[tuple[str, nn.Parameter]]:
        """Parameters by the file's names."""
        return [
            (f"{side}{number}/{name.split('.')[-1]}", parameter)
            for number, pair in enumerate(learner.network.pairs)
            for side, module in (("F", pair.block), ("G", pair.feedback))
            if module is not None
            for name, parameter in module.named_parameters()
        ]

    @staticmethod
    def fixed(learner: Learner) -> dict[str, Tensor]:
        """What is drawn once and never trained, by the file's names."""
        found = {each for each in learner.network.modules() if isinstance(each, RandomLayer)}
        assert len(found) <= 1, "blocks share the random layer"
        return {f"R/{name}": tensor for layer in found for name, tensor in layer.named_buffers()}

    def noise(self, key: NoiseKey, like: Tensor) -> Tensor:
        pre = self.meta("pre") if "meta/pre" in self.arrays else 0
        phase = f"pre{key.step}" if key.step < pre else f"step{key.step - pre}"
        return self[f"{phase}/noise_G{key.block}"].clone()

    def scales(self, learner: Learner) -> list[float]:
        """What the published local loss of each block is times ours, which has 1/2, and sums over units."""
        scales = []
        for number, pair in enumerate(learner.network.pairs):
            conv = any(isinstance(layer, nn.Conv2d) for layer in pair.block.modules())
            units = self.arrays[f"step0/h{number}"][0].size if conv else 1
            follows_loss = self.kind == "lee_dtp" and number == self.blocks - 1
            scales.append(1.0 if follows_loss else 2 / units)
        return scales

    def forward_optimizer(self, learner: Learner) -> torch.optim.Optimizer:
        """Adam, which takes the same steps by gradients and an eps that are scaled alike."""
        scales, rates, eps = self.scales(learner), self.meta("lr_effective"), self.meta("eps")
        eps = eps if isinstance(eps, list) else [eps] * self.blocks
        scaled = [each / scale for each, scale in zip(eps, scales, strict=True)]
        spec = OptimizerSpec("adam", rates, betas=self.meta("betas"), eps=scaled)
        blocks = {pair.name: list(pair.block.parameters()) for pair in learner.network.pairs}
        return spec.build_by_block(blocks)

    def check(self, learner: Learner) -> None:
        """Take all phases and compare everything that they leave behind."""
        gradients = self._watch(learner)
        optimizer, steps = self.forward_optimizer(learner), self.meta("steps")
        assert steps >= 2
        for k in range(self.meta("pre")):
            losses = learner.learn_feedback(self[f"pre{k}/x"])
            self.seen.add(f"pre{k}/y")
            self._check_feedback(learner, f"pre{k}", losses, gradients)
            self._check_weights(learner, f"pre{k}", "G")
        for s in range(steps):
            loss = F.cross_entropy(learner(self[f"step{s}/x"]), self[f"step{s}/y"])
            assert_equal(loss.detach(), self[f"step{s}/loss"], "loss")
            step = learner.backward(loss, keep=True)
            for i, (output, target) in enumerate(zip(step.outputs, step.targets, strict=True)):
                for name, tensor in {"h": output, "target": target}.items():
                    if not (self.kind == "lee_dtp" and i == self.blocks - 1):
                        assert_equal(tensor, self[f"step{s}/{name}{i}"], f"{name}{i}")
            self._check_feedback(learner, f"step{s}", step.feedback_losses, gradients)
            scales = self.scales(learner)
            for name, parameter in self.parameters(learner):
                if name.startswith("F"):
                    assert parameter.grad is not None
                    assert_equal(scales[int(name[1])] * parameter.grad, self[f"step{s}/forward_grad/{name}"], name)
            optimizer.step()
            optimizer.zero_grad()
            self._check_weights(learner, f"step{s}", "FG")

    def _watch(self, learner: Learner) -> dict[nn.Parameter, Tensor]:
        """Where every feedback optimiser leaves the gradients that it was handed last."""
        gradients: dict[nn.Parameter, Tensor] = {}

        def note(optimizer: torch.optim.Optimizer, *_: Any) -> None:
            for parameter in optimizer.param_groups[0]["params"]:
                if parameter.grad is not None:
                    gradients[parameter] = parameter.grad.clone()

        if isinstance(learner.learning, ByLossLearning):
            for each in learner.learning.optimizers.values():
                each.register_step_pre_hook(note)
        return gradients

    def _check_feedback(
        self, learner: Learner, phase: str, losses: Tensor, gradients: dict[nn.Parameter, Tensor]
    ) -> None:
        if not isinstance(learner.learning, ByLossLearning):
            return
        for block, loss in zip(learner.network.fed_numbers, losses, strict=True):
            assert_equal(loss, self[f"{phase}/feedback_loss{block}"], f"feedback loss {block}")
        for name, parameter in self.parameters(learner):
            if name.startswith("G"):
                assert_equal(gradients[parameter], self[f"{phase}/feedback_grad/{name}"], f"gradient of {name}")

    def _check_weights(self, learner: Learner, phase: str, sides: str) -> None:
        for name, parameter in self.parameters(learner):
            if name[0] in sides and f"{phase}/after/{name}" in self.arrays:
                assert_equal(parameter.detach(), self[f"{phase}/after/{name}"], f"{phase}: {name}")


def assert_equal(actual: Tensor, expected: Tensor, what: str) -> None:
    """Within 1e-9 of the expected tensor, relative to its norm; of nothing but rounding, to 1e-12."""
    error = (actual - expected).norm() / expected.norm().clamp_min(1e-3)
    assert error <= 1e-9, f"{what}: relative error {error:.1e}"


@pytest.mark.parametrize("kind", RECORDS)
def test_every_array_of_the_record(kind: str) -> None:
    record = Record(kind)
    record.check(record.learner())
    assert record.unseen() == []


def test_every_file_is_tried() -> None:
    assert {path.stem.removeprefix("meulemans_") for path in GOLDEN.glob("meulemans_*.npz")} == set(RECORDS)


@pytest.mark.parametrize("kind", ["dtp", "dtp_drl"])
def test_the_records_tell_feedback_that_learns_before_its_target_goes_on(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AfterTargetsLearning, "learn", ByLossLearning.learn)
    record = Record(kind)
    with pytest.raises(AssertionError, match="relative error"):
        record.check(record.learner())
