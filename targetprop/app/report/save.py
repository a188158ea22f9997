"""Save a picture so that a run killed now leaves the previous one whole."""

from __future__ import annotations

import os
from pathlib import Path

from matplotlib.figure import Figure


def save_figure(figure: Figure, path: Path) -> None:
    """Save `figure` as `path` (PNG) all at once."""
    partial = path.with_suffix(".part.png")
    figure.savefig(partial, dpi=130)
    os.replace(partial, path)
