"""Observers of a training run. They change neither gradients nor random numbers."""

from targetprop.app.callbacks.alignment import Alignment
from targetprop.app.callbacks.checkpoint import BestCheckpoint
from targetprop.app.callbacks.divergence import StopOnDivergence
from targetprop.app.callbacks.feedback_figure import FeedbackFigure
from targetprop.app.callbacks.history import History
from targetprop.app.callbacks.printed_accuracy import PrintedAccuracy
from targetprop.app.callbacks.progress import ProgressBar, ProgressLines
from targetprop.app.callbacks.step_losses import StepLosses
from targetprop.app.callbacks.trial import AccuracyFloor, TrialRecord

__all__ = [
    "AccuracyFloor",
    "Alignment",
    "BestCheckpoint",
    "FeedbackFigure",
    "History",
    "PrintedAccuracy",
    "ProgressBar",
    "ProgressLines",
    "StepLosses",
    "StopOnDivergence",
    "TrialRecord",
]
