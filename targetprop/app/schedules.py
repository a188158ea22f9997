"""Learning-rate schedules beside those of torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau


class WarmupCosine(LRScheduler):
    """Rises in a straight line, and falls as half a cosine to the end of the run, step by step.

    Args:
        optimizer: whose rates are those at the end of the rise.
        warmup_epochs: length of the rise; fractions are allowed, 0 is none.
        epochs: of the run.
        steps_per_epoch: steps of the optimiser in each of them.
        start_factor: the first rate, as a share of the optimiser's.
        eta_min: the last rate.
        last_epoch: the step to begin with, less one.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        warmup_epochs: float,
        epochs: int,
        steps_per_epoch: int,
        start_factor: float = 0.01,
        eta_min: float = 0.0,
        last_epoch: int = -1,
    ) -> None:
        self.rise, self.total = warmup_epochs * steps_per_epoch, epochs * steps_per_epoch
        if self.rise >= self.total:
            raise ValueError(f"warmup_epochs: expected less than epochs, {epochs}, got {warmup_epochs}")
        self.start_factor, self.eta_min = start_factor, eta_min
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float | Tensor]:
        """The rates of this step, one for each group of the optimiser."""
        return [self._rate(float(base)) for base in self.base_lrs]

    def _rate(self, base: float) -> float:
        step = min(self.last_epoch, self.total)
        if step < self.rise:
            return base * (self.start_factor + (1 - self.start_factor) * step / self.rise)
        fallen = (step - self.rise) / (self.total - self.rise)
        return self.eta_min + (base - self.eta_min) * (1 + math.cos(math.pi * fallen)) / 2


class Plateau(ReduceLROnPlateau):
    """Falls when a metric no longer improves, by torch's rules, and remembers what it has seen.

    Lightning steps such a schedule only after an epoch's checkpoint is written, so that a run that goes on from it has
    one validation less; this one is stepped by the module, before. With all that it has seen in its state it can be
    made anew with other numbers, as if they had been there from the start.

    Args:
        optimizer: whose rates fall.
        monitor: the metric, such as "val/accuracy" or "train/loss".
        mode: whether less ("min") or more ("max") of it is better.
        factor, patience, threshold, threshold_mode, cooldown, min_lr, eps: as of `ReduceLROnPlateau`, in epochs with a
            new value of the metric.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        monitor: str,
        mode: Literal["min", "max"],
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: Literal["rel", "abs"] = "rel",
        cooldown: int = 0,
        min_lr: float | Sequence[float] = 0.0,
        eps: float = 1e-8,
    ) -> None:
        lowest = list(min_lr) if isinstance(min_lr, Sequence) else min_lr
        super().__init__(optimizer, mode, factor, patience, threshold, threshold_mode, cooldown, lowest, eps)
        self.monitor = monitor
        self.seen: list[float] = []
        self.latest: float | None = None  # of this epoch's validations, until its end

    def end_epoch(self) -> None:
        """Look at the latest value of the metric, if the epoch has one."""
        if self.latest is not None:
            self.step(self.latest)
            self.seen.append(self.latest)
            self.latest = None

    def replay(self, seen: Sequence[float], latest: float | None) -> None:
        """Come to where it would be had it seen these values."""
        for value in seen:
            self.latest = value
            self.end_epoch()
        self.latest = latest
