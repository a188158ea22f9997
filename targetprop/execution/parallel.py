"""Layer-parallel training: which process trains which pair's feedback, and how the others get it.

Pairs do not look at each other while their feedback learns, so every process trains its own ones and then publishes
them. All else is done by every process in the same way: all have the same network, see the same batch and take the same
forward step. Noise is keyed, not drawn in turn, so the result is the sequential one, bit for bit.

The processes form a grid (data, layers). Those of one row share a batch and divide the pairs between them; rows train
on batches of their own, and gradients are averaged over them.
"""

from __future__ import annotations

import copy
import io
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from targetprop.execution.schedule import Wrapper
from targetprop.learner import Learner
from targetprop.noise import GaussianNoise
from targetprop.utils.errors import UserError

if TYPE_CHECKING:
    from targetprop.execution.grid import Grid
    from targetprop.feedback.base import FeedbackLearning
    from targetprop.network.passes import Pass


class Distributed(Wrapper):
    """Every process trains the feedback of its own blocks, then all of them get that of all.

    Args:
        owners: for each block with feedback the column that trains it; None until `share_out` is told what they cost.
            Where every block has a column of its own there is nothing to find out.

    Raises:
        UserError: more columns than blocks with feedback.
    """

    def __init__(self, inner: FeedbackLearning, grid: Grid, owners: Sequence[int] | None = None) -> None:
        super().__init__(inner)
        fed = len(self.network.fed_numbers)
        if grid.columns > fed:
            raise UserError(
                f"expected at most {fed}, one for each block with trained feedback, "
                f"got {grid.columns} (for each of {grid.rows} groups on batches of their own).",
                key="processes",
            )
        self.grid = grid
        self.owners = list(range(fed)) if owners is None and grid.columns == fed else owners
        self._losses: dict[int, Tensor] = {}
        if grid.rows > 1:
            inner.bare.average = self.average_over_rows

    def __deepcopy__(self, memo: dict[int, Any]) -> FeedbackLearning:
        """A copy is alone, whatever processes the original belongs to."""
        alone: FeedbackLearning = copy.deepcopy(self.inner, {**memo, id(self.inner.bare.average): None})
        alone.bare.average = None
        return alone

    @property
    def own(self) -> list[int]:
        """The blocks that this process trains."""
        assert self.owners is not None
        owned = zip(self.network.fed_numbers, self.owners, strict=True)
        return [block for block, owner in owned if owner == self.grid.column]

    def before_sweep(self, seen: Pass) -> None:
        self.inner.before_sweep(seen)
        if self.owners is None:
            self.share_out(self._seconds(seen) if self.grid.is_first else [])
        losses = {block: self.inner.learn(seen, block) for block in self.own}
        self._losses = self.publish({block: self.learned(block) for block in self.network.fed_numbers}, losses)

    def learn(self, seen: Pass, block: int) -> Tensor:
        return self._losses.pop(block)

    def after_sweep(self, seen: Pass, local_losses: Tensor) -> None:
        self.inner.after_sweep(seen, local_losses)
        self.share_gradients([*self.network.forward_parameters(), *self.parameters_for_the_user()])
        self.average_over_rows([local_losses])

    def share_out(self, costs: Sequence[float]) -> None:
        """Divide the blocks by what each costs, as process 0 has measured it; a collective call."""
        owners: list[Any] = [share_out(costs, self.grid.columns)]
        dist.broadcast_object_list(owners, src=0)
        self.owners = owners[0]

    def publish(self, learned: Mapping[int, Sequence[Tensor]], losses: Mapping[int, Tensor]) -> dict[int, Tensor]:
        """Send what each owner's blocks have learned, and their losses, to all of its row: one broadcast an owner.

        Args:
            learned: the tensors of all blocks with feedback that learning may change, by block; written in place.
            losses: of this process's own blocks.

        Returns:
            The losses of all blocks.
        """
        assert self.owners is not None
        like = next(iter(losses.values()))
        published = {block: losses[block] if block in losses else torch.empty_like(like) for block in learned}
        for owner in range(self.grid.columns):
            blocks = [block for block, theirs in zip(learned, self.owners, strict=True) if theirs == owner]
            tensors = [each for block in blocks for each in learned[block]]
            self._send([*tensors, *(published[block] for block in blocks)], owner)
        self.average_over_rows(list(published.values()))
        return published

    def share_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """The same gradients everywhere: those of column 0, averaged over the rows.

        Within a row they agree already, but for rounding that differs from one kind of processor to another, or on a
        GPU from one run to the next; without this, processes would drift apart.
        """
        gradients = [p.grad for p in parameters if p.grad is not None]
        self.average_over_rows(gradients)
        self._send(gradients, 0)

    def average_over_rows(self, tensors: Sequence[Tensor]) -> None:
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

    def gather(self) -> None:
        """Bring the state of every block's feedback here from where it is trained; all processes call this."""
        if self.owners is None:
            return
        own = self.states(self.own)
        sent = io.BytesIO()
        torch.save(own, sent)
        gathered: list[Any] = [None] * self.grid.columns
        dist.all_gather_object(gathered, sent.getvalue(), group=self.grid.same_batch)
        for each in gathered:
            # By way of the CPU: another machine's GPU may have a number that there is none of here.
            states = torch.load(io.BytesIO(each), map_location="cpu", weights_only=True)
            self.load_states({block: state for block, state in states.items() if block not in own})

    def _send(self, tensors: Sequence[Tensor], column: int) -> None:
        """Overwrite the tensors of all processes of the row by those of one column, in one broadcast."""
        if self.grid.columns == 1 or not tensors:
            return
        flat = _bytes(tensors)
        dist.broadcast(flat, src=self.grid.row * self.grid.columns + column, group=self.grid.same_batch)
        if column != self.grid.column:
            _spread(flat, tensors)

    def _seconds(self, seen: Pass) -> list[float]:
        """What each block's feedback learning takes on this batch, tried out alone: afterwards all is as it was."""
        # Forward weights are not touched, not even by writing the same into them: graphs need them as they were.
        learned = [each for block in self.network.fed_numbers for each in self.learned(block)]
        before, state = [each.clone() for each in learned], copy.deepcopy(self.state_dict())
        average, self.inner.bare.average = self.inner.bare.average, None
        seen.step += 1  # the first step is not like the others
        self.inner.before_sweep(seen)

        def once(block: int) -> float:
            start = time.perf_counter()
            float(self.inner.learn(seen, block))  # waits for the device
            return time.perf_counter() - start

        # The better of two: the first one of a kind loads code, which on a GPU takes longer than running it.
        seconds = [min(once(block), once(block)) for block in self.network.fed_numbers]
        seen.step -= 1
        self.inner.before_sweep(seen)
        for each, was in zip(learned, before, strict=True):
            each.copy_(was)
        self.load_state_dict(state)
        self.inner.bare.average = average
        return seconds


