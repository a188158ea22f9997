"""Messages for users."""

from __future__ import annotations

from targetprop.utils.errors import unknown


def test_unknown_name_is_answered_with_the_nearest_and_all_valid_ones() -> None:
    error = unknown("activation", "rellu", ["tanh", "relu", "elu"])
    assert str(error) == "activation: unknown value 'rellu'. Did you mean 'relu' or 'elu'? Valid: elu, relu, tanh."


def test_name_unlike_any_gets_no_suggestion() -> None:
    assert str(unknown("activation", 7, ["tanh", "relu"])) == "activation: unknown value 7. Valid: relu, tanh."
