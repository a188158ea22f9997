"""Angles and norm ratios between target propagation and backprop, measured during training."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from targetprop.app.callbacks.measuring import Measuring
from targetprop.layers.activation_feedback import CarryingFeedback

if TYPE_CHECKING:
    from targetprop.app.module import TaskModule
    from targetprop.network.network import PairedNetwork

log = logging.getLogger(__name__)

SUITED = 15.0
"""Degrees between update and backprop's gradient on the first batch, up to which nothing is said."""


class Alignment(Measuring):
    """Logs every `every_n_steps` steps, for block n = 1, 2, ...:

    - `angle/block{n}`: degrees between its update and backprop's gradient on the same batch and weights;
    - `norm_ratio/block{n}`: norm of its update over `update_scale` (beta) times the norm of backprop's gradient;
    - `feedback_angle/block{n}`: degrees between feedback and forward weights (mean over its linear layers);
    - `feedback_distance/block{n}`: norm of their difference over that of the forward weights (mean, too).

    The backprop pass runs beside the training step, on copies of buffers, with the step's random state.
    """

    key = "callbacks.alignment"

    def __init__(self, every_n_steps: int = 25) -> None:
        super().__init__(["backprop", "feedback_weights"], every_n_steps)

    def say_left_out(self, name: str, reason: str) -> None:
        """Nothing: it is in every run, backprop's among them."""

    def say_first(self, module: TaskModule, values: Mapping[str, float]) -> None:
        """Name activations that do not suit."""
        network = module.learner.network
        for line in unsuited(network, [values.get(f"angle/block{n + 1}", 0.0) for n in range(len(network.pairs))]):
            log.warning(line)


def unsuited(network: PairedNetwork, angles: Sequence[float]) -> list[str]:
    """A line for each activation through which targets come down far from where backprop's errors would.

    Args:
        angles: of every block's update to backprop's gradient, degrees.
    """
    lines = []
    for number, pair in network.fed.items():
        carrying = [each.name for each in pair.modules() if isinstance(each, CarryingFeedback)]
        if carrying and angles[number - 1] > SUITED:
            lines.append(
                f"Block {pair.name}: through {' and '.join(dict.fromkeys(carrying))} targets come down "
                f"{angles[number - 1]:.0f} degrees from backprop's gradient, on the first batch. Activations that "
                "suit: ELU, tanh, sigmoid, softplus; or a smaller beta."
            )
    return lines
