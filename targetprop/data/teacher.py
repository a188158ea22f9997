"""Student and teacher: Gaussian inputs, and the outputs of a random network, the teacher, for a student to meet."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from targetprop.data.examples import Examples, ExampleSplits
from targetprop.data.keyed import Stream, keyed_generator
from targetprop.utils.errors import is_number, require, require_whole

GAIN = 1.5
"""Weights of the teacher are of the variance GAIN^2 / fan-in, which drives its tanh far from where it is linear."""


def load(
    *,
    inputs: int = 16,
    hidden: Sequence[int] = (32, 32),
    outputs: int = 8,
    train: int = 10_000,
    test: int = 2_000,
    noise: float = 0.0,
    seed: int = 0,
) -> ExampleSplits:
    """Regression on a teacher: an MLP of tanh units with Gaussian weights and biases of a tenth of their size.

    Each of its outputs is scaled to mean 0 and variance 1 over the training set; then noise is added to training and
    test set alike. So a mean squared error of 1 + noise^2 is that of a constant answer, noise^2 that of the teacher.

    Args:
        inputs: size of an input, whose numbers are independent and standard normal.
        hidden: units of each hidden layer of the teacher; none makes it linear.
        outputs: how many numbers are to be met.
        train: examples of the training set.
        test: examples of the test set.
        noise: standard deviation of what is added to the teacher's outputs.
        seed: of everything that is random; another one is another teacher.

    Raises:
        UserError: a value does not fit.
    """
    for name, value in (("inputs", inputs), ("outputs", outputs), ("test", test)):
        require_whole(name, value, least=1)
    require_whole("train", train, least=2)
    require_whole("seed", seed, least=0)
    for each in hidden:
        require_whole("hidden", each, least=1)
    require(is_number(noise) and noise >= 0, "noise", "a number, 0 or more", noise)
    x = _normal(seed, 0, train + test, inputs)
    y = _teacher(x, [inputs, *hidden, outputs], seed)
    std, mean = torch.std_mean(y[:train], 0, correction=0)
    y = (y - mean) / std.clamp_min(torch.finfo(y.dtype).tiny)
    y = (y + noise * _normal(seed, 1, train + test, outputs)).float()
    x = x.float()
    return ExampleSplits(Examples(x[:train], y[:train]), Examples(x[train:], y[train:]))


def _teacher(x: Tensor, sizes: Sequence[int], seed: int) -> Tensor:
    """Its outputs, in double precision."""
    for layer, (before, after) in enumerate(pairwise(sizes)):
        weights = _normal(seed, 2 + layer, after, before + 1) * GAIN / before**0.5
        x = x @ weights[:, :-1].T + 0.1 * before**0.5 * weights[:, -1]
        x = x.tanh() if layer + 2 < len(sizes) else x
    return x


def _normal(seed: int, place: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=keyed_generator(seed, Stream.TEACHER, place), dtype=torch.float64)
