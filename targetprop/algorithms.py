"""Recipes: a published algorithm as a value. A variant is a choice of functions and numbers, not a subclass.

>>> from dataclasses import replace
>>> mine = replace(DTP, noise=0.1, feedback_training_iterations=[10, 20])
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from targetprop.feedback.rules import FeedbackLoss, Propagation, difference, direct, l_drl, reconstruction
from targetprop.layers.twins import STYLES
from targetprop.utils.errors import UserError, is_number, require, require_whole, unknown

OPTIMIZERS: Mapping[str, type[torch.optim.Optimizer]] = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "rmsprop": torch.optim.RMSprop,
}

FEEDBACK: Mapping[str, str] = {
    "textbook": "the published estimator, by autograd for every pair",
    "exact": "the same gradients, in closed form where the twin has a linear part",
    "expected": "the second term of L-DRL in expectation where that has a closed form, else as exact",
    "amortised": "another rule: a delta rule on responses to noise, a little of it every batch (rules/amortised.py)",
    "kolen_pollack": "another rule: feedback weights take the updates of the forward weights (rules/kolen_pollack.py)",
}
"""Ways to estimate the feedback loss's gradient, and what they are."""

OUTPUTS: Mapping[str, str] = {
    "target": "the output has a target, t^N = s^N - beta dL/ds^N",
    "loss": "the output block follows the loss itself; the first target is t^{N-1} = s^{N-1} - beta dL/ds^{N-1}",
}
"""Where targets start, and what they are."""


@dataclass(frozen=True)
class OptimizerSpec:
    """An optimiser as a value.

    Args:
        type: one of `OPTIMIZERS`.
        lr: learning rate; for the feedback one number for all blocks, or one for each block above the first.
        momentum: for sgd and rmsprop.
        weight_decay: coefficient of the L2 penalty (decoupled for adamw).
    """

    type: str = "sgd"
    lr: float | Sequence[float] = 0.1
    momentum: float = 0.0
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        if self.type not in OPTIMIZERS:
            raise unknown("type", self.type, OPTIMIZERS)
        if self.momentum and self.type not in ("sgd", "rmsprop"):
            raise UserError(f"momentum: {self.type} has none, set momentum=0; got {self.momentum}.")
        for rate in _each(self.lr):
            require(is_number(rate) and rate >= 0, "lr", "numbers, 0 or more", self.lr)
        for key in ("momentum", "weight_decay"):
            value = getattr(self, key)
            require(is_number(value) and value >= 0, key, "a number, 0 or more", value)

    def build(self, parameters: Iterable[Tensor], lr: float | None = None) -> torch.optim.Optimizer:
        """The torch optimiser, with `lr` in place of its own rate if given (the rate of one block)."""
        options: dict[str, Any] = {"lr": self.lr if lr is None else lr, "weight_decay": self.weight_decay}
        if self.type in ("sgd", "rmsprop"):
            options["momentum"] = self.momentum
        return OPTIMIZERS[self.type](parameters, **options)


