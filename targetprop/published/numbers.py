"""What papers report, where it could be read, with where it was: accuracies in percent, mean and standard deviation.

Numbers that could not be read are not here: of the tables of Meulemans et al. 2020 and of Shibuya et al. 2023 only
settings were at hand.
"""

from __future__ import annotations

from collections.abc import Mapping

Published = Mapping[tuple[str, str], float]
"""Test accuracy in percent, by data set and rule (names as in this software)."""

_COUNTER_CURRENT_ROWS: Mapping[str, tuple[float, float, float, float]] = {
    "backprop": (98.19, 89.58, 50.03, 22.55),
    "feedback_alignment": (96.96, 87.38, 45.76, 22.13),
    "direct_feedback_alignment": (97.27, 87.35, 42.86, 19.87),
    "shibuya_drl": (93.05, 83.40, 42.09, 19.94),
    "shibuya_l_drl": (93.29, 83.60, 42.19, 19.96),
    "fw_dtp": (97.20, 87.78, 45.91, 21.09),
    "drtp": (92.16, 82.03, 33.85, 15.53),
    "counter_current": (98.13, 88.58, 52.73, 21.76),
}
_COUNTER_CURRENT_DATA = ("mnist", "fashion_mnist", "cifar10", "cifar100")

COUNTER_CURRENT: Published = {
    (data, rule): value
    for rule, values in _COUNTER_CURRENT_ROWS.items()
    for data, value in zip(_COUNTER_CURRENT_DATA, values, strict=True)
}
"""Multi-layer perceptrons in Kao and Hariharan 2024, https://arxiv.org/abs/2409.19841 (read in the table of the paper).

Their DRL and L-DRL are those of Shibuya's code, by whose names they stand here.
"""
