"""The processes of a layer-parallel run, as rows and columns."""

from __future__ import annotations

from dataclasses import dataclass

import torch.distributed as dist

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
            raise UserError(f"expected a divisor of the {world} processes there are, got {rows}.", key="data_parallel")
        columns = world // rows
        ranks = [list(range(row * columns, (row + 1) * columns)) for row in range(rows)]
        same_batch, _ = dist.new_subgroups_by_enumeration(ranks)
        same_pairs, _ = dist.new_subgroups_by_enumeration([list(each) for each in zip(*ranks, strict=True)])
        return cls(rows, columns, rank // columns, rank % columns, same_batch, same_pairs)

    @property
    def is_first(self) -> bool:
        """Whether this is the process that measures and writes."""
        return self.row == self.column == 0
