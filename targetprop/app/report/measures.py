"""What was measured during a run as one picture."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure

from targetprop.app.report.curves import Rows, draw_blocks
from targetprop.app.report.picture import leaves_no_memory, save, tidy

COLUMNS = 3


@leaves_no_memory
def draw_measures(path: Path, rows: Rows, labels: Mapping[str, str]) -> None:
    """Draw a panel for each quantity, in it a curve for each block, into `path` (PNG).

    Args:
        rows: one a measurement, with "epoch" (fractional) and `quantity/block{n}`.
        labels: of the axes, by quantity; what was never measured gets no panel.
    """
    shown = [quantity for quantity in labels if any(name.startswith(f"{quantity}/") for row in rows for name in row)]
    columns = min(COLUMNS, len(shown))
    lines = math.ceil(len(shown) / columns)
    figure = Figure(figsize=(5.0 * columns, 3.4 * lines), layout="constrained")
    for position, quantity in enumerate(shown, start=1):
        axes = figure.add_subplot(lines, columns, position)
        draw_blocks(axes, rows, f"{quantity}/", labels[quantity])
        tidy(axes, "epoch")
    save(figure, path)
