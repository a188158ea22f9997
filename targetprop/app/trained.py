"""What only target propagation can do, asked of whatever is trained."""

from __future__ import annotations

from targetprop.learner import Learner, Trainable
from targetprop.utils.errors import UserError


def learner_of(trained: Trainable, key: str, message: str) -> Learner:
    """What is trained, if it is a `Learner`.

    Args:
        trained: by whatever rule.
        key: the setting that asks for more than a `Trainable` can.
        message: what the user should do instead.

    Raises:
        UserError: it is none; it says the message.
    """
    if not isinstance(trained, Learner):
        raise UserError(f"{type(trained).__name__} is no target propagation. {message}", key=key)
    return trained
