"""What a run takes beside time: peak memory, the processor's seconds, and the GPU's energy where it tells that."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import lightning as L
import torch

from targetprop.app.callbacks.measurements import Measurements

if sys.platform != "win32":
    import resource


class Cost(Measurements):
    """Adds "cost" to `results.json`:

    - `host_bytes`: the most memory that the process had in use, its libraries and the images included; null on Windows;
    - `gpu_bytes`: the most that torch had allocated on the GPU; null on the CPU;
    - `processor_seconds`: of all threads of the process, and of those that it went on from;
    - `joules`: of the GPU from the start of training to its end, validation included; null where nothing tells it,
      or the package nvidia-ml-py is not there.
    """

    def __init__(self) -> None:
        super().__init__()
        self._joules: float | None = 0.0  # of earlier processes of this run, and of this one once training has ended
        self._earlier = 0.0  # processor's seconds of them
        self._read: Callable[[], float] | None = None
        self._start = 0.0
        self._on_gpu = False

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Read the meter."""
        self._on_gpu = pl_module.device.type == "cuda"
        self._read = energy_meter(pl_module.device)
        self._start = self._read() if self._read else 0.0

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Read it again."""
        self._joules, self._read = self._so_far(), None

    @property
    def facts(self) -> dict[str, Any]:
        """What the run has taken so far."""
        return {
            "cost": {
                "host_bytes": peak_memory(),
                "gpu_bytes": torch.cuda.max_memory_allocated() if self._on_gpu else None,
                "processor_seconds": round(self._earlier + time.process_time(), 2),
                "joules": self._so_far() or None,
            }
        }

    def state_dict(self) -> dict[str, Any]:
        """What a process that goes on adds to."""
        return {"joules": self._so_far(), "seconds": self._earlier + time.process_time()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on."""
        self._joules, self._earlier = state_dict["joules"], state_dict["seconds"]

    def _so_far(self) -> float | None:
        """Joules of the run; None where a part of it is not known."""
        if self._joules is None or (self._read is None and self._joules == 0):
            return None
        return self._joules + (self._read() - self._start if self._read else 0.0)


def peak_memory() -> int | None:
    """The most bytes that this process had in use so far; None where the system does not count them."""
    if sys.platform == "win32":
        return None
    scale = 1 if sys.platform == "darwin" else 1024  # of what the system counts memory in
    return scale * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def energy_meter(device: torch.device) -> Callable[[], float] | None:
    """Reads the joules that a GPU has taken since its driver was loaded; None where nothing tells them."""
    if device.type != "cuda":
        return None
    try:
        import pynvml

        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
        pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)  # which older ones do not know
    except Exception:  # no such package, no NVIDIA GPU, no such number: the run goes on without
        return None
    return lambda: float(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1000
