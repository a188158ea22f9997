"""Weight mirrors: feedback weights that follow the forward weights by Hebb's rule on noise."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import torch

from targetprop.feedback.budget import Allocation, Passes
from targetprop.feedback.responses import ByResponses, MapNoise
from targetprop.network.feedback_map import response_to, where_noise_enters
from targetprop.utils.errors import is_number, require

if TYPE_CHECKING:
    from torch import Tensor

    from targetprop.layers.base import Style
    from targetprop.network.feedback_map import FeedbackMap


@dataclass(frozen=True)
class WeightMirror(ByResponses):
    """Feedback weights follow the forward weights by Hebb's rule with decay, from noise: a mirror, as `DeltaMirror`.

    In mirror mode a layer's input is noise eps alone, and its output the response W eps; the feedback weight grows with
    the product of both and decays,

        V += rate (E[eps (W eps)^T] - V),

    the mean over samples, and over positions of a kernel: Akrout et al., "Deep Learning without Weight Transport",
    2019, https://arxiv.org/abs/1904.05391, with their learning rate and their decay as one number, so that V settles at
    W^T itself. Mirror mode is not a phase of its own here: a little noise goes with every batch, and the first batch
    brings V up from zero by the plain mean.

    Args:
        rate: of learning and of decay; V forgets in 1 / rate batches.
    """

    rate: float = 0.2
    adaptive: bool = field(default=False, init=False)
    reads_weights: bool = field(default=False, init=False)
    style: Style = field(default="linear", init=False)
    styles: ClassVar[frozenset[Style]] = frozenset({"linear"})

    def __post_init__(self) -> None:
        super().__post_init__()
        require(is_number(self.rate) and 0 < self.rate <= 1, "rate", "a number above 0, at most 1", self.rate)

    @property
    def passes(self) -> Passes:
        return Passes(2, 0)

    @property
    def words(self) -> str:
        return "weight mirror"

    def update(self, part: FeedbackMap, noise: MapNoise, allocation: Allocation, repetition: int | None) -> Tensor:
        found, transposed = part.map.forward_map, part.map.transposed
        eps = noise.white()
        with torch.autocast(eps.device.type, enabled=False):
            eps = eps.to(transposed.dtype)
            patches = where_noise_enters(part).patches(eps)
            correlation = response_to(part, eps, patches).mT @ patches / allocation.counts.clamp_min(1)
            rate = self.rate if repetition is None else 1 / (repetition + 1)
            transposed.lerp_(found.from_matrix(correlation), rate)
        return torch.zeros((), device=eps.device)
