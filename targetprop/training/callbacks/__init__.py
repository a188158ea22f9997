"""Observers of a training run. They change neither gradients nor random numbers."""

from targetprop.training.callbacks.alignment import Alignment
from targetprop.training.callbacks.checkpoint import BestCheckpoint
from targetprop.training.callbacks.divergence import StopOnDivergence
from targetprop.training.callbacks.feedback_figure import FeedbackFigure
from targetprop.training.callbacks.history import History
from targetprop.training.callbacks.printed_accuracy import PrintedAccuracy
from targetprop.training.callbacks.progress import ProgressBar, ProgressLines
from targetprop.training.callbacks.step_losses import StepLosses
from targetprop.training.callbacks.trial import AccuracyFloor, TrialRecord

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
