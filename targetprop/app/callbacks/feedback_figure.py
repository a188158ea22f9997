"""A picture of how the feedback learns within one batch."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import lightning as L
import torch
from torch import Tensor

from targetprop.app.report.feedback import FeedbackCourse, draw_feedback
from targetprop.feedback.by_loss import ByLossLearning
from targetprop.learner import Learner
from targetprop.measure.alignment import feedback_angles, feedback_distances
from targetprop.network.passes import StoredPass
from targetprop.utils.errors import UserError, require_whole

if TYPE_CHECKING:
    from targetprop.network.pair import Pair


class FeedbackFigure(L.Callback):
    """Draws `folder`/step-N.png every `plot_every` steps: angle and distance between V and W^T, and the feedback loss.

    They are of the very updates that the step makes, made once more on a copy of the learner: weights, optimisers and
    random numbers of the run stay as they are. It costs a copy of the network and the time of its feedback learning.
    """

    def __init__(self, folder: str | Path, plot_every: int = 100) -> None:
        require_whole("plot_every", plot_every, least=1)
        self.folder = Path(folder)
        self.plot_every = plot_every

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Refuse a run that has nothing to draw."""
        learner = pl_module.learner
        if not isinstance(learner, Learner) or not learned_blocks(learner):
            raise UserError(
                "no feedback of this run learns in iterations on a loss; choose model=dtp or another one that has "
                "feedback_training_iterations, or set callbacks.feedback_figure=null.",
                key="callbacks.feedback_figure",
            )

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Measure and draw, if it is time."""
        if trainer.global_step % self.plot_every == 0 and trainer.is_global_zero:
            courses = feedback_courses(cast(Learner, pl_module.learner), batch[0])
            self.folder.mkdir(parents=True, exist_ok=True)
            title = f"Feedback learning on one batch, at step {trainer.global_step}"
            draw_feedback(self.folder / f"step-{trainer.global_step:06d}.png", title, courses)


def learned_blocks(learner: Learner) -> list[int]:
    """The blocks, counted from 0, whose feedback learns by a loss and has weights to compare."""
    learning = learner.learning.bare
    if not isinstance(learning, ByLossLearning):
        return []
    return [block for block in learning.optimizers if learner.network.pairs[block].weights()]


def feedback_courses(learner: Learner, x: Tensor) -> dict[int, FeedbackCourse]:
    """How the feedback of each of `learned_blocks` would learn on a batch x, by number of the block (from 2 on).

    The learner stays as it is.
    """
    probe = copy.deepcopy(learner)  # alone, whatever processes it belongs to
    learning = probe.learning.bare
    assert isinstance(learning, ByLossLearning)
    courses: dict[int, FeedbackCourse] = {}
    with torch.random.fork_rng([x.device] if x.is_cuda else []), torch.no_grad():
        seen = StoredPass(probe.network, x, probe.noise, probe.steps)
        for block in learned_blocks(probe):
            pair, course = probe.network.pairs[block], FeedbackCourse()
            courses[block + 1] = course
            _measure(pair, course)
            for loss in learning.updates(seen, block):
                course.losses.append(float(loss))
                _measure(pair, course)
    return courses


def _measure(pair: Pair, course: FeedbackCourse) -> None:
    """Angle and distance now, means over the pair's linear layers."""
    course.angles.append(float(torch.stack(feedback_angles(pair)).mean()))
    course.distances.append(float(torch.stack(feedback_distances(pair)).mean()))
