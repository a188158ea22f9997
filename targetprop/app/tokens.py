"""The task of naming a class at every place of a sequence, as language models do."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from rich.table import Table
from torch import Tensor
from torchmetrics import MeanMetric, Metric, MetricCollection

from targetprop.app.report.curves import Curve
from targetprop.app.report.table import Surprises, surprises_table
from targetprop.app.score import Score, bits_per
from targetprop.app.task import ALONE, Loss, Result, Row, Task
from targetprop.utils.errors import UserError, require
from targetprop.utils.losses import token_cross_entropy

if TYPE_CHECKING:
    from targetprop.app.datamodule import HeldDataModule
    from targetprop.app.described import Described


class Tokens(Task):
    """Every place of a sequence is of one class: cross-entropy, bits per token (its mean / log 2), and perplexity.

    Args:
        unit: what the tokens are, in reports: "character", "symbol".
    """

    name = "tokens"
    loss = "targetprop.utils.losses.token_cross_entropy"
    trained = ("loss", "bits")
    evaluated = ("bits", "perplexity", "loss")
    reported = ("bits", "perplexity")
    searched = "bits"
    fewer = frozenset(reported)

    def __init__(self, monitor: str, mode: str, unit: str = "token") -> None:
        super().__init__(monitor, mode)
        require(isinstance(unit, str) and bool(unit), "unit", "a name", unit)
        self.unit = unit

    @property
    def score(self) -> Score:
        """Bits per token."""
        return bits_per(self.unit)

    @property
    def curves(self) -> tuple[Curve, ...]:  # type: ignore[override]
        """Bits per token, and the loss that is minimised."""
        return (Curve("bits", f"bits per {self.unit}"), Curve("loss", "cross-entropy (nats)"))

    def guess(self, data: HeldDataModule) -> float:
        """Bits of a uniform answer."""
        return math.log2(data.outputs)

    def check(self, data: Described, loss: Loss) -> None:
        if data.places is None:
            kind = "numbers to be met" if data.classes is None else "one label for each example"
            other = "regression" if data.classes is None else "classification"
            message = f"tokens needs a label of every place of a sequence, and this data has {kind}; set task={other}."
            raise UserError(message, key="task")
        outputs, labels = torch.zeros(2, 3, data.outputs), torch.zeros(2, 3, dtype=torch.int64)
        try:
            fits = loss(outputs, labels).shape == ()
        except Exception:  # whatever a loss of other shapes raises
            fits = False
        if not fits:
            message = f"expected a loss of outputs (batch, time, classes) and labels (batch, time), such as {self.loss}"
            raise UserError(message, key="model.loss")

    def output_shape(self, data: Described) -> tuple[int, ...]:
        """(time, classes)."""
        return (data.places or 0, data.outputs)

    def training_metrics(self, outputs: int) -> dict[str, Metric]:
        return {"loss": MeanMetric(nan_strategy="disable", **ALONE), "bits": MeanBits(nan_strategy="disable", **ALONE)}

    def evaluation_metrics(self, outputs: int) -> MetricCollection:
        return MetricCollection({"tokens": Surprise(nan_strategy="disable", **ALONE)}, compute_groups=False)

    def result(self, values: Mapping[str, Tensor], metrics: MetricCollection) -> Surprises:
        return Surprises(*(float(values[name]) for name in ("bits", "perplexity", "loss")))

    def labels(self, targets: Tensor) -> Tensor:
        return targets

    def table(self, results: Mapping[str, Result], classes: Sequence[str], note: str) -> Table:
        parts = {part: each for part, each in results.items() if isinstance(each, Surprises)}
        return surprises_table(parts, self.unit, note)

    def line(self, row: Row) -> str:
        validation = f", validation {row['val/bits']:.4f}" if "val/bits" in row else ""
        return f"loss {row['train/loss']:.4f}, bits per {self.unit} {row['train/bits']:.4f}{validation}"

    def shown(self, row: Row) -> dict[str, str]:
        parts = {"loss": "train/loss", "bits": "train/bits", "validation": "val/bits"}
        return {name: f"{row[key]:.3f}" for name, key in parts.items() if key in row}


class MeanBits(MeanMetric):
    """Mean bits per token, of outputs (batch, time, classes) and labels (batch, time)."""

    def update(self, outputs: Tensor, tokens: Tensor) -> None:  # type: ignore[override]
        super().update(token_cross_entropy(outputs, tokens, reduction="sample") / math.log(2))


class Surprise(MeanBits):
    """The same, with cross-entropy in nats and perplexity beside it."""

    def compute(self) -> dict[str, Any]:  # type: ignore[override]
        bits = super().compute()
        return {"bits": bits, "perplexity": 2**bits, "loss": bits * math.log(2)}
