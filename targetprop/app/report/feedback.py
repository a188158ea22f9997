"""How the feedback learns within one batch, as one picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from targetprop.app.report.picture import leaves_no_memory, save, tidy, widen


@dataclass(frozen=True)
class FeedbackCourse:
    """One pair's feedback during the K updates of a batch.

    Attributes:
        angles: between V and W^T in degrees, before the first update and after each (K + 1).
        distances: ||V - W^T|| / ||W||, at the same moments (K + 1).
        losses: the feedback loss of each update (K).
    """

    angles: list[float] = field(default_factory=list)
    distances: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)


@leaves_no_memory
def draw_feedback(path: Path, title: str, courses: Mapping[int, FeedbackCourse]) -> None:
    """Draw angle, distance and loss by feedback iteration into `path` (PNG), a curve for each block, by its number."""
    figure = Figure(figsize=(13, 3.8), layout="constrained")
    figure.suptitle(title)
    panels = figure.subplots(1, 3)
    for number, course in courses.items():
        color = colormaps["viridis"](0.9 * number / max(courses))
        for axes, values, first in zip(
            panels, (course.angles, course.distances, course.losses), (0, 0, 1), strict=True
        ):
            _curve(axes, values, first, label=f"block {number}", color=color)
    panels[0].set_ylabel("angle between V and W$^T$ (degrees)")
    panels[1].set_ylabel("||V - W$^T$|| / ||W||")
    panels[2].set_ylabel("feedback loss")
    widen(panels[2])
    panels[0].legend(frameon=False, fontsize="small")
    for axes in panels:
        tidy(axes, "feedback iteration")
    save(figure, path)


def _curve(axes: Axes, values: Sequence[float], first: int, *, label: str, color: tuple[float, ...]) -> None:
    axes.plot(range(first, first + len(values)), values, label=label, color=color, marker="o", markersize=2)
