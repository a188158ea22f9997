"""What all pictures have in common: how axes look, files that are whole, and no memory left behind."""

from __future__ import annotations

import functools
import gc
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from targetprop.utils.files import whole_file

P = ParamSpec("P")


def leaves_no_memory(draw: Callable[P, None]) -> Callable[P, None]:
    """Free what a drawing function has built, once it has returned.

    A figure refers to itself in thousands of places, so that only a full pass of the garbage collector frees it. A
    training loop makes so few objects that Python sees no reason for such a pass for hours: without this, 7 MB stay for
    each redrawn picture.
    """

    @functools.wraps(draw)
    def drawing(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            draw(*args, **kwargs)
        finally:
            gc.collect()

    return drawing


def tidy(axes: Axes, label: str) -> None:
    """A horizontal axis in whole numbers, a faint grid, no frame above and to the right."""
    axes.set_xlabel(label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def widen(axes: Axes) -> None:
    """A vertical axis for numbers of either sign that lie orders of magnitude apart: logarithmic beyond -1 and 1."""
    axes.set_yscale("symlog", linthresh=1)
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, whole or not at all."""
    with whole_file(path) as partial:
        figure.savefig(partial, dpi=130, format="png")
