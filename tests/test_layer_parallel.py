"""Layer-parallel training is sequential training, bit for bit; rows of a grid are one larger batch."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from distributed import run_worlds
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn, optim
from torch._C._distributed_c10d import HashStore

from targetprop import (
    DELTA_MIRROR,
    DTP,
    KOLEN_POLLACK,
    LEE_DTP,
    VANILLA_DTP,
    Algorithm,
    LayerRule,
    Learner,
    OptimizerSpec,
    register,
)
from targetprop.app.processes import agreed_backend
from targetprop.data import BatchLoader
from targetprop.data.augment import Augmentation
from targetprop.data.images import Images
from targetprop.execution.grid import Grid
from targetprop.execution.parallel import Distributed, distribute, distributed_of, gather, share_out
from targetprop.layers.base import Context
from targetprop.noise import GaussianNoise, NoiseKey
from targetprop.utils.errors import UserError

SGD = OptimizerSpec(lr=[0.01, 0.02, 0.03, 0.04, 0.05], momentum=0.9)
RECIPES: dict[str, Algorithm] = {
    "closed_form": DTP.with_numbers(feedback_training_iterations=[3, 2, 1, 2, 4], b_optim=SGD),
    "autograd": DTP.with_numbers(
        gradient="autograd", feedback_training_iterations=2, b_optim=replace(SGD, momentum=0.5)
    ),
    "delta_mirror": DELTA_MIRROR,
    "kolen_pollack": KOLEN_POLLACK,
    "lee": LEE_DTP.with_numbers(feedback_training_iterations=2, b_optim=OptimizerSpec("adam", lr=1e-3)),
    "adam": VANILLA_DTP.with_numbers(feedback_training_iterations=2, b_optim=OptimizerSpec("adam", lr=1e-3)),
}
STEPS = 34  # delta mirror decides about its effort once in between


class Counting(nn.Module):
    """A layer of the user's own, with a buffer that every pass changes, also a noisy one."""

    def __init__(self) -> None:
        super().__init__()
        self.total: Tensor
        self.register_buffer("total", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.total += x.detach().mean()
        return x


@register(Counting)
class CountingRule(LayerRule[Counting]):
    def vjp(self, layer: Counting, delta: Tensor, context: Context) -> Tensor:
        return delta


def network(norm: bool = True, own: bool = False) -> nn.Sequential:
    """Six blocks, five of them with feedback; dropout draws from the global random numbers."""
    return nn.Sequential(
        *(nn.Conv2d(2, 4, 3, padding=1), nn.ELU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(4, 5, 3, padding=1), *([nn.BatchNorm2d(5)] if norm else []), nn.ReLU()),
        *(nn.Conv2d(5, 6, 3, padding=1, stride=2), nn.Tanh(), *([Counting()] if own else [])),
        *(nn.Conv2d(6, 6, 3, padding=1), nn.ELU(), *([nn.Dropout(0.2)] if norm else []), nn.Flatten()),
        *(nn.Linear(24, 12), nn.ELU()),
        nn.Linear(12, 3),
    )


def train(learner: Learner, steps: int, row: int = 0, rows: int = 1, batch: int = 20) -> None:
    """Steps on random batches, of which a row takes its part."""
    optimizer = optim.SGD(learner.optimizer_parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3)
    for step in range(steps):
        generator = torch.Generator().manual_seed(step)
        x = torch.randn(batch, 2, 8, 8, generator=generator).to(next(learner.parameters()))
        y = torch.randint(0, 3, (batch,), generator=generator)
        part = slice(row * batch // rows, (row + 1) * batch // rows)
        learner.backward(F.cross_entropy(learner(x[part]), y[part]))
        optimizer.step()
        optimizer.zero_grad()


def learner_of(name: str, **options: Any) -> Learner:
    torch.manual_seed(3)
    return Learner(network(own=name == "autograd", **options), RECIPES[name], seed=5)


def steps_of(name: str) -> int:
    return STEPS if name == "delta_mirror" else 3


def train_distributed(directory: Path, name: str) -> None:
    """The state after training, as process 0 would save it, and what the others have."""
    learner = learner_of(name)
    grid = Grid.of_world()
    with torch.no_grad():
        for each in learner.parameters():
            each.add_(grid.column)  # `distribute` makes them equal
    distribute(learner, grid)
    train(learner, steps_of(name))
    weights = {key: value for key, value in learner.state_dict().items() if isinstance(value, Tensor)}
    gather(learner)
    distributed = distributed_of(learner)
    assert distributed is not None
    torch.save((learner.state_dict(), weights, distributed.owners), directory / f"{name}{grid.columns}{grid.column}")


def train_in_rows(directory: Path, name: str, rows: int) -> None:
    learner = learner_of(name, norm=False).double()
    grid = Grid.of_world(rows)
    assert grid.is_first == (dist.get_rank() == 0)
    with torch.no_grad():
        for each in learner.parameters():
            each.add_(dist.get_rank())
    distribute(learner, grid)
    train(learner, 3, grid.row, rows)
    torch.save(learner.state_dict(), directory / f"{name}{rows}x{grid.columns}at{grid.row}{grid.column}")


def tensors(value: Any) -> list[Tensor]:
    """All tensors in nested containers, in a fixed order."""
    if isinstance(value, Tensor):
        return [value]
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else []
    return [tensor for child in children for tensor in tensors(child)]


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What worlds of one to five processes have computed."""
    directory = tmp_path_factory.mktemp("worlds")
    names = [name for name in RECIPES if name != "lee"]
    work = [(size, partial(train_distributed, name=name)) for size in (1, 2, 3, 4, 5) for name in names]
    work += [(2, partial(train_distributed, name="lee"))]
    for rows, columns in ((2, 1), (2, 2), (4, 1)):
        rules = ("closed_form", "adam", "delta_mirror")
        work += [(rows * columns, partial(train_in_rows, name=name, rows=rows)) for name in rules]
    run_worlds([size for size, _ in work], [task for _, task in work], directory)
    return directory


def test_where_the_output_block_follows_the_loss_its_pair_is_nobodys(worlds: Path) -> None:
    learner = learner_of("lee")
    train(learner, 3)
    state, _, owners = torch.load(worlds / "lee20", weights_only=True)
    assert len(owners) == 4
    for one, other in zip(tensors(state), tensors(learner.state_dict()), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("name", [name for name in RECIPES if name != "lee"])
def test_any_number_of_processes_gives_the_sequential_state_bit_for_bit(worlds: Path, name: str) -> None:
    learner = learner_of(name)
    train(learner, steps_of(name))
    expected = learner.state_dict()
    for size in range(1, 6):
        for column in range(size):
            state, weights, owners = torch.load(worlds / f"{name}{size}{column}", weights_only=True)
            assert set(owners) == set(range(size)), "every process trains something"
            assert weights.keys() | {"_extra_state"} == state.keys() == expected.keys()
            assert len(tensors(state)) == len(tensors(expected)) > len(weights) - 1
            for one, other in zip(tensors(state), tensors(expected), strict=True):
                assert torch.equal(one, other)


@pytest.mark.parametrize("name", ["closed_form", "adam"])
@pytest.mark.parametrize(("rows", "columns"), [(2, 1), (2, 2), (4, 1)])
def test_rows_are_one_larger_batch(worlds: Path, name: str, rows: int, columns: int) -> None:
    learner = learner_of(name, norm=False).double()
    train(learner, 3)
    expected = learner.state_dict()
    for row in range(rows):
        for column in range(columns):
            state = torch.load(worlds / f"{name}{rows}x{columns}at{row}{column}", weights_only=True)
            for key, value in expected.items():
                if isinstance(value, Tensor):
                    torch.testing.assert_close(state[key], value, rtol=1e-9, atol=1e-11)


def test_rows_of_a_delta_mirror_stay_together(worlds: Path) -> None:
    states = [torch.load(worlds / f"delta_mirror2x2at{place}", weights_only=True) for place in ("00", "01", "10", "11")]
    for other in states[1:]:
        for one, two in zip(tensors(states[0]), tensors(other), strict=True):
            assert torch.equal(one, two)


def test_the_documented_example_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    page = Path(__file__).parents[1] / "docs" / "layer_parallel.md"
    (example,) = re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.DOTALL)
    variables = {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    for name, value in {**variables, "GLOO_SOCKET_IFNAME": "lo"}.items():
        monkeypatch.setenv(name, value)
    learner, sequential = learner_of("closed_form", norm=False), learner_of("closed_form", norm=False)
    try:
        exec(example, {"learner": learner})
        train(learner, 2)
        gather(learner)
    finally:
        dist.destroy_process_group()
    train(sequential, 2)
    for one, other in zip(tensors(learner.state_dict()), tensors(sequential.state_dict()), strict=True):
        assert torch.equal(one, other)


@given(
    st.lists(st.floats(0, 100), min_size=1, max_size=12).flatmap(
        lambda costs: st.tuples(st.just(costs), st.integers(1, len(costs)))
    )
)
def test_shares_are_fair(case: tuple[list[float], int]) -> None:
    costs, processes = case
    owners = share_out(costs, processes)
    loads = [sum(cost for cost, owner in zip(costs, owners, strict=True) if owner == p) for p in range(processes)]
    assert set(owners) == set(range(processes)), "every process trains something"
    ideal = max(sum(costs) / processes, *costs) if len(costs) > 1 else costs[0]
    assert max(loads) <= 4 / 3 * ideal + max(costs) / 3 + 1e-9


def test_more_processes_than_pairs_are_refused() -> None:
    grid = Grid(1, 6, 0, 0, None, None)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"processes: expected at most 5, one for each block.*got 6"):
        Distributed(Learner(network()).learning, grid)


@given(st.integers(1, 40), st.integers(1, 5))
def test_noise_of_rows_is_that_of_the_whole_batch(count: int, rows: int) -> None:
    key = NoiseKey(1, 2, 3, "input")
    whole = GaussianNoise(7)(key, torch.empty(count * rows, 3))
    parts = [GaussianNoise(7).part(row, rows)(key, torch.empty(count, 3)) for row in range(rows)]
    assert torch.equal(torch.cat(parts), whole)


def test_batches_of_rows_are_those_of_a_larger_batch() -> None:
    pixels = torch.randint(0, 256, (30, 1, 4, 4), dtype=torch.uint8)
    images = Images(pixels, torch.arange(30) % 3, ("a", "b", "c"))
    options: dict[str, Any] = {"shuffle": True, "augmentation": Augmentation(0.5, 1), "seed": 2}
    whole = list(BatchLoader(images, 12, [0.0], [1.0], **options))
    rows = [list(BatchLoader(images, 4, [0.0], [1.0], row=row, rows=3, **options)) for row in range(3)]
    assert len(whole) == len(rows[0]) == 2
    for number, (x, y) in enumerate(whole):
        assert torch.equal(torch.cat([row[number][0] for row in rows]), x)
        assert torch.equal(torch.cat([row[number][1] for row in rows]), y)


def test_nccl_takes_a_gpu_for_every_process_of_every_machine() -> None:
    for others, backend in ((True, "nccl"), (False, "gloo")):
        store = HashStore()
        store.set("has_own_gpu/1", str(others))
        assert agreed_backend(store, 0, 2, has_own_gpu=True) == backend
    assert agreed_backend(HashStore(), 0, 1, has_own_gpu=False) == "gloo"


def test_noise_of_the_users_own_cannot_be_divided() -> None:
    learner = Learner(network(), DTP, noise=lambda key, like: torch.randn_like(like))
    with pytest.raises(UserError, match="noise"):
        distribute(learner, Grid(2, 1, 0, 0, None, None))  # type: ignore[arg-type]