def distribute(learner: Learner, grid: Grid) -> None:
    """From now on train a learner's feedback on the processes of a grid, all of which call this.

    Their weights become equal.

    Raises:
        UserError: what is trained has no feedback that could be divided, its algorithm looks beyond one block, there
            are more columns than blocks with feedback, or noise of the user's own for several rows.
    """
    if not isinstance(learner, Learner):
        raise UserError(f"{type(learner).__name__} has no feedback that processes could divide between them.")
    if grid.rows > 1:
        if not isinstance(learner.noise, GaussianNoise):
            raise UserError("a source of your own cannot be divided between the rows of a grid.", key="noise")
        learner.noise = learner.noise.part(grid.row, grid.rows)
    distributed = Distributed(learner.learning.bare, grid)
    learner.learning = distributed
    distributed.equal([*learner.parameters(), *learner.buffers()])


def distributed_of(learner: object) -> Distributed | None:
    """What divides a learner's feedback between processes; None if it is trained in one."""
    learning = learner.learning if isinstance(learner, Learner) else None
    return learning if isinstance(learning, Distributed) else None


def grid_of(learner: object) -> Grid | None:
    """The grid that trains a learner; None if it is trained in one process."""
    distributed = distributed_of(learner)
    return None if distributed is None else distributed.grid


def gather(learner: object) -> None:
    """Bring the state of all feedback to every process, as before a checkpoint; all processes call this."""
    distributed = distributed_of(learner)
    if distributed is not None:
        distributed.gather()


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
