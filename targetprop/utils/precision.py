"""Mixed precision: the autocast of a forward pass, kept for what belongs to it and comes later.

Under autocast, weights, their gradients, optimiser states, statistics and losses stay float32; what flows through the
network, up and down, is bfloat16 from the first layer with weights on.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from targetprop.utils.errors import UserError


@dataclass(frozen=True)
class Autocast:
    """The state of autocast on a type of device; a type of None means that it is off."""

    device_type: str
    dtype: torch.dtype | None

    @classmethod
    def current(cls, device: torch.device) -> Autocast:
        """The state that stands now.

        Raises:
            UserError: float16, whose small gradients vanish without a scaling of losses that there is not.
        """
        kind = device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
        if dtype not in (None, torch.bfloat16):
            raise UserError(f"autocast: expected bfloat16 (float16 needs losses that are scaled), got {dtype}.")
        return cls(kind, dtype)

    def again(self) -> torch.autocast:
        """A context with this state.

        Without torch's cache of converted weights: a step uses most of them once, and it changes the feedback weights.
        """
        on = self.dtype is not None
        return torch.autocast(self.device_type, dtype=self.dtype, enabled=on, cache_enabled=False)


def wide(dtype: torch.dtype) -> torch.dtype:
    """The type to add up in: float32, or the type itself where it is wider."""
    return torch.promote_types(dtype, torch.float32)
