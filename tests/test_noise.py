"""Noise is a function of its key."""

from __future__ import annotations

import pytest
import torch

from targetprop.noise import CHUNK, GaussianNoise, Kind, NoiseKey

KEY = NoiseKey(step=3, block=2, iteration=1, kind="input")
LIKE = torch.zeros(4, 3, 5)


def test_same_key_same_draw_whatever_was_drawn_before() -> None:
    noise = GaussianNoise(7)
    first = noise(KEY, LIKE)
    noise(KEY._replace(step=4), torch.zeros(1000))
    assert torch.equal(noise(KEY, LIKE), first)
    assert torch.equal(GaussianNoise(7)(KEY, LIKE), first)


@pytest.mark.parametrize(
    "other",
    [
        KEY._replace(step=4),
        KEY._replace(block=1),
        KEY._replace(iteration=2),
        KEY._replace(kind="output"),
        NoiseKey(step=2, block=3, iteration=1, kind="input"),
    ],
)
def test_any_other_key_gives_an_unrelated_draw(other: NoiseKey) -> None:
    noise, like = GaussianNoise(7), torch.zeros(10_000)
    draws = torch.stack([noise(KEY, like), noise(other, like)])
    assert abs(torch.corrcoef(draws)[0, 1].item()) < 0.05


def test_another_seed_gives_an_unrelated_draw() -> None:
    like = torch.zeros(10_000)
    draws = torch.stack([GaussianNoise(seed)(KEY, like) for seed in (7, 8)])
    assert abs(torch.corrcoef(draws)[0, 1].item()) < 0.05


def test_chunks_of_a_draw_are_unrelated() -> None:
    chunks = GaussianNoise(7)(KEY, torch.zeros(3 * CHUNK)).view(3, CHUNK)
    assert float((torch.corrcoef(chunks) - torch.eye(3)).abs().max()) < 0.02


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_white_noise_has_mean_0_and_variance_1(dtype: torch.dtype) -> None:
    draws = GaussianNoise(7)(KEY._replace(kind="white"), torch.zeros(9, 4 * CHUNK - 3, dtype=dtype)).double()
    assert draws.mean().item() == pytest.approx(0, abs=0.003)
    assert draws.square().mean().item() == pytest.approx(1, abs=0.005)
    assert len(draws.unique()) == 256
    assert float((torch.corrcoef(draws) - torch.eye(9)).abs().max()) < 0.04
    assert float((torch.corrcoef(draws.flatten()[: 8 * 8192].view(8192, 8).T) - torch.eye(8)).abs().max()) < 0.05


@pytest.mark.parametrize("kind", ["input", "white"])
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("shape", [(300, 3, 32, 32), (6, 3, 200, 150), (30, 7, 1, 1)], ids=str)
def test_parts_of_a_batch_get_slices_of_its_noise(
    shape: tuple[int, ...], order: torch.memory_format, threads: int, kind: Kind
) -> None:
    """Across chunks that parts share, and samples larger than a chunk."""
    noise, key, like = GaussianNoise(7), KEY._replace(kind=kind), torch.zeros(shape).contiguous(memory_format=order)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        whole = noise(key, like)
        parts = [noise.part(row, 3)(key, part) for row, part in enumerate(like.chunk(3))]
    finally:
        torch.set_num_threads(before)
    assert torch.equal(torch.cat(parts), whole)
    assert whole.std() == pytest.approx(1, abs=0.2)


def test_draws_are_standard_normal_over_all_keys() -> None:
    noise = GaussianNoise(0)
    draws = torch.stack([noise(KEY._replace(iteration=i), torch.zeros(500)) for i in range(400)])
    for moment, expected in ((1, 0.0), (2, 1.0), (3, 0.0), (4, 3.0)):
        assert draws.pow(moment).mean().item() == pytest.approx(expected, abs=0.1)
    assert draws.mean(0).std().item() == pytest.approx(400**-0.5, rel=0.1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_draw_is_like_the_tensor(dtype: torch.dtype) -> None:
    draw = GaussianNoise(0)(KEY, LIKE.to(dtype))
    assert (draw.shape, draw.dtype, draw.requires_grad) == (LIKE.shape, dtype, False)


def test_global_random_state_is_neither_read_nor_changed() -> None:
    before = torch.get_rng_state()
    draw = GaussianNoise(0)(KEY, LIKE)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(99)
    assert torch.equal(GaussianNoise(0)(KEY, LIKE), draw)
