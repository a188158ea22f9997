"""Figures of "Towards Scaling Difference Target Propagation by Learning Backprop Targets" (Ernoult et al. 2022).

On one batch, with forward weights as they are drawn: what the feedback learns, and what updates come of it. All in this
process; a GPU is used if there is one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor, nn

from targetprop.algorithms import named
from targetprop.data import cifar10, digits
from targetprop.data.augment import normalize
from targetprop.feedback.base import OptimizerSpec
from targetprop.learner import Learner
from targetprop.measure import measure
from targetprop.measure.alignment import feedback_angles, feedback_distances
from targetprop.models import lenet, simple_vgg
from targetprop.published.drawing import bars, legend, lines, panels
from targetprop.published.experiment import Means, Part, Row, Rows, rows_of

PAPER = "Ernoult et al. 2022, https://arxiv.org/abs/2201.13415"
SEEDS = (123, 124, 125, 126, 127)
MOMENTUM = 0.9
"""Of the feedback's SGD."""
CONSTANTS = (
    (0.4913725, 0.4823529, 0.4466667),
    (0.2470588, 0.2435294, 0.2615686),
)
"""Mean and standard deviation of CIFAR-10's channels."""
OF_DIGITS = ((0.305,), (0.376,))
Variant = Literal["L-DRL, init", "L-DRL", "L-DRL, symmetric", "DRL, init", "DRL"]
VARIANTS: tuple[Variant, ...] = ("DRL, init", "DRL", "L-DRL, init", "L-DRL", "L-DRL, symmetric")


@dataclass(frozen=True)
class Setting:
    """Numbers of an experiment.

    Attributes:
        batch: images.
        noise, rates: of the feedback, one for each block with feedback.
        iterations: updates of the feedback.
        every: updates between two looks at it.
        beta: step size of the output's target.
        direct_noise, direct_rate: of the feedback that learns by DRL, straight from the output, by Adam. Our own.
    """

    network: Literal["lenet", "vgg"]
    batch: int
    noise: tuple[float, ...]
    rates: tuple[float, ...]
    iterations: int
    every: int
    beta: float = 0.005
    direct_noise: float = 0.1
    direct_rate: float = 1e-3


LENET = Setting("lenet", 256, (0.2, 0.2, 0.1), (1e-4, 2.5e-3, 0.01), iterations=5000, every=50)
VGG = Setting("vgg", 32, (0.4, 0.4, 0.2, 0.2, 0.08), (1e-4, 3.5e-4, 8e-3, 8e-3, 0.18), iterations=10_000, every=100)


def quick(setting: Setting) -> Setting:
    """On the digits, with a few updates."""
    fed = 3 if setting.network == "lenet" else 2
    return replace(setting, batch=16, noise=setting.noise[-fed:], rates=(1e-3,) * fed, iterations=4, every=2)


def chosen(setting: Setting, means: Means) -> tuple[Setting, Sequence[int]]:
    """What is computed, and with which seeds."""
    if means.quick:
        return quick(setting), means.seeds or SEEDS[:2]
    return setting, means.seeds or SEEDS


@dataclass(frozen=True)
class FeedbackAngles:
    """Theorem 4.2: by L-DRL feedback weights turn to the transposed forward weights."""

    title: str
    setting: Setting
    paper: str = PAPER

    def rows(self, means: Means) -> Rows:
        """Angle and distance of V and W^T, for each block, seed and number of updates."""
        setting, seeds = chosen(self.setting, means)
        return rows_of([self._part(setting, seed, means) for seed in seeds], means)

    def _part(self, setting: Setting, seed: int, means: Means) -> Part:
        def make() -> Rows:
            x, _ = batch(setting, seed, means)
            learner = l_drl(setting, x, seed)
            made = weights_of(learner, seed, 0)
            for done in range(setting.every, setting.iterations + 1, setting.every):
                learner.learn_feedback(x)
                made += weights_of(learner, seed, done)
            return made

        return Part(f"seed_{seed}", asdict(setting) | {"quick": means.quick}, make)

    def draw(self, rows: Rows) -> Figure:
        """Against the number of updates."""
        figure, axes = panels(2, ["angle of V and W^T", "distance"])
        lines(axes[0], rows, "degrees", "updates", "block", ("feedback updates", "degrees"))
        lines(axes[1], rows, "distance", "updates", "block", ("feedback updates", "|V - W^T| / |W|"))
        legend(figure, axes[0])
        return figure


