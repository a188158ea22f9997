"""A picture of how a network was cut: blocks, layers, the paths between them, and what comes down by which feedback."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from targetprop.app.report.picture import leaves_no_memory, save
from targetprop.network.description import Described, described
from targetprop.network.network import PairedNetwork

WEIGHTS, TARGET, ADJOINT, NONE = "#4c78a8", "#f58518", "#bab0ac", "#eeeeee"
"""Colours of layers with feedback weights, of those evaluated at the target, of all others, and without feedback."""
MEANINGS = {
    WEIGHTS: "feedback weights", TARGET: "evaluated at the target", ADJOINT: "linear in what comes down",
    NONE: "no feedback",
}  # fmt: skip


@leaves_no_memory
def cut_picture(network: PairedNetwork, path: Path) -> None:
    """Write it as PNG: a column for each block, from its input at the top down to its output."""
    blocks = described(network)
    tallest = max(map(len, blocks))
    figure = Figure(figsize=(2.6 * len(blocks), 1.6 + 0.42 * tallest), layout="constrained")
    axes = figure.subplots(1, len(blocks), squeeze=False)[0]
    for each, block, pair in zip(axes, blocks, network.pairs, strict=True):
        _column(each, block, tallest)
        each.set_title(f"block {pair.name.split()[0]}", fontsize=9)
    handles = [axes[0].scatter([], [], marker="s", color=colour, label=words) for colour, words in MEANINGS.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    save(figure, path)


def _column(axes: Axes, block: Sequence[Described], rows: int) -> None:
    axes.set_xlim(0, 1)
    axes.set_ylim(-rows - 0.6, 0.6)
    axes.axis("off")
    axes.text(0.5, 0, "input", ha="center", va="center", fontsize=7)
    for layer in block:
        box = {"boxstyle": "round", "facecolor": _colour(layer), "edgecolor": "none"}
        words = f"{layer.name} ({layer.kind})" if layer.name else layer.kind
        axes.text(0.5, -layer.number, words, ha="center", va="center", fontsize=7, bbox=box)
        for source in layer.sources or ():
            _arrow(axes, source, layer.number)


def _arrow(axes: Axes, source: int, number: int) -> None:
    """From one layer to another, around those in between."""
    far = number - source > 1
    bend = f"arc3,rad={-0.35 if far else 0}"
    x = 0.86 if far else 0.5
    style = {"arrowstyle": "->", "connectionstyle": bend, "color": "#666666", "linewidth": 0.8}
    axes.annotate("", (x, -number + 0.25), (x, -source - 0.25), arrowprops=style)


def _colour(layer: Described) -> str:
    if not layer.role:
        return NONE
    if layer.at_target:
        return TARGET
    return WEIGHTS if layer.role.startswith("feedback weights") else ADJOINT
