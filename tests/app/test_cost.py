"""What a run takes: peak memory, the processor's seconds, energy; through resumes, and where nothing tells it."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from targetprop.app.callbacks.cost import Cost, energy_meter, peak_memory

CPU, GPU = (cast(Any, SimpleNamespace(device=torch.device(name))) for name in ("cpu", "cuda"))
TRAINER = cast(Any, None)


@pytest.fixture
def meter(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Millijoules that a GPU reads, which is there for the package nvidia-ml-py only."""
    reads = [1000.0]
    made = SimpleNamespace(
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByUUID=lambda uuid: uuid,
        nvmlDeviceGetTotalEnergyConsumption=lambda handle: reads[0],
    )
    monkeypatch.setitem(sys.modules, "pynvml", made)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="abc"))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 7)
    return reads


def test_a_run_on_the_cpu_tells_its_memory_and_no_energy() -> None:
    cost = Cost()
    cost.on_fit_start(TRAINER, CPU)
    cost.on_fit_end(TRAINER, CPU)
    told = cost.facts["cost"]
    assert told["joules"] is None
    assert told["gpu_bytes"] is None
    assert told["host_bytes"] == peak_memory()
    assert 2**24 < told["host_bytes"] < 2**40
    assert told["processor_seconds"] > 0


def test_energy_is_that_between_start_and_end_of_training(meter: list[float]) -> None:
    cost = Cost()
    cost.on_fit_start(TRAINER, GPU)
    meter[0] = 4000
    cost.on_fit_end(TRAINER, GPU)
    meter[0] = 9000
    assert cost.facts["cost"]["joules"] == 3
    assert cost.facts["cost"]["gpu_bytes"] == 7


def test_energy_and_seconds_of_a_run_that_goes_on_are_added_up(meter: list[float]) -> None:
    first, second = Cost(), Cost()
    first.on_fit_start(TRAINER, GPU)
    meter[0] = 3000
    state = first.state_dict()
    meter[0] = 50_000
    second.load_state_dict({**state, "seconds": 1e6})
    second.on_fit_start(TRAINER, GPU)
    meter[0] = 51_000
    second.on_fit_end(TRAINER, GPU)
    assert second.facts["cost"]["joules"] == 2 + 1
    assert second.facts["cost"]["processor_seconds"] > 1e6


def test_energy_of_a_run_part_of_which_was_on_the_cpu_is_not_known(meter: list[float]) -> None:
    first, second = Cost(), Cost()
    first.on_fit_start(TRAINER, CPU)
    second.load_state_dict(first.state_dict())
    second.on_fit_start(TRAINER, GPU)
    meter[0] = 51_000
    assert second.facts["cost"]["joules"] is None


def test_without_the_package_there_is_no_meter(meter: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    assert energy_meter(GPU.device) is not None
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert energy_meter(GPU.device) is None
