"""What a network is trained for: naming classes, or meeting numbers; of sequences see `tokens.py`.

All that differs between tasks stands in them: the loss, the metrics, what is told of an epoch, how results are shown,
and the score by which runs are compared. Whoever trains, logs, reports or compares asks the task.
"""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from hydra.utils import instantiate
from rich.table import Table
from torch import Tensor
from torchmetrics import MeanMetric, Metric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy
from torchmetrics.regression import R2Score

from targetprop.app.report.curves import Curve
from targetprop.app.report.table import Accuracies, Errors, Surprises, accuracies_table, errors_table
from targetprop.app.score import ACCURACY, MEAN_SQUARED_ERROR, Score
from targetprop.utils.errors import UserError

if TYPE_CHECKING:
    from targetprop.app.datamodule import HeldDataModule
    from targetprop.app.described import Described

Result = Accuracies | Errors | Surprises
Row = Mapping[str, float]
"""Numbers of an epoch, by their names: "train/loss", "val/accuracy"."""
Loss = Callable[[Tensor, Tensor], Tensor]
"""(outputs, targets) -> mean over the batch."""

IN_FULL = re.compile("^val(?=[/_])")
"""What `validation` is called in short, at the head of a metric's name."""
PARTS = {"val": "validation", "train": "training"}
"""Words for the parts of the data that metrics are named by."""

ALONE: dict[str, Any] = {"sync_on_compute": False, "compute_with_cache": False}
"""Metrics are read by one process at a time: of layer-parallel ones, all of a group see the same batches."""


class Task(ABC):
    """One kind of task.

    Args:
        monitor: the metric by which checkpoints are compared.
        mode: whether less ("min") or more ("max") of it is better.
    """

    name: ClassVar[str]
    loss: ClassVar[str]
    """Import path of what is minimised where nothing else is said."""
    trained: ClassVar[tuple[str, ...]]
    """Names of the metrics of training, behind "train/"."""
    evaluated: ClassVar[tuple[str, ...]]
    """Names of the metrics of evaluation, behind "val/" and "test/"."""
    reported: ClassVar[tuple[str, ...]]
    """Names of the numbers of a result."""
    searched: ClassVar[str]
    """The one of them that a search looks at where nothing else is said."""
    fewer: ClassVar[frozenset[str]] = frozenset()
    """Those of them of which less is better."""
    curves: tuple[Curve, ...]
    """What is drawn over the epochs."""

    def __init__(self, monitor: str, mode: str) -> None:
        self.monitor = monitor
        self.mode = mode

    @property
    @abstractmethod
    def score(self) -> Score:
        """By which runs are compared."""

    @abstractmethod
    def guess(self, data: HeldDataModule) -> float:
        """The score of an answer that is the same for all examples, which a run that diverges counts as."""

    def output_shape(self, data: Described) -> tuple[int, ...]:
        """Of the network's output for an example."""
        return (data.outputs,)

    @abstractmethod
    def check(self, data: Described, loss: Loss) -> None:
        """Refuse data, or a loss, that are of another task.

        Raises:
            UserError: says which task they are of.
        """

    @abstractmethod
    def training_metrics(self, outputs: int) -> dict[str, Metric]:
        """Those of an epoch by their names: "loss", fed with the batches' means, and others, with outputs and targets.

        Args:
            outputs: how many numbers the network gives for an example.
        """

    @abstractmethod
    def evaluation_metrics(self, outputs: int) -> MetricCollection:
        """Those of an evaluation, fed with outputs and targets."""

    @abstractmethod
    def result(self, values: Mapping[str, Tensor], metrics: MetricCollection) -> Result:
        """What is kept of an evaluation.

        Args:
            values: of its metrics.
            metrics: themselves, before they are reset.
        """

    @abstractmethod
    def labels(self, targets: Tensor) -> Tensor | None:
        """The classes of a batch, for rules that learn from them; None if there are none."""

    @abstractmethod
    def table(self, results: Mapping[str, Result], classes: Sequence[str], note: str) -> Table:
        """The results of the parts of the data ("validation", "test")."""

    @abstractmethod
    def line(self, row: Row) -> str:
        """What is told of an epoch."""

    def best(self, rows: Sequence[Row]) -> str:
        """The best of the metric by which checkpoints are compared, as text; without validation, the last of training.

        Args:
            rows: of the epochs.
        """
        part, _, name = self.monitor.partition("/")
        values = [row[self.monitor] for row in rows if self.monitor in row]
        if values:
            value = max(values) if self.mode == "max" else min(values)
            return f"best {PARTS.get(part, part)} {self._as_text(name, value)}"
        known = [name for name in reversed(self.trained) if rows and f"train/{name}" in rows[-1]]
        return f"training {self._as_text(known[0], rows[-1][f'train/{known[0]}'])}" if known else ""

    def _as_text(self, name: str, value: float) -> str:
        percent = any(curve.name == name and curve.scale == 100 for curve in self.curves)
        return f"{name} {100 * value:.2f} %" if percent else f"{name} {value:.4g}"

    @abstractmethod
    def shown(self, row: Row) -> dict[str, str]:
        """What stands beside a progress bar, by what is known so far."""


