"""Kinds of values by the annotations of what takes them, for objects that the schema does not describe."""

from __future__ import annotations

import inspect
import math
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from targetprop.app.schema.kinds import ANYTHING, MAPPING, NULL, TEXT, TRUTH, Kind, list_of

WHOLE = Kind("a whole number", lambda given: _is_number(given) and float(given).is_integer())  # type: ignore[arg-type]
NUMBER = Kind("a number", lambda given: _is_number(given))
BY_TYPE: Mapping[Any, Kind] = {
    bool: TRUTH, int: WHOLE, float: NUMBER, str: TEXT, Path: TEXT, type(None): NULL, dict: MAPPING, Mapping: MAPPING,
    "bool": TRUTH, "int": WHOLE, "float": NUMBER, "str": TEXT,
    "int | None": WHOLE | NULL, "float | None": NUMBER | NULL, "str | None": TEXT | NULL,
}  # fmt: skip
"""Types, and their names where an annotation cannot be evaluated."""


def _is_number(given: object) -> bool:
    return isinstance(given, int | float) and not isinstance(given, bool) and not math.isnan(given)


def kinds_of(target: Callable[..., Any]) -> dict[str, Kind]:
    """What each parameter takes by its annotation, and in any case its default."""
    parameters = inspect.signature(target).parameters
    made_by: Any = vars(target).get("__init__", target) if isinstance(target, type) else target
    try:
        hints = get_type_hints(made_by)
    except Exception:  # names that are only there for a type checker
        hints = {}
    return {name: _with_default(_kind(hints.get(name, each.annotation)), each) for name, each in parameters.items()}


def _with_default(kind: Kind, parameter: inspect.Parameter) -> Kind:
    return kind | NULL if parameter.default is None and not kind.takes(None) else kind


def _kind(annotation: Any) -> Kind:
    if annotation in BY_TYPE:
        return BY_TYPE[annotation]
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return Kind(" or ".join(map(str, arguments)), lambda given: given in arguments)
    if origin in (Union, types.UnionType):
        kinds = [_kind(each) for each in arguments]
        either = kinds[0]
        for kind in kinds[1:]:
            either = either | kind
        return ANYTHING if ANYTHING in kinds else either
    if origin in (list, Sequence):
        return list_of(_kind(arguments[0]) if arguments else ANYTHING, "values")
    return BY_TYPE.get(origin, ANYTHING)
