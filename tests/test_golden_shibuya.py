"""Recorded steps of the code of Shibuya et al. 2023, reproduced number by number (tests/golden/README.md)."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from targetprop import ALGORITHMS, Algorithm, Learner, OptimizerSpec
from targetprop.layers.standardize import Standardize
from targetprop.noise import NoiseKey

GOLDEN = Path(__file__).parent / "golden"
RULES = {
    "tp": "shibuya_tp",
    "dtp": "shibuya_dtp",
    "ldrl": "shibuya_l_drl",
    "drl": "shibuya_drl",
    "fwdtp": "fw_dtp",
    "itp": "itp",
}
"""Algorithms by the file's names; with `_bn` behind it the network is another, and nothing else."""
FILES = sorted(path.stem for path in GOLDEN.glob("shibuya_*.npz"))
NOISE = {"input": ("noise_G", "noise_in_G"), "output": ("noise_out_G",)}


class Record:
    """A file; what has been compared of it is noted."""

    def __init__(self, name: str) -> None:
        self.arrays = np.load(GOLDEN / f"{name}.npz")
        self.rule = RULES[name.split("_")[1]]
        self.phase = ""  # prefix of what is recorded of the batch at hand
        self.compared: set[str] = set()

    def __getitem__(self, key: str) -> Tensor:
        return torch.from_numpy(self.arrays[key])

    def meta(self, key: str) -> Any:
        return self.arrays[f"meta/{key}"].tolist()

    @property
    def learns(self) -> bool:
        return int(self.meta("feedback_iterations")) > 0

    def model(self) -> nn.Sequential:
        sizes = self.meta("sizes")
        layers: list[nn.Module] = []
        for number, (inputs, outputs) in enumerate(itertools.pairwise(sizes), start=1):
            last = number == len(sizes) - 1
            kind = self.meta("last_act" if last else "F_act")
            layers += [nn.Linear(inputs, outputs, bias=False)]
            layers += [nn.Tanh()] if kind.startswith("tanh") else []
            layers += [Standardize()] if kind.endswith("-BN") else []
        return nn.Sequential(*layers).double()

    def algorithm(self, iterations: int) -> Algorithm:
        numbers: dict[str, Any] = {"beta": self.meta("target_stepsize")}
        if self.learns:
            rate = OptimizerSpec(lr=self.meta("lr_fb"))
            numbers |= {"noise": self.meta("sigma"), "feedback_training_iterations": iterations, "b_optim": rate}
        return ALGORITHMS[self.rule].with_numbers(**numbers)

    def noise(self, key: NoiseKey, like: Tensor) -> Tensor:
        """Of the batch at hand; `key.iteration` is that of the file, where it has several."""
        at = self.phase if self.phase.startswith("pre") else f"{self.phase}/fb{key.iteration}"
        names = [f"{at}/{name}{key.block}" for name in NOISE[key.kind]]
        (found,) = [self[name].clone() for name in names if name in self.arrays]
        return found

    def weights(self, learner: Learner) -> dict[str, nn.Parameter]:
        """By the file's names."""
        found: dict[str, nn.Parameter] = {}
        for number, pair in enumerate(learner.network.pairs):
            (found[f"F{number}/weight"],) = pair.block.parameters()
            if pair.feedback is not None:
                (found[f"G{number}/weight"],) = pair.feedback.parameters()
        return found

    def check(self, key: str, actual: Tensor) -> None:
        expected = self[key]
        error = (actual - expected).norm() / expected.norm().clamp_min(1e-300)
        assert error <= 1e-9, f"{key}: relative error {error:.1e}"
        self.compared.add(key)

    def watch(self, learner: Learner) -> None:
        """Compare every feedback gradient, and the weights after it, when an optimiser makes the step."""
        counts: dict[str, int] = {}

        def step(name: str, weight: nn.Parameter) -> None:
            at = self.phase
            if not at.startswith("pre"):
                at += f"/fb{counts.get(at + name, 0)}"
                counts[self.phase + name] = counts.get(self.phase + name, 0) + 1
            assert weight.grad is not None
            self.check(f"{at}/feedback_grad/{name}", len(self[f"{self.phase}/x"]) * weight.grad)
            self.check(f"{at}/after/{name}", weight - self.meta("lr_fb") * weight.grad)

        by_id = {id(p): (name, p) for name, p in self.weights(learner).items() if name.startswith("G")}

        def before(optimizer: torch.optim.Optimizer, *_: object) -> None:
            for parameter in optimizer.param_groups[0]["params"]:
                step(*by_id[id(parameter)])

        assert hasattr(learner.learning, "optimizers")
        for optimizer in learner.learning.optimizers.values():
            optimizer.register_step_pre_hook(before)


@pytest.mark.parametrize("name", FILES)
def test_every_array_of_the_record(name: str) -> None:
    record = Record(name)
    learner = Learner(record.model(), record.algorithm(record.meta("feedback_iterations")), noise=record.noise)
    alone = Learner(learner.network, record.algorithm(1), noise=record.noise)  # one update a batch before training
    for key, weight in record.weights(learner).items():
        if record.rule == "itp" and key.startswith("G"):
            record.check(f"init/{key}", weight)
        weight.data.copy_(record[f"init/{key}"])
    if record.learns:
        record.watch(learner)
        record.watch(alone)
    for number in range(record.meta("pre")):
        record.phase = f"pre{number}"
        alone.learn_feedback(record[f"{record.phase}/x"])
        assert all(p.grad is None for p in learner.network.forward_parameters())
    # Their local loss is ||t - h||^2, without our 1/2, summed over the batch; their rate is divided by its size.
    optimizer = torch.optim.SGD(learner.optimizer_parameters(), lr=2 * record.meta("lr"))
    for number in range(record.meta("steps")):
        at = record.phase = f"step{number}"
        x, y = record[f"{at}/x"], record[f"{at}/y"]
        losses = F.cross_entropy(learner(x), y, reduction="none")
        record.check(f"{at}/loss_sum", losses.detach().sum())
        step = learner.backward(losses, keep=True)
        for layer, (output, target) in enumerate(zip(step.outputs, step.targets, strict=True)):
            record.check(f"{at}/h{layer}", output)
            record.check(f"{at}/target{layer}", target)
        for key, weight in record.weights(learner).items():
            if key.startswith("F"):
                assert weight.grad is not None
                record.check(f"{at}/forward_grad/{key}", 2 * len(x) * weight.grad)
        optimizer.step()
        optimizer.zero_grad()
        for key, weight in record.weights(learner).items():
            record.check(f"{at}/after/{key}", weight)
    given = ("/x", "/y", "meta/", "init/", "/noise_")
    assert {key for key in record.arrays if not any(each in key for each in given)} - record.compared == set()


def test_all_files_are_here() -> None:
    kinds = {*RULES, *(f"{kind}_bn" for kind in RULES if kind != "tp")}
    assert sorted(f"shibuya_{kind}" for kind in kinds) == FILES
