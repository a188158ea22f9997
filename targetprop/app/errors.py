"""Mistakes that show while a run is under way."""

from __future__ import annotations

from targetprop.utils.errors import UserError


class DivergenceError(UserError):
    """A loss or a weight is no longer a finite number."""
