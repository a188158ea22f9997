"""Packages of the extra `compare`, imported where they are needed, so that a comparison starts without them."""

from __future__ import annotations

import importlib
from typing import Any

from targetprop.utils.errors import UserError

EXTRA = 'pip install "targetprop[compare]"'


def needed(module: str, what: str) -> Any:
    """A module of a package that only comparisons need.

    Args:
        what: it is needed for.

    Raises:
        UserError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise UserError(f"{what} needs the package {package}, which is not there ({error}): {EXTRA}") from None
