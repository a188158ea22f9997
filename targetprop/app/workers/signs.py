"""Signs of life: what each process of a run says of itself, and for how long each has said nothing."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch.distributed as dist

from targetprop.app.workers.kept import kept_in
from targetprop.utils.errors import is_number, require

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store

INTERVAL = 1.0
"""Seconds from one sign of life to the next."""
LEAST = 5.0
"""The shortest `trainer.worker_timeout`, in seconds: several intervals, since a busy machine delays signs."""
STARTING = 120.0
"""Seconds that a process has for its first sign at least: it imports torch before it."""


def worker_timeout(config: Mapping[str, Any]) -> float:
    """For how many seconds a process may be silent.

    Raises:
        UserError: what is given is no number, or too small.
    """
    given = config["trainer"].get("worker_timeout")
    fits = is_number(given) and given >= LEAST
    require(fits, "trainer.worker_timeout", f"a number of seconds, {LEAST:g} or more", given)
    return float(given)


@dataclass(frozen=True)
class Sign:
    """One sign of life.

    Attributes:
        pid: of the process.
        host: the machine that it is on.
        number: of the sign; each has one of its own.
        doing: what the main thread of the process is at.
        seconds: since when.
        output_dir: where the process writes; that of process 0 is the run's.
        left: whether this is the last sign of a process that is done.
    """

    pid: int
    host: str
    number: int
    doing: str
    seconds: float
    output_dir: str
    left: bool = False

    def encoded(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def decoded(cls, text: bytes) -> Sign:
        return cls(**json.loads(text))


class Progress:
    """What the main thread of this process is at, for its signs of life."""

    def __init__(self) -> None:
        self._now = "the start", time.monotonic()
        self._number = 0

    def at(self, doing: str) -> None:
        """From now on it is at this."""
        self._now = doing, time.monotonic()

    def sign(self, output_dir: str, *, left: bool = False) -> Sign:
        """The next sign of life."""
        self._number += 1
        doing, since = self._now
        return Sign(os.getpid(), socket.gethostname(), self._number, doing, time.monotonic() - since, output_dir, left)


PROGRESS = Progress()
"""Of this process; there is one, as there is one torch.distributed."""


class Board:
    """Where all processes put their signs: a store of torch.distributed, by a connection of its own.

    The store's other users would keep this one waiting on theirs.
    """

    def __init__(self, store: Store, world: int) -> None:
        again = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")  # torchrun may start all processes anew
        self._store = dist.PrefixStore(f"signs/{again}", store.clone())  # type: ignore[attr-defined]
        self._unborn = list(range(world))
        self._born: list[int] = []

    def put(self, rank: int, sign: Sign) -> None:
        """Replace the sign of a process."""
        self._store.set(str(rank), sign.encoded())

    def read(self) -> dict[int, Sign]:
        """The last sign of each process that has given one, by rank."""
        self._born += [rank for rank in self._unborn if self._store.check([str(rank)])]
        self._unborn = [rank for rank in self._unborn if rank not in self._born]
        found = self._store.multi_get([str(rank) for rank in self._born]) if self._born else []
        return {rank: Sign.decoded(text) for rank, text in zip(self._born, found, strict=True)}


class Roll:
    """For how long each of so many processes has been silent.

    It is not measured by a clock, which goes on while whoever looks is stopped (Ctrl-Z, a suspended job): from one look
    to the next it is two intervals at most.

    Args:
        world: how many processes there are.
        limit: for how many seconds one may be silent.

    Attributes:
        signs: the last one of each process that has given one, by rank.
        silent: seconds for which each process has been silent.
    """

    def __init__(self, world: int, limit: float) -> None:
        self.limit = limit
        self.signs: dict[int, Sign] = {}
        self.silent = [0.0] * world

    def look(self, signs: Mapping[int, Sign], seconds: float) -> None:
        """Take in what there is to see, so many seconds after the last look."""
        for rank, silent in enumerate(self.silent):
            new = signs.get(rank)
            if new is not None and new != self.signs.get(rank):
                self.signs[rank], self.silent[rank] = new, 0.0
            else:
                self.silent[rank] = silent + min(seconds, 2 * INTERVAL)

    @property
    def present(self) -> list[int]:
        """All but those that are done."""
        return [rank for rank in range(len(self.silent)) if rank not in self.signs or not self.signs[rank].left]

    def lost(self, among: Collection[int]) -> int | None:
        """Of these processes the one that has been silent for longest, if it was for longer than it may."""
        late = [rank for rank in among if self.silent[rank] > self._limit(rank)]
        return max(late, key=lambda rank: self.silent[rank], default=None)

    def _limit(self, rank: int) -> float:
        return self.limit if rank in self.signs else max(self.limit, STARTING)

    @property
    def kept(self) -> str:
        """Which command goes on, if it is known where process 0 writes."""
        return kept_in(Path(self.signs[0].output_dir)) if 0 in self.signs else ""

    def name(self, rank: int) -> str:
        """A process, with what is known of where it is."""
        sign = self.signs.get(rank)
        return f"Process {rank}" + (f" (pid {sign.pid} on {sign.host})" if sign else "")

    def does_not_respond(self, rank: int) -> str:
        """What to say of a process that is lost."""
        limit = f"trainer.worker_timeout={self.limit:g}"
        return f"{self.name(rank)} does not respond ({limit}): {self.last_sign(rank)}. So the run ends."

    def last_sign(self, rank: int) -> str:
        """When a process gave its last sign of life, and what it was at then; no whole sentence."""
        sign = self.signs.get(rank)
        if sign is None:
            return f"no sign of life in the {self.silent[rank]:.0f} s since its start"
        where = f"then at {sign.doing}, for {sign.seconds:.1f} s"
        return f"last sign of life {self.silent[rank]:.0f} s ago, {where}"
