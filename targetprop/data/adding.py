"""The adding task (Hochreiter and Schmidhuber 1997): the sum of two marked numbers of a long sequence."""

from __future__ import annotations

import torch

from targetprop.data.examples import Examples, ExampleSplits
from targetprop.data.keyed import Stream, keyed_generator
from targetprop.utils.errors import require_whole


def load(*, length: int = 100, train: int = 20_000, test: int = 2_000, seed: int = 0) -> ExampleSplits:
    """Sequences of pairs, a number and whether it is marked, (length, 2), and the sum of the two marked numbers.

    Numbers are uniform in [0, 1); one of the first half of a sequence and one of its second half are marked, as by Le
    et al. ("A Simple Way to Initialize Recurrent Networks of Rectified Linear Units", 2015,
    https://arxiv.org/abs/1504.00941). Who always answers 1 has a mean squared error of 1/6.

    Args:
        length: of a sequence.
        train: examples of the training set.
        test: examples of the test set.
        seed: of numbers and places.

    Raises:
        UserError: a value does not fit.
    """
    require_whole("length", length, least=2)
    for name, value in (("train", train), ("test", test)):
        require_whole(name, value, least=1)
    require_whole("seed", seed, least=0)
    generator, count, half = keyed_generator(seed, Stream.SEQUENCES, 1), train + test, length // 2
    numbers = torch.rand(count, length, generator=generator)
    first = torch.randint(0, half, (count, 1), generator=generator)
    second = torch.randint(half, length, (count, 1), generator=generator)
    places = torch.cat([first, second], 1)
    marks = torch.zeros(count, length).scatter_(1, places, 1.0)
    inputs, sums = torch.stack([numbers, marks], 2), numbers.gather(1, places).sum(1, keepdim=True)
    return ExampleSplits(Examples(inputs[:train], sums[:train]), Examples(inputs[train:], sums[train:]))
