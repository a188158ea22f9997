"""Lightning's view of the processes of a layer-parallel run."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, TypeVar, cast

import lightning as L
import torch
import torch.distributed as dist
from lightning.pytorch.strategies import SingleDeviceStrategy

from targetprop.app.places import placed
from targetprop.app.workers.signs import PROGRESS
from targetprop.execution.parallel import distribute, gather
from targetprop.learner import Learner

if TYPE_CHECKING:
    from targetprop.execution.grid import Grid

_T = TypeVar("_T")


class LayerParallelStrategy(SingleDeviceStrategy):
    """One device for every process; `execution.parallel` talks to the others. Process 0 decides, logs and writes.

    Args:
        device: of this process.
        grid: where this process stands among the others.
    """

    strategy_name = "layer_parallel"

    def __init__(self, device: torch.device, grid: Grid) -> None:
        super().__init__(device)
        self.grid = grid
        self.global_rank, self.world_size = dist.get_rank(), dist.get_world_size()
        self.local_rank = int(os.environ.get("LOCAL_RANK", self.global_rank))

    @property
    def is_global_zero(self) -> bool:
        return self.global_rank == 0

    @property
    def learner(self) -> Learner:
        """The learner of the module that is trained; `distribute` refuses what is none."""
        assert self.lightning_module is not None
        return cast(Learner, self.lightning_module.learner)

    def setup(self, trainer: L.Trainer) -> None:
        """Divide the training between the processes, once the module is on its device."""
        super().setup(trainer)
        if trainer.state.fn == "fit":
            with placed():
                distribute(self.learner, self.grid)

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps: it holds the feedback optimisers of all processes, so any number can go on."""
        gather(self.learner)
        return super().lightning_module_state_dict()

    def broadcast(self, obj: _T, src: int = 0) -> _T:
        objects = [obj]
        dist.broadcast_object_list(objects, src=src)
        return objects[0]

    def barrier(self, *args: Any, **kwargs: Any) -> None:
        dist.barrier()

    def reduce_boolean_decision(self, decision: bool, all: bool = True) -> bool:
        """Process 0 decides for all: they have the same metrics, but not to the last bit on every kind of machine."""
        decided = torch.tensor(int(decision), device=self.root_device)
        dist.broadcast(decided, src=0)
        return bool(decided)

    def agree(self, number: int) -> int:
        """The largest of the numbers of all processes; a collective call."""
        largest = torch.tensor(number, device=self.root_device)
        dist.all_reduce(largest, op=dist.ReduceOp.MAX)
        return int(largest)

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        """As ever, and signs of life tell of it."""
        assert self.lightning_module is not None
        PROGRESS.at(f"training step {self.lightning_module.global_step + 1}")
        return super().training_step(*args, **kwargs)

    def validation_step(self, *args: Any, **kwargs: Any) -> Any:
        PROGRESS.at(f"batch {args[-1] + 1} of validation")
        return super().validation_step(*args, **kwargs)

    def test_step(self, *args: Any, **kwargs: Any) -> Any:
        PROGRESS.at(f"batch {args[-1] + 1} of the test")
        return super().test_step(*args, **kwargs)
