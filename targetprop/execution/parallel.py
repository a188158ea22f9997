"""Layer-parallel training: which process trains which pair's feedback, and how the others get it.

Pairs do not look at each other while their feedback learns, so every process trains its own ones and then publishes
them. All else is done by every process in the same way: all have the same network, see the same batch and take the same
forward step. Noise is keyed, not drawn in turn, so the result is the sequential one, bit for bit.

The processes form a grid (data, layers). Those of one row share a batch and divide the pairs between them; rows train
on batches of their own, and gradients are averaged over them.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from targetprop.utils.errors import UserError


@dataclass(frozen=True)
class Grid:
    """The processes of torch.distributed as rows that share a batch; of this process, its row and column.

    Args:
        rows: D, of data parallelism.
        columns: P, of layer parallelism; the process of global rank r stands in row r // P and column r % P.
    """

    rows: int
    columns: int
    row: int
    column: int
    same_batch: dist.ProcessGroup
    same_pairs: dist.ProcessGroup

    @classmethod
    def of_world(cls, rows: int = 1) -> Grid:
        """All processes, in so many rows; a collective call.

        Raises:
            UserError: they do not fill the rows.
        """
        world, rank = dist.get_world_size(), dist.get_rank()
        if world % rows:
            raise UserError(
                f"trainer.data_parallel: expected a divisor of the {world} processes there are, got {rows}."
            )
        columns = world // rows
        ranks = [list(range(row * columns, (row + 1) * columns)) for row in range(rows)]
        same_batch, _ = dist.new_subgroups_by_enumeration(ranks)
        same_pairs, _ = dist.new_subgroups_by_enumeration([list(each) for each in zip(*ranks, strict=True)])
        return cls(rows, columns, rank // columns, rank % columns, same_batch, same_pairs)

    @property
    def is_first(self) -> bool:
        """Whether this is the process that measures and writes."""
        return self.row == self.column == 0


class LayerParallel:
    """What one process of the grid does for a network, and what it sends to the others.

    Args:
        trained: number of pairs with feedback.
        owners: for each of them the column that trains it; None until `share_out` is told what they cost. Where
            every pair has a column of its own there is nothing to find out.

    Raises:
        UserError: more columns than pairs.
    """

    def __init__(self, grid: Grid, trained: int, owners: Sequence[int] | None = None) -> None:
        if grid.columns > trained:
            raise UserError(
                f"trainer.processes: expected at most {trained}, one for each pair with trained feedback, "
                f"got {grid.columns} (for each of {grid.rows} groups of trainer.data_parallel)."
            )
        self.grid = grid
        self.owners = list(range(trained)) if owners is None and grid.columns == trained else owners

    @property
    def own(self) -> list[int]:
        """The pairs that this process trains, counted from 0 at the first block, which has no feedback."""
        assert self.owners is not None
        return [number for number, owner in enumerate(self.owners, start=1) if owner == self.grid.column]

    def share_out(self, costs: Sequence[float]) -> None:
        """Divide the pairs by what each costs, as process 0 has measured it; a collective call."""
        owners: list[Any] = [share_out(costs, self.grid.columns)]
        dist.broadcast_object_list(owners, src=0)
        self.owners = owners[0]

    def publish(self, learned: Mapping[int, Sequence[Tensor]], losses: Mapping[int, Tensor]) -> dict[int, Tensor]:
        """What every owner's pairs have learned, and their losses, to all processes of its row: one broadcast an owner.

        Args:
            learned: the tensors of all pairs with feedback that learning may change, by number; written in place.
            losses: of this process's own pairs.

        Returns:
            The losses of all pairs.
        """
        assert self.owners is not None
        like = next(iter(losses.values()))
        published = {number: losses[number] if number in losses else torch.empty_like(like) for number in learned}
        for owner in range(self.grid.columns):
            numbers = [number for number in learned if self.owners[number - 1] == owner]
            tensors = [each for number in numbers for each in learned[number]]
            self._send([*tensors, *(published[number] for number in numbers)], owner)
        self.average(list(published.values()))
        return published

    def share_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """The same gradients everywhere: those of column 0, averaged over the rows.

        Within a row they agree already, but for rounding that differs from one kind of processor to another, or on a
        GPU from one run to the next; without this, processes would drift apart.
        """
        gradients = [p.grad for p in parameters if p.grad is not None]
        self.average(gradients)
        self._send(gradients, 0)

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors of one type by their mean over the rows."""
        if self.grid.rows == 1 or not tensors:
            return
        flat = torch.cat([each.flatten() for each in tensors])
        dist.all_reduce(flat, group=self.grid.same_pairs)
        flat /= self.grid.rows
        _spread(flat, tensors)

    def equal(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors by those of process 0."""
        self._send(tensors, 0)
        if self.grid.rows > 1 and tensors:
            flat = _bytes(tensors)
            dist.broadcast(flat, src=self.grid.column, group=self.grid.same_pairs)
            _spread(flat, tensors)

    def gather(self, own: Any) -> list[Any]:
        """What every process of the row has, by column."""
        sent = io.BytesIO()
        torch.save(own, sent)
        gathered: list[Any] = [None] * self.grid.columns
        dist.all_gather_object(gathered, sent.getvalue(), group=self.grid.same_batch)
        # By way of the CPU: another machine's GPU may have a number that there is none of here.
        return [torch.load(io.BytesIO(each), map_location="cpu", weights_only=True) for each in gathered]

    def _send(self, tensors: Sequence[Tensor], column: int) -> None:
        """Overwrite the tensors of all processes of the row by those of one column, in one broadcast."""
        if self.grid.columns == 1 or not tensors:
            return
        flat = _bytes(tensors)
        dist.broadcast(flat, src=self.grid.row * self.grid.columns + column, group=self.grid.same_batch)
        if column != self.grid.column:
            _spread(flat, tensors)


def share_out(costs: Sequence[float], processes: int) -> list[int]:
    """For each pair the process that trains it: the costliest first, each to the process that has least to do.

    Every process gets a pair, if there are enough. The largest share is at most 4/3 of the smallest possible
    (Graham 1969).
    """
    loads = [0.0] * processes
    counts = [0] * processes
    owners = [0] * len(costs)
    for pair in sorted(range(len(costs)), key=lambda pair: -costs[pair]):
        owners[pair] = min(range(processes), key=lambda process: (loads[process], counts[process]))
        loads[owners[pair]] += costs[pair]
        counts[owners[pair]] += 1
    return owners


def _bytes(tensors: Sequence[Tensor]) -> Tensor:
    """All of the tensors, of whatever types, in one of bytes."""
    return torch.cat([each.detach().flatten().view(torch.uint8) for each in tensors])


def _spread(flat: Tensor, tensors: Sequence[Tensor]) -> None:
    """Write a tensor that `torch.cat`, or `_bytes`, made back into its parts."""
    for part, tensor in zip(_parts(flat, tensors), tensors, strict=True):
        tensor.detach().copy_(part.view_as(tensor))


def _parts(flat: Tensor, tensors: Sequence[Tensor]) -> Iterator[Tensor]:
    start = 0
    for tensor in tensors:
        size = tensor.numel() * tensor.element_size() // flat.element_size()
        yield flat[start : start + size].clone().view(tensor.dtype)
        start += size
