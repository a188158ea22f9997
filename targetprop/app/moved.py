"""Settings of the first edition, and where they are now."""

from __future__ import annotations

from collections.abc import Sequence

from targetprop.utils.errors import UserError

FEEDBACK = {
    "exact": "It is model.hparams.gradient=closed_form now.",
    "textbook": "It is model.hparams.gradient=autograd now.",
    "expected": "This estimator is gone; model.hparams.gradient=closed_form samples the same gradient.",
    "amortised": "It is model=delta_mirror now, and model=amortised_dtp is the same with genuine targets.",
    "kolen_pollack": "It is model=kolen_pollack now.",
    "lee": "It is model=lee_dtp now.",
}
"""Choices of the group `feedback`, which were values of `feedback.rule` as well."""

ELSEWHERE = (
    "How feedback learns is part of the model now: model=dtp, amortised_dtp, delta_mirror, kolen_pollack, "
    "lee_dtp or fixed_dtp."
)

KEYS = {
    "feedback.twin": "It is model.hparams.style now.",
    "feedback.budget": "It is model.hparams.budget of model=delta_mirror now.",
    "feedback.adaptive": "It is model.hparams.adaptive of model=delta_mirror now.",
    "feedback": ELSEWHERE,
    "network.dtp.beta": "It is model.hparams.beta now.",
    "network.dtp.feedback_training_iterations": "It is model.hparams.feedback_training_iterations now.",
    "network.dtp.noise": "It is model.hparams.noise now.",
    "network.dtp.f_lr": "It is model.hparams.f_optim.lr now.",
    "network.dtp.f_lr_aligned": "It is model.hparams.f_optim.lr of model=delta_mirror now.",
    "network.dtp.b_lr": "It is model.hparams.b_optim.lr now.",
    "network.dtp": "The numbers of an algorithm stand in model.hparams now, those that depend on the network, too.",
    "model.feedback": ELSEWHERE,
    "model.recipe": "It is model=NAME now, or model.algorithm=NAME with the numbers of the model that is chosen.",
}
"""Keys, also of everything below them."""


def refuse_moved(overrides: Sequence[str]) -> None:
    """Answer settings of the first edition with where they are now.

    Raises:
        UserError: one of the overrides is such a setting.
    """
    for override in overrides:
        name, _, value = override.lstrip("+~").partition("=")
        key = name.partition("@")[0]
        if key in ("feedback", "feedback.rule") and value in FEEDBACK:
            raise UserError(FEEDBACK[value], key=f"{key}={value}")
        place = next((each for each in KEYS if key == each or key.startswith(f"{each}.")), None)
        if place is not None:
            raise UserError(f"There is no such key. {KEYS[place]}", key=key)
