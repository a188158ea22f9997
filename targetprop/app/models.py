"""Models by configuration: what `model=...` builds. Each is a function (network, hparams, seed) -> learner."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import nn

from targetprop.algorithms import RECIPES, OptimizerSpec
from targetprop.baselines.backprop import Backprop
from targetprop.baselines.notebook import AsPrinted
from targetprop.learner import Learner
from targetprop.utils.errors import UserError, is_number, require, unknown


def target_propagation(
    network: nn.Sequential, hparams: Mapping[str, Any], *, seed: int, recipe: str, feedback: Mapping[str, Any]
) -> Learner:
    """A learner by one of the named `RECIPES`, with the settings of `feedback` and the numbers of `hparams` in it.

    Raises:
        UserError: a value that does not fit, named by its configuration key.
    """
    if recipe not in RECIPES:
        raise unknown("model.recipe", recipe, RECIPES)
    try:
        base = replace(
            RECIPES[recipe], **{"feedback" if key == "rule" else key: each for key, each in feedback.items()}
        )
    except UserError as error:
        raise UserError("feedback." + str(error).replace("feedback:", "rule:", 1)) from None
    except TypeError as error:
        raise UserError(f"feedback: {error}") from None
    numbers = {key: value for key, value in hparams.items() if key not in ("f_optim", "b_optim")}
    b_optim = optimizer_spec("b_optim", hparams)
    try:
        return Learner(network, replace(base, b_optim=b_optim, **numbers), seed=seed)
    except UserError as error:
        raise UserError(f"model.hparams.{error}") from None
    except TypeError as error:
        raise UserError(f"model.hparams: {error}") from None


def as_printed(network: nn.Sequential, hparams: Mapping[str, Any], *, seed: int) -> AsPrinted:
    """The course notebook's learner.

    Raises:
        UserError: a number of the recipe is set, which is part of it, or the network is not an MLP.
    """
    for key in hparams:
        if key != "f_optim":
            raise UserError(
                f"model.hparams.{key}: model=as_printed has the notebook's numbers; only f_optim can be set."
            )
    return AsPrinted(network, seed=seed)


def backprop(network: nn.Sequential, hparams: Mapping[str, Any], *, seed: int) -> Backprop:
    """The baseline: it has neither feedback nor noise."""
    return Backprop(network)


def optimizer_spec(name: str, hparams: Mapping[str, Any]) -> OptimizerSpec:
    """The optimiser that stands at `model.hparams.{name}`.

    Raises:
        UserError: a value that does not fit, named by its configuration key.
    """
    try:
        spec = OptimizerSpec(**hparams[name])
        if name == "f_optim":
            require(is_number(spec.lr), "lr", "one number, for all blocks", spec.lr)
    except UserError as error:
        raise UserError(f"model.hparams.{name}.{error}") from None
    except TypeError as error:
        raise UserError(f"model.hparams.{name}: {error}") from None
    return spec
