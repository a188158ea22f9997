"""Recipes refuse numbers that cannot be meant, by the key that holds them."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace
from typing import Any

import pytest
import torch
from torch import nn

from targetprop import DTP, LEE_DTP, TP, VANILLA_DTP, OptimizerSpec, Recipe, UserError
from targetprop.algorithms import OPTIMIZERS, per_block
from targetprop.feedback.rules import difference, direct, l_drl, reconstruction

NAN = float("nan")


def assert_refused(refusal: pytest.ExceptionInfo[UserError], key: str, value: object) -> None:
    """The message starts with the key and shows what was given."""
    message = str(refusal.value)
    assert message.startswith(f"{key}: expected ")
    assert f"got {value!r}" in message


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("beta", 0),
        ("beta", -0.1),
        ("beta", NAN),
        ("beta", "0.7"),
        ("beta", True),
        ("beta", None),
        ("noise", -0.1),
        ("noise", [0.1, 0.0]),
        ("noise", [0.1, None]),
        ("feedback_training_iterations", -1),
        ("feedback_training_iterations", 2.5),
        ("feedback_training_iterations", True),
    ],
)
def test_recipe_refuses_bad_numbers_by_key(key: str, value: Any) -> None:
    with pytest.raises(UserError) as refusal:
        replace(DTP, **{key: value})
    assert_refused(refusal, key, value)


def test_recipe_refuses_a_bad_number_in_a_list_of_iterations() -> None:
    with pytest.raises(UserError, match=r"^feedback_training_iterations: expected .*30\.5"):
        replace(DTP, feedback_training_iterations=[20, 30.5])  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("key", "value"),
    [("lr", -0.1), ("lr", [0.1, NAN]), ("lr", "0.1"), ("lr", None), ("momentum", -0.9), ("weight_decay", -1e-4)],
)
def test_optimizer_refuses_bad_numbers_by_key(key: str, value: Any) -> None:
    with pytest.raises(UserError) as refusal:
        OptimizerSpec(**{key: value})
    assert_refused(refusal, key, value)


def test_unknown_optimizer_is_answered_with_the_nearest_name() -> None:
    with pytest.raises(
        UserError, match=r"type: unknown value 'adamm'\. Did you mean 'adam'.*Valid: adam, adamw, rmsprop"
    ):
        OptimizerSpec(type="adamm")


@pytest.mark.parametrize("kind", ["adam", "adamw"])
def test_momentum_is_refused_where_there_is_none(kind: str) -> None:
    with pytest.raises(UserError, match=f"momentum: {kind} has none, set momentum=0; got 0.9"):
        OptimizerSpec(type=kind, momentum=0.9)


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_optimizer_is_built_with_its_numbers(kind: str) -> None:
    momentum = 0.5 if kind in ("sgd", "rmsprop") else 0.0
    spec = OptimizerSpec(kind, lr=0.3, momentum=momentum, weight_decay=0.01)
    for optimizer, lr in ((spec.build([nn.Parameter(torch.zeros(2))]), 0.3), (spec.build([torch.zeros(2)], 0.0), 0.0)):
        assert type(optimizer) is OPTIMIZERS[kind]
        assert optimizer.defaults["lr"] == lr
        assert optimizer.defaults["weight_decay"] == 0.01
        assert optimizer.defaults.get("momentum", 0.0) == momentum


def test_unknown_output_is_answered_with_the_nearest_name() -> None:
    with pytest.raises(UserError, match=r"output: unknown value 'los'\. Did you mean 'loss'"):
        Recipe(output="los")


def test_recipes_are_values() -> None:
    assert Recipe() == DTP
    assert replace(DTP, beta=0.5).beta == 0.5
    with pytest.raises(FrozenInstanceError):
        DTP.beta = 0.5  # type: ignore[misc]


def test_published_recipes_are_their_functions() -> None:
    assert (DTP.targets, DTP.feedback_loss) == (difference, l_drl)
    assert (VANILLA_DTP.targets, VANILLA_DTP.feedback_loss) == (difference, reconstruction)
    assert (TP.targets, TP.feedback_loss) == (direct, reconstruction)
    assert (LEE_DTP.targets, LEE_DTP.feedback_loss, LEE_DTP.output) == (difference, reconstruction, "loss")


def test_one_number_stands_for_all_blocks_and_a_list_for_each() -> None:
    assert per_block("noise", 0.1, ["a", "b", "c"]) == [0.1, 0.1, 0.1]
    assert per_block("noise", (0.1, 0.2), ["a", "b"]) == [0.1, 0.2]
    assert per_block("noise", [], []) == []


@pytest.mark.parametrize("values", [[], [0.1], [0.1, 0.2, 0.3]])
def test_list_of_another_length_is_refused_with_key_and_blocks(values: list[float]) -> None:
    with pytest.raises(UserError) as refusal:
        per_block("noise", values, ["2 (Linear, ELU)", "3 (Linear)"])
    message = str(refusal.value)
    assert message.startswith("noise: expected 2 values")
    assert "(2 (Linear, ELU); 3 (Linear))" in message
    assert message.endswith(f"got {len(values)}: {values}.")