class Classification(Task):
    """Every example is of one class: cross-entropy, and the share of right answers."""

    name = "classification"
    loss = "torch.nn.functional.cross_entropy"
    trained = ("loss", "accuracy")
    evaluated = ("accuracy", "loss", "top5")
    reported = ("accuracy",)
    searched = "accuracy"
    curves = (Curve("loss", "cross-entropy"), Curve("accuracy", "accuracy (%)", scale=100.0))
    score = ACCURACY

    def guess(self, data: HeldDataModule) -> float:
        """The accuracy of chance."""
        return 1 / data.outputs

    def check(self, data: Described, loss: Loss) -> None:
        if data.classes is None:
            raise UserError(
                "classification needs labels, whole numbers, and the targets of this data are numbers to be met; "
                "set task=regression.",
                key="task",
            )
        if data.places is not None:
            message = "classification needs one label for each example, and this data has one for every place; "
            raise UserError(f"{message}set task=tokens.", key="task")

    def training_metrics(self, outputs: int) -> dict[str, Metric]:
        # Validation of its arguments would wait for the device in every step.
        accuracy = MulticlassAccuracy(outputs, average="micro", validate_args=False, **ALONE)
        return {"loss": MeanMetric(nan_strategy="disable", **ALONE), "accuracy": accuracy}

    def evaluation_metrics(self, outputs: int) -> MetricCollection:
        return MetricCollection(
            {
                "loss": MeanCrossEntropy(nan_strategy="disable", **ALONE),
                "accuracy": MulticlassAccuracy(outputs, average="micro", **ALONE),
                "top5": MulticlassAccuracy(outputs, average="micro", top_k=min(5, outputs), **ALONE),
                "per_class": MulticlassAccuracy(outputs, average="none", **ALONE),
            },
            compute_groups=False,
        )

    def result(self, values: Mapping[str, Tensor], metrics: MetricCollection) -> Accuracies:
        accuracy, top5 = (float(values[name]) for name in ("accuracy", "top5"))
        counts = metrics["per_class"].tp + metrics["per_class"].fn  # type: ignore[operator]
        per_class = zip(values["per_class"].tolist(), counts.tolist(), strict=True)
        return Accuracies(accuracy, top5, [value if count else None for value, count in per_class])

    def labels(self, targets: Tensor) -> Tensor:
        return targets

    def table(self, results: Mapping[str, Result], classes: Sequence[str], note: str) -> Table:
        parts = {part: each for part, each in results.items() if isinstance(each, Accuracies)}
        return accuracies_table(parts, classes, note)

    def line(self, row: Row) -> str:
        validation = f", validation {100 * row['val/accuracy']:.2f} %" if "val/accuracy" in row else ""
        return f"loss {row['train/loss']:.4f}, training accuracy {100 * row['train/accuracy']:.2f} %{validation}"

    def shown(self, row: Row) -> dict[str, str]:
        shown = {"loss": f"{row['train/loss']:.3f}"} if "train/loss" in row else {}
        shown |= {"accuracy": f"{100 * row['train/accuracy']:.1f}%"} if "train/accuracy" in row else {}
        return shown | ({"validation": f"{100 * row['val/accuracy']:.1f}%"} if "val/accuracy" in row else {})


