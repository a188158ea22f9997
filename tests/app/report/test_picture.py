"""What a drawing leaves behind."""

from __future__ import annotations

import gc
from pathlib import Path

from matplotlib.figure import Figure

from targetprop.app.report.curves import draw_curves
from targetprop.app.report.feedback import FeedbackCourse, draw_feedback
from targetprop.app.task import Classification

CURVES = Classification.curves


def figures() -> int:
    """How many figures this process holds."""
    return sum(isinstance(each, Figure) for each in gc.get_objects())


def test_drawn_figures_are_freed_although_the_garbage_collector_does_not_run(tmp_path: Path) -> None:
    gc.collect()
    before = figures()
    gc.disable()  # a training loop makes too few objects for it to run
    try:
        for _ in range(3):
            draw_curves(tmp_path / "curves.png", [{"epoch": 1.0, "train/loss": 1.0, "train/accuracy": 0.5}], [], CURVES)
            draw_feedback(tmp_path / "feedback.png", "title", {2: FeedbackCourse([90.0, 80.0], [1.0, 0.9], [3.0])})
        assert figures() <= before + 1  # matplotlib's own caches may hold the last one
    finally:
        gc.enable()
