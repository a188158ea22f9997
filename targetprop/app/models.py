"""Models by configuration: what `model=...` builds. Each is a function (network, hparams, seed) -> learner."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from hydra.utils import get_method, get_object
from omegaconf import DictConfig
from torch import nn

from targetprop.algorithms import named
from targetprop.algorithms.base import Algorithm
from targetprop.app.objects import plain
from targetprop.app.optimizers import forward_optimizer, optimizer_spec
from targetprop.app.places import NUMBERS, placed
from targetprop.baselines.backprop import Backprop
from targetprop.baselines.notebook import AsPrinted
from targetprop.learner import Learner
from targetprop.learners import named as named_rule
from targetprop.learners.base import LearnerRule
from targetprop.trainable import Trainable
from targetprop.utils.errors import UserError, refuse_unknown, require

R = TypeVar("R", Algorithm, LearnerRule)
log = logging.getLogger(__name__)


def target_propagation(
    network: nn.Module,
    hparams: Mapping[str, Any],
    *,
    seed: int,
    algorithm: str,
    input_shape: Sequence[int] | None = None,
) -> Learner:
    """A learner by an algorithm with the numbers of `hparams` in it.

    Args:
        network: what is trained.
        hparams: numbers of the algorithm, beside `f_optim`, which is not the learner's.
        seed: of the noise.
        algorithm: one of `ALGORITHMS`, or the import path of an `Algorithm`.
        input_shape: of one sample of the data.

    Raises:
        UserError: a value that does not fit, or that the algorithm does not have, named by its full key.
    """
    with placed():
        chosen = find_algorithm(algorithm)
        given = _with_numbers(chosen, hparams)
        if "." in algorithm:
            _say_replaced(algorithm, chosen, given)
        return Learner(network, given, seed=seed, input_shape=input_shape)


def check_hparams(model: DictConfig) -> None:
    """Refuse numbers that a model does not have or that do not fit, as far as this does not depend on the network.

    Raises:
        UserError: one of them, named by its full key.
    """
    hparams, target = plain(model.hparams), get_method(model["_target_"])
    forward_optimizer(hparams)
    with placed():
        if target is target_propagation:
            _with_numbers(find_algorithm(model.algorithm), hparams)
        elif target is other_rule:
            _with_numbers(named_rule(model.rule), hparams)


def _with_numbers(chosen: R, hparams: Mapping[str, Any]) -> R:
    """An algorithm or a rule, with the numbers of `hparams`."""
    numbers = {key: value for key, value in hparams.items() if key != "f_optim"}
    refuse_unknown(numbers, [*chosen.numbers, "f_optim"])
    if "b_optim" in numbers:
        numbers["b_optim"] = optimizer_spec("b_optim", hparams)
    return chosen.with_numbers(**numbers)


def other_rule(network: nn.Sequential, hparams: Mapping[str, Any], *, seed: int, rule: str) -> Trainable:
    """The learner of a rule that is no sweep of targets, with the numbers of `hparams` in it.

    Args:
        network: what is trained.
        hparams: numbers of the rule, beside `f_optim`, which is not the learner's.
        seed: of noise, if the rule draws some.
        rule: one of `LEARNERS`.

    Raises:
        UserError: a value that does not fit, or that the rule does not have, named by its full key.
    """
    with placed():
        return _with_numbers(named_rule(rule), hparams).start(network, seed=seed)


def as_printed(network: nn.Sequential, hparams: Mapping[str, Any], *, seed: int) -> AsPrinted:
    """The course notebook's learner.

    Raises:
        UserError: a number is set that is part of it, or the network is not an MLP.
    """
    _refuse_numbers(hparams, "model=as_printed has the notebook's numbers; only f_optim can be set.")
    with placed():
        return AsPrinted(network, seed=seed)


def backprop(network: nn.Module, hparams: Mapping[str, Any], *, seed: int) -> Backprop:
    """The baseline, which draws no noise and so needs no seed.

    Raises:
        UserError: a number is set that it does not have.
    """
    _refuse_numbers(hparams, "model=backprop has neither feedback nor targets; only f_optim can be set.")
    return Backprop(network)


def _say_replaced(name: str, chosen: Algorithm, given: Algorithm) -> None:
    """Say which numbers of an algorithm of the user's own the configuration replaces."""
    replaced = [key for key, value in given.numbers.items() if value != chosen.numbers[key]]
    if replaced:
        log.info("%s trains with the configuration's %s (with model=own, with its own).", name, ", ".join(replaced))


def find_algorithm(name: str) -> Algorithm:
    """The algorithm of this name, or at this import path.

    Raises:
        UserError: there is none.
    """
    require(isinstance(name, str), "algorithm", "a name, or the import path of an Algorithm", name)
    if "." not in name:
        return named(name)
    try:
        found = get_object(name)
    except Exception as error:  # whatever the module of the user raises while it is imported
        reason = " ".join(str(error).split())
        raise UserError(f"{name} cannot be imported: {reason}", key="algorithm") from error
    require(isinstance(found, Algorithm), "algorithm", "the import path of an Algorithm", name)
    return found


def _refuse_numbers(hparams: Mapping[str, Any], message: str) -> None:
    for key in hparams:
        if key != "f_optim":
            raise UserError(message, key=f"{NUMBERS}.{key}")
