"""Whether a network still is one of finite numbers: what is not, is neither kept as good nor evaluated."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

from targetprop.app.errors import DivergenceError

if TYPE_CHECKING:
    from targetprop.network.pair import Pair

ADVICE = "Lower learning rates (model.hparams.f_optim.lr, model.hparams.b_optim.lr) often help."


def first_not_finite(state: Mapping[str, Any]) -> str | None:
    """The name of the first tensor that holds not-a-number or infinity; None if there is none.

    Minus infinity alone is no sign of trouble: masks of attention hold it.

    Args:
        state: a state dict, which may hold further ones; theirs are named by both names, with a dot between.
    """
    for name, value in state.items():
        if isinstance(value, Tensor) and bool((value.isnan() | (value == math.inf)).any()):
            return str(name)
        if isinstance(value, Mapping) and (inner := first_not_finite(value)) is not None:
            return f"{name}.{inner}"
    return None


def block_not_finite(pairs: Iterable[Pair]) -> str | None:
    """Which weights are not finite, as "the weights of block 2 (Linear)"; None if all are.

    Statistics that a layer keeps, such as BatchNorm's, count as its weights.
    """
    for pair in pairs:
        weights = all(bool(each.isfinite().all()) for each in pair.parameters())
        if not weights or first_not_finite(pair.state_dict()) is not None:
            return f"the weights of block {pair.name}"
    return None


class Outputs:
    """Whether all outputs of an evaluation are finite, found out without waiting for the device between batches."""

    def __init__(self) -> None:
        self._finite: Tensor | None = None

    def see(self, output: Tensor) -> Tensor:
        """Remember whether an output is finite, and return it."""
        finite = output.detach().isfinite().all()
        self._finite = finite if self._finite is None else self._finite & finite
        return output

    def refuse_not_finite(self, part: str, pairs: Iterable[Pair]) -> None:
        """Begin anew, after an evaluation has ended.

        Args:
            part: of the data, for the message.
            pairs: of the network that was evaluated.

        Raises:
            DivergenceError: an output or a weight is not finite: accuracies would mean nothing.
        """
        finite, self._finite = self._finite, None
        what = block_not_finite(pairs)
        if what is None and finite is not None and not bool(finite):
            what = f"an output of the network on {part} images"
        if what is not None:
            raise DivergenceError(f"Training has diverged: not finite: {what}. Nothing was evaluated. {ADVICE}")
