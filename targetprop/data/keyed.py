"""Random generators keyed by what they are for, so that no draw depends on any other draw."""

from __future__ import annotations

from enum import IntEnum

import numpy as np
import torch


class Stream(IntEnum):
    """What the random numbers are for: equal seeds give unrelated numbers in different streams."""

    SPLIT = 1
    ORDER = 2
    AUGMENT = 3
    SAMPLE = 4
    FLIP = 5
    TEACHER = 6
    SEQUENCES = 7


def keyed_generator(seed: int, stream: Stream, *place: int) -> torch.Generator:
    """A CPU generator determined by its arguments alone (all >= 0); `place` is, say, the epoch and the batch.

    Torch's global random state is neither read nor changed. The key is hashed because generators seeded with
    neighbouring integers (seed + epoch) would make epoch 1 of seed 0 the same as epoch 0 of seed 1.
    """
    (mixed,) = np.random.SeedSequence([seed, stream, *place]).generate_state(1, np.uint32)
    return torch.Generator().manual_seed(int(mixed))
