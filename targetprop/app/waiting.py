"""How threads that have done their part wait for the others.

OpenMP's runtime reads it from the environment while torch is imported; so this module imports nothing of torch.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping

POLICY = {"GOMP_SPINCOUNT": "10000", "KMP_BLOCKTIME": "1"}
"""Wait busily for a fraction of a millisecond, then sleep: for libgomp, and in milliseconds for libomp and Intel's.

By themselves they wait busily for some ten milliseconds, or for 200. Beside other processes a thread that is waited for
may not be running at all, and busy waiting takes the core that it needs; but where nothing else runs, to sleep and to
be woken takes longer than most layers of a small network do.
"""
WAITING = (*POLICY, "OMP_WAIT_POLICY", "KMP_LIBRARY")
NUMBER = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OMP_THREAD_LIMIT", "OMP_DYNAMIC")
"""Variables by which a user says how threads wait, and how many there are."""


def set_wait_policy(environment: MutableMapping[str, str]) -> None:
    """Put the policy into an environment, for this process and those it starts, unless its user has set anything."""
    if not any(name in environment for name in WAITING) and not names_number(environment):
        environment.update(POLICY)


def names_number(environment: Mapping[str, str]) -> bool:
    """Whether the user has said how many threads there are; what `torchrun` says is not the user's."""
    return "TORCHELASTIC_RUN_ID" not in environment and any(name in environment for name in NUMBER)