class Regression(Task):
    """Every example has numbers to be met: their mean squared error, and the share of their variance explained, R^2."""

    name = "regression"
    loss = "torch.nn.functional.mse_loss"
    trained = ("loss",)
    evaluated = ("loss", "r2")
    reported = ("mse", "r2")
    searched = "r2"
    fewer = frozenset({"mse"})
    curves = (
        Curve("loss", "mean squared error", logarithmic=True),
        Curve("r2", "share of variance explained, R$^2$"),
    )
    score = MEAN_SQUARED_ERROR

    def guess(self, data: HeldDataModule) -> float:
        """The mean squared error of the training targets' mean, on these."""
        return float(data.targets.double().var(0, correction=0).mean())

    def check(self, data: Described, loss: Loss) -> None:
        if data.classes is not None:
            raise UserError(
                "regression needs numbers to be met, and the targets of this data are labels; "
                f"set task={'classification' if data.places is None else 'tokens'}.",
                key="task",
            )
        example = torch.zeros(2, data.outputs)
        try:
            fits = loss(example, example).shape == ()
        except Exception:  # whatever a loss for labels raises
            fits = False
        if not fits:
            message = f"expected a loss of numbers to be met, such as {self.loss}, got one of labels"
            raise UserError(message, key="model.loss")

    def training_metrics(self, outputs: int) -> dict[str, Metric]:
        return {"loss": MeanMetric(nan_strategy="disable", **ALONE)}

    def evaluation_metrics(self, outputs: int) -> MetricCollection:
        return MetricCollection({"loss": SquaredError(**ALONE), "r2": ExplainedVariance(**ALONE)}, compute_groups=False)

    def result(self, values: Mapping[str, Tensor], metrics: MetricCollection) -> Errors:
        mse, r2 = (float(values[name]) for name in ("loss", "r2"))
        return Errors(mse, r2 if math.isfinite(r2) else None)

    def labels(self, targets: Tensor) -> None:
        return None

    def table(self, results: Mapping[str, Result], classes: Sequence[str], note: str) -> Table:
        return errors_table({part: each for part, each in results.items() if isinstance(each, Errors)}, note)

    def line(self, row: Row) -> str:
        validation = f", validation {row['val/loss']:.4g}" if "val/loss" in row else ""
        return f"loss {row['train/loss']:.4g}{validation}"

    def shown(self, row: Row) -> dict[str, str]:
        parts = {"loss": "train/loss", "validation": "val/loss"}
        return {name: f"{row[key]:.4g}" for name, key in parts.items() if key in row}


def score_of(config: Mapping[str, Any]) -> Score:
    """That of the task in a run's configuration; runs of the first edition, which has no tasks, are classifications."""
    described = config.get("task")
    if not described:
        return ACCURACY
    task: Task = instantiate(described)
    return task.score


def searched(metrics: Mapping[str, float], wanted: str | None, task: Task) -> float | None:
    """What a search looks at of a run's metrics.

    Args:
        wanted: its name; None for the task's, in validation, and without validation the test's.
    """
    parts = ("validation", "test")
    keys = (
        [f"{part}/{task.searched}" for part in parts] if wanted is None else [wanted, IN_FULL.sub("validation", wanted)]
    )
    return next((metrics[key] for key in keys if key in metrics), None)


def less_is_better(wanted: str | None, task: Task) -> bool:
    """Whether a search that looks at this has to minimise it."""
    return (wanted or task.searched).rpartition("/")[2] in task.fewer


def worst(wanted: str | None, task: Task) -> float:
    """What a search is told of a run that failed: the worst value of the metric that it looks at."""
    return math.inf if less_is_better(wanted, task) else 0.0


class MeanCrossEntropy(MeanMetric):
    """Mean cross-entropy over samples, as a metric of logits and labels."""

    def update(self, logits: Tensor, labels: Tensor) -> None:  # type: ignore[override]
        super().update(F.cross_entropy(logits, labels, reduction="none"))


class SquaredError(MeanMetric):
    """Mean squared error over samples and outputs, as a metric of outputs and targets."""

    def update(self, outputs: Tensor, targets: Tensor) -> None:  # type: ignore[override]
        super().update(F.mse_loss(outputs, targets, reduction="none").mean(1))


class ExplainedVariance(R2Score):
    """1 - squared error / squared deviation from the mean, each summed over all outputs; not a number for one sample.

    It is summed up in double precision: targets may lie far from 0.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(multioutput="variance_weighted", **options)
        self.set_dtype(torch.float64)

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        super().update(outputs.double(), targets.double())

    def compute(self) -> Tensor:
        return super().compute() if self.total > 1 else torch.tensor(math.nan)
