"""The curves of a run as one picture."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from targetprop.app.report.picture import leaves_no_memory, save, tidy, widen

Rows = Sequence[Mapping[str, float]]


@dataclass(frozen=True)
class Curve:
    """A metric that is drawn over the epochs.

    Args:
        name: of the metric, behind "train/" and "val/".
        label: of the axis.
        scale: by which the metric is multiplied.
        logarithmic: whether the axis is.
    """

    name: str
    label: str
    scale: float = 1.0
    logarithmic: bool = False


@leaves_no_memory
def draw_curves(path: Path, epochs: Rows, alignment: Rows, curves: Sequence[Curve], title: str = "") -> None:
    """Draw metrics, and where there is feedback also its loss and the updates' angles, into `path` (PNG).

    Args:
        epochs: one row an epoch, with "epoch" and whatever was logged.
        alignment: one row a measurement, with "epoch" (fractional) and "angle/block{n}".
        curves: the metrics; one that no row has is left out.
        title: above all panels, as text.
    """
    known = {key for row in epochs for key in row}
    drawn = [each for each in curves if {f"train/{each.name}", f"val/{each.name}"} & known]
    panels: list[Callable[[Axes], None]] = [partial(_both, rows=epochs, curve=each) for each in drawn]
    if any(key.startswith("feedback_loss/") for key in epochs[-1]):
        panels.append(lambda axes: draw_blocks(axes, epochs, "feedback_loss/", "feedback loss", wide=True))
    if alignment:
        panels.append(lambda axes: draw_blocks(axes, alignment, "angle/", "angle of update to backprop (degrees)"))
    rows, columns = (len(panels) + 1) // 2, 2
    figure = Figure(figsize=(5.5 * columns, 3.6 * rows), layout="constrained")
    if title:
        figure.suptitle(title, parse_math=False, wrap=True)
    for position, panel in enumerate(panels, start=1):
        axes = figure.add_subplot(rows, columns, position)
        panel(axes)
        axes.set_xlim(0, 1.03 * epochs[-1]["epoch"])
        tidy(axes, "epoch")
    figure.align_ylabels()
    save(figure, path)


def _both(axes: Axes, rows: Rows, curve: Curve) -> None:
    """Training and validation curve of one metric."""
    for part, shown, color in (("train", "training", "tab:blue"), ("val", "validation", "tab:orange")):
        key = f"{part}/{curve.name}"
        points = [(row["epoch"], curve.scale * row[key]) for row in rows if key in row]
        if points:
            axes.plot(*zip(*points, strict=True), label=shown, color=color, marker="o", markersize=3)
    if curve.logarithmic:
        axes.set_yscale("log")
    axes.set_ylabel(curve.label)
    axes.legend(frameon=False)


def draw_blocks(axes: Axes, rows: Rows, prefix: str, label: str, wide: bool = False) -> None:
    """One curve a block, from dark (lowest) to light."""
    if wide and any(abs(value) > 10 for row in rows for key, value in row.items() if key.startswith(prefix)):
        widen(axes)
    names = sorted({key for row in rows for key in row if key.startswith(prefix)}, key=_block_number)
    for name in names:
        color = colormaps["viridis"](0.9 * _block_number(name) / _block_number(names[-1]))
        points = [(row["epoch"], row[name]) for row in rows if name in row]
        axes.plot(
            *zip(*points, strict=True), label=f"block {_block_number(name)}", color=color, marker="o", markersize=3
        )
    axes.set_ylabel(label)
    if names:
        axes.legend(frameon=False, fontsize="small", ncols=2)


def _block_number(name: str) -> int:
    return int(name.rsplit("block", 1)[1])