@dataclass(frozen=True)
class Recipe:
    """What makes an algorithm of the target propagation family. Keys are spelt as in the published configs.

    Per-block numbers are one number for all blocks, or a list with one for each block above the first.

    Args:
        targets: how a target is carried down by one block.
        feedback_loss: what the feedback is trained on; None leaves it as it was initialised.
        beta: step size of the first target.
        feedback_training_iterations: feedback updates a batch, per block.
        noise: standard deviation of input and output noise, per block.
        noise_samples: samples of noise that the gradient of a feedback update is averaged over.
        init_symmetric_weights: whether feedback weights start as the transposed forward weights.
        b_optim: the feedback optimiser; each block has one of its own.
        feedback: how the gradient of the feedback loss is estimated, one of `FEEDBACK`.
        budget: for feedback="amortised", the multiply-adds that feedback learning may cost, as a share of those of
            a backprop step. Iterations, noise and b_optim are then only for pairs that it does not fit.
        adaptive: for feedback="amortised", whether pairs that are well aligned get less than an equal share of it.
        twin: style of the feedback twins, one of `targetprop.layers.twins.STYLES`.
        output: where targets start, one of `OUTPUTS`.
    """

    targets: Propagation = difference
    feedback_loss: FeedbackLoss | None = l_drl
    beta: float = 0.7
    feedback_training_iterations: int | Sequence[int] = 20
    noise: float | Sequence[float] = 0.1
    noise_samples: int = 1
    init_symmetric_weights: bool = False
    b_optim: OptimizerSpec = field(default_factory=lambda: OptimizerSpec(lr=0.1, momentum=0.9))
    feedback: str = "exact"
    budget: float = 0.12
    adaptive: bool = True
    twin: str = "published"
    output: str = "target"

    def __post_init__(self) -> None:
        if self.feedback not in FEEDBACK:
            raise unknown("feedback", self.feedback, FEEDBACK)
        if self.twin not in STYLES:
            raise unknown("twin", self.twin, STYLES)
        if self.output not in OUTPUTS:
            raise unknown("output", self.output, OUTPUTS)
        if self.feedback == "amortised" and self.twin not in ("linear", "matched"):
            raise UserError(f'twin: feedback="amortised" needs "linear" or "matched" twins, got "{self.twin}".')
        if self.feedback in ("amortised", "kolen_pollack") and self.feedback_loss not in (l_drl, None):
            raise UserError(f'feedback_loss: feedback="{self.feedback}" stands for l_drl only.')
        require_whole("noise_samples", self.noise_samples, least=1)
        symmetric = self.init_symmetric_weights
        require(isinstance(symmetric, bool), "init_symmetric_weights", "true or false", symmetric)
        require(isinstance(self.adaptive, bool), "adaptive", "true or false", self.adaptive)
        require(is_number(self.budget) and self.budget > 0, "budget", "a number above 0", self.budget)
        require(is_number(self.beta) and self.beta > 0, "beta", "a number above 0", self.beta)
        for sigma in _each(self.noise):
            require(is_number(sigma) and sigma > 0, "noise", "numbers above 0", self.noise)
        for count in _each(self.feedback_training_iterations):
            require_whole("feedback_training_iterations", count, least=0)


def _each(value: float | Sequence[float]) -> Sequence[float]:
    return value if isinstance(value, Sequence) else [value]


def per_block(key: str, value: float | Sequence[float], blocks: Sequence[str]) -> list[float]:
    """One value for each of the named blocks: a number stands for all of them, a list must fit exactly.

    Raises:
        UserError: a list of another length; names the key and the blocks.
    """
    if not isinstance(value, Sequence):
        return [value] * len(blocks)
    if len(value) != len(blocks):
        raise UserError(
            f"{key}: expected {len(blocks)} values, one for each block with trained feedback "
            f"({'; '.join(blocks)}), or one number for all; got {len(value)}: {list(value)}."
        )
    return list(value)


DTP = Recipe()
"""Difference target propagation with the local difference reconstruction loss (Ernoult et al. 2022)."""

VANILLA_DTP = Recipe(feedback_loss=reconstruction)
"""Difference target propagation with the reconstruction loss (Lee et al. 2015), otherwise as `DTP`."""

LEE_DTP = Recipe(feedback_loss=reconstruction, feedback_training_iterations=1, twin="lee", output="loss")
"""Difference target propagation as Lee et al. 2015 define it: their twins, and targets from below the output block."""

TP = Recipe(targets=direct, feedback_loss=reconstruction)
"""Target propagation (Bengio 2014)."""

AMORTISED_DTP = Recipe(feedback="amortised", twin="linear")
"""Difference target propagation with feedback that learns a little from noise every batch; needs no tuning."""

RECIPES: Mapping[str, Recipe] = {
    "dtp": DTP,
    "amortised_dtp": AMORTISED_DTP,
    "vanilla_dtp": VANILLA_DTP,
    "lee_dtp": LEE_DTP,
    "tp": TP,
}
"""Recipes by the name that a configuration gives them."""