@dataclass(frozen=True)
class UpdateAngles:
    """Theorem 4.3: with such feedback updates of target propagation turn to those of backprop."""

    title: str
    setting: Setting
    paper: str = PAPER

    def rows(self, means: Means) -> Rows:
        """Angle, ratio of norms and distance of updates and backprop's, for each block, seed and kind of feedback."""
        setting, seeds = chosen(self.setting, means)
        return rows_of([self._part(setting, kind, seed, means) for seed in seeds for kind in VARIANTS], means)

    def _part(self, setting: Setting, kind: Variant, seed: int, means: Means) -> Part:
        def make() -> Rows:
            x, y = batch(setting, seed, means)
            return compared(trained(setting, kind, x, seed), x, y, kind, seed)

        name = f"{kind.replace(', ', '_').replace('-', '').lower()}_seed_{seed}"
        return Part(name, asdict(setting) | {"kind": kind, "quick": means.quick}, make)

    def draw(self, rows: Rows) -> Figure:
        """Bars for each kind of feedback."""
        figure, axes = panels(2, ["angle of update and backprop", "distance of update and backprop"])
        bars(axes[0], rows, "degrees", "feedback", "block", "degrees")
        bars(axes[1], rows, "distance", "feedback", "block", "|d / beta - g| / |g|")
        legend(figure, axes[0])
        return figure


def batch(setting: Setting, seed: int, means: Means) -> tuple[Tensor, Tensor]:
    """Training images (batch, C, H, W), normalised, and their labels, chosen by the seed."""
    images = (digits.load() if means.quick else cifar10.load(means.data)).train
    mean, std = (torch.tensor(each) for each in (OF_DIGITS if means.quick else CONSTANTS))
    chosen = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))[: setting.batch]
    pixels, labels = images.take(chosen)
    return normalize(pixels, mean, std).to(means.device), labels.to(means.device)


def network_for(setting: Setting, shape: Sequence[int], seed: int) -> nn.Sequential:
    """The network with the first weights of a seed; a narrow one for small images."""
    small = shape[-1] < 32
    torch.manual_seed(seed)
    if setting.network == "lenet":
        return lenet(shape, 10, channels=(4, 4), hidden=16) if small else lenet(shape, 10)
    return simple_vgg(shape, 10, channels=(4, 4)) if small else simple_vgg(shape, 10)


def l_drl(setting: Setting, x: Tensor, seed: int, symmetric: bool = False) -> Learner:
    """A learner whose `learn_feedback` makes `every` updates by L-DRL."""
    algorithm = named("dtp").with_numbers(
        beta=setting.beta,
        noise=list(setting.noise),
        feedback_training_iterations=setting.every,
        init_symmetric_weights=symmetric,
        b_optim=OptimizerSpec(lr=list(setting.rates), momentum=MOMENTUM),
    )
    return Learner(network_for(setting, x.shape[1:], seed).to(x.device), algorithm, seed=seed).to(x.device)


def drl(setting: Setting, x: Tensor, seed: int) -> Learner:
    """A learner whose feedback comes straight from the output, and learns by DRL, an update a batch."""
    numbers = {
        "beta": setting.beta,
        "noise": setting.direct_noise,
        "b_optim": OptimizerSpec("adam", setting.direct_rate),
    }
    network = network_for(setting, x.shape[1:], seed).to(x.device)
    made = Learner(network, named("ddtp_linear").with_numbers(**numbers), seed=seed, input_shape=x.shape[1:])
    return made.to(x.device)


def trained(setting: Setting, kind: Variant, x: Tensor, seed: int) -> Learner:
    """A learner with the feedback of a variant, which stays as it then is."""
    learner = drl(setting, x, seed) if kind.startswith("DRL") else l_drl(setting, x, seed, kind == "L-DRL, symmetric")
    if kind == "L-DRL":
        for _ in range(setting.iterations // setting.every):
            learner.learn_feedback(x)
    elif kind == "DRL":
        for _ in range(setting.iterations):
            learner.learn_feedback(x)
    for parameter in learner.network.feedback_parameters():
        parameter.requires_grad_(False)
    return learner


def weights_of(learner: Learner, seed: int, updates: int) -> Rows:
    """A row for each block with feedback."""
    made = []
    for number in learner.network.fed_numbers:
        pair = learner.network.pairs[number]
        degrees, distance = float(feedback_angles(pair)[0]), float(feedback_distances(pair)[0])
        made.append(Row(seed=seed, updates=updates, block=pair.name, degrees=degrees, distance=distance))
    return made


def compared(learner: Learner, x: Tensor, y: Tensor, kind: Variant, seed: int) -> Rows:
    """A row for each block."""
    values, made = measure(learner, x, y, F.cross_entropy, ["backprop"]), []
    for number in range(len(learner.network.pairs)):
        degrees, ratio = values[f"angle/block{number + 1}"], values[f"norm_ratio/block{number + 1}"]
        distance = math.sqrt(max(0.0, 1 + ratio**2 - 2 * ratio * math.cos(math.radians(degrees))))
        block = learner.network.pairs[number].name
        row = Row(feedback=kind, seed=seed, block=block, degrees=degrees, norm_ratio=ratio, distance=distance)
        made.append(row)
    return made
