"""What a run shows to people: its configuration as a tree, its curves, and its results as a table."""

from targetprop.app.report.curves import draw_curves
from targetprop.app.report.feedback import FeedbackCourse, draw_feedback
from targetprop.app.report.table import Result, results_table, times_line
from targetprop.app.report.tree import config_tree

__all__ = ["FeedbackCourse", "Result", "config_tree", "draw_curves", "draw_feedback", "results_table", "times_line"]
