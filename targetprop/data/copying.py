"""The copying task (Hochreiter and Schmidhuber 1997): some symbols are to be written down again after a long wait."""

from __future__ import annotations

import torch
from torch import Tensor

from targetprop.data.examples import Examples, ExampleSplits
from targetprop.data.keyed import Stream, keyed_generator
from targetprop.utils.errors import require_whole


def load(
    *,
    symbols: int = 8,
    copied: int = 10,
    wait: int = 20,
    train: int = 10_000,
    test: int = 1_000,
    seed: int = 0,
) -> ExampleSplits:
    """Sequences of `copied` symbols, a wait, and as many blanks, for the symbols to be written; all places labelled.

    Labels are blanks up to the end of the wait, and then the symbols in their order, as by Arjovsky et al. ("Unitary
    Evolution Recurrent Neural Networks", 2016, https://arxiv.org/abs/1511.06464): a sequence is wait + 2 copied long.
    All places count for the loss, so who remembers nothing can reach copied log(symbols) / (wait + 2 copied).

    Args:
        symbols: how many different ones; tokens are 0 (blank), these, and the sign.
        copied: symbols in a sequence.
        wait: places between, all blank but the last one, which is the sign to begin.
        train: examples of the training set.
        test: examples of the test set.
        seed: of the symbols.

    Raises:
        UserError: a value does not fit.
    """
    for name, value in (("symbols", symbols), ("copied", copied), ("wait", wait), ("train", train), ("test", test)):
        require_whole(name, value, least=1)
    require_whole("seed", seed, least=0)
    generator = keyed_generator(seed, Stream.SEQUENCES, 0)
    drawn = torch.randint(1, symbols + 1, (train + test, copied), generator=generator)
    classes = ("blank", *(f"symbol {number}" for number in range(1, symbols + 1)), "sign")
    return ExampleSplits(_sequences(drawn[:train], wait, classes), _sequences(drawn[train:], wait, classes))


def _sequences(drawn: Tensor, wait: int, classes: tuple[str, ...]) -> Examples:
    count, copied = drawn.shape
    inputs, targets = (torch.zeros(count, wait + 2 * copied, dtype=torch.int64) for _ in range(2))
    inputs[:, :copied] = drawn
    inputs[:, copied + wait - 1] = len(classes) - 1
    targets[:, copied + wait :] = drawn
    return Examples(inputs, targets, classes)
