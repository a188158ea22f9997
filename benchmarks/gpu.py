"""What a GPU has to show: correctness, step times, share of its matmul rate, peak memory, and a short training.

    benchmarks/gpu.sh
    python benchmarks/gpu.py --device cpu --network tiny --checked tiny --batches 4 --matmul 256 --training-steps 5

1. Correctness: two steps of every mode in float32, with noise drawn on the CPU, against float64 on the CPU; the largest
   relative error of a gradient or a feedback weight. Without TF32 it must stay below 3e-3: rounding alone now and then
   changes which unit of a pooling window is the largest, which shows as about 1e-4.
2. The best rate of square matrix products.
3. Step times by batch, interleaved, medians, on a GPU also as CUDA graphs; the achieved rate is the counted operations
   over the time.
4. Peak memory of a step: the allocator's, above what was allocated before (on a CPU, of living storages).
5. A short training on CIFAR-10 from DATA_DIR, for its accuracy and speed; left out where there is no such data.

On a GPU, 1 to 3 are done without and with TF32, switched for products and convolutions alike; 4 and 5 with TF32. The
record is written after every part; if a part fails, the others go on, and the exit status is 1.
"""

from __future__ import annotations

import math
import os
import sys
import time
import traceback
import zlib
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from typing import Any

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from cases import (
    NETWORKS,
    STRICT,
    YARDSTICKS,
    algorithm_of,
    build_network,
    cifar_loader,
    endless,
    forward_parameters,
    forward_rate,
    learn,
    learner_of,
    make_optimizer,
    random_batch,
    step_of,
)
from memory import step_peak
from targetprop import Learner, UserError
from targetprop.baselines.backprop import Backprop
from targetprop.data import BatchLoader, cifar10
from targetprop.execution.graph import GraphedStep
from timing import (
    add_repeats,
    measure,
    medians,
    operations_of,
    parser,
    positive,
    prepare,
    synchronize,
    title,
    write_record,
)

MODES = ("closed_form", "amortised_dtp", "delta_mirror")
PRECISIONS = {"cuda": ("ieee", "tf32"), "cpu": ("ieee",)}
GRAPHED = (STRICT, *MODES)
"""What is also timed as a CUDA graph, on a GPU: backprop, too, since it gains by one as well."""
TOLERANCE = 3e-3
Results = dict[str, Any]


def switch(precision: str) -> None:
    """How float32 products and convolutions are computed on a GPU: "ieee", or "tf32"."""
    torch.backends.cuda.matmul.fp32_precision = precision
    torch.backends.cudnn.conv.fp32_precision = precision  # type: ignore[attr-defined]


def cpu_noise(key: Sequence[object], like: Tensor) -> Tensor:
    """The same noise for a key on every device and in every precision."""
    generator = torch.Generator().manual_seed(zlib.crc32(repr(tuple(key)).encode()))
    return torch.randn(like.shape, generator=generator, dtype=torch.float64).to(like.device, like.dtype)


def learned(network: str, mode: str, batch: int, device: torch.device, dtype: torch.dtype) -> list[Tensor]:
    """Gradients of the second step, and feedback weights after it."""
    model = build_network(network).to(device, dtype)
    learner = Backprop(model) if mode == STRICT else Learner(model, algorithm_of(network, mode), noise=cpu_noise)
    x, y = random_batch(batch, torch.device("cpu"))
    for _ in range(2):
        for parameter in forward_parameters(learner):
            parameter.grad = None
        learn(learner, x.to(device, dtype), y.to(device))
    gradients = [parameter.grad for parameter in forward_parameters(learner)]
    feedback = learner.network.feedback_parameters() if mode != STRICT else []
    return [each.detach().to("cpu", torch.float64) for each in (*gradients, *feedback) if each is not None]


def relative_error(values: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """The largest ||a - b|| / ||b|| among tensors."""
    pairs = zip(values, expected, strict=True)
    return max(float((a - b).norm() / b.norm().clamp_min(1e-30)) for a, b in pairs)


def correctness(network: str, batch: int, device: torch.device) -> Results:
    """Relative errors in float32 on the device, by precision and mode."""
    errors: Results = {precision: {} for precision in PRECISIONS[device.type]}
    table = Table("mode", *errors, title=f"Relative error, {network}, batch {batch}")
    for mode in (STRICT, *MODES):
        expected = learned(network, mode, batch, torch.device("cpu"), torch.float64)
        for precision, by_mode in errors.items():
            switch(precision)
            by_mode[mode] = relative_error(learned(network, mode, batch, device, torch.float32), expected)
        table.add_row(mode, *(f"{errors[precision][mode]:.1e}" for precision in errors))
    Console().print(table)
    passed = all(error < TOLERANCE for error in errors["ieee"].values())
    return {"passed": passed, "errors": errors}


def matmul_rate(sizes: Sequence[int], device: torch.device) -> Results:
    """TFLOP/s of square float32 products, five at a time."""
    rates = {}
    for size in sizes:
        a, b = torch.randn(2, size, size, device=device)
        out = torch.empty_like(a)

        def products(a: Tensor = a, b: Tensor = b, out: Tensor = out) -> None:
            for _ in range(5):
                torch.mm(a, b, out=out)

        seconds = medians(measure({size: products}, device, repeats=10, seconds=3.0))[size]
        rates[size] = 5 * 2 * size**3 / seconds / 1e12
    Console().print(f"Best product: {max(rates.values()):.3g} TFLOP/s ({rates})")
    return {"best": max(rates.values()), "tflops": rates}


def step_times(options: Any, batch: int, best: float, device: torch.device) -> Results:
    """Milliseconds, achieved rate and its share of the best one, by mode."""
    x, y = random_batch(batch, device)
    steps = {mode: step_of(learner_of(options.network, mode, device), x, y) for mode in (*YARDSTICKS, *MODES)}
    if device.type == "cuda":
        steps |= {f"{mode}, graph": graph_of(options.network, mode, x, y, device) for mode in GRAPHED}
    times = measure(steps, device, options.repeats, options.seconds)
    table = Table("step", "ms", "x strict", "TFLOP/s", "share of best product", title=f"Step, batch {batch}")
    results: Results = {}
    middle = medians(times)
    for mode in steps:
        operations = operations_of(steps[mode.removesuffix(", graph")])  # a replay shows nothing to count
        rate = operations / middle[mode] / 1e12
        share = rate / best
        table.add_row(
            mode, f"{1e3 * middle[mode]:.2f}", f"{middle[mode] / middle[STRICT]:.2f}", f"{rate:.3g}", f"{share:.3f}"
        )
        results[mode] = {"median": middle[mode], "tflops": rate, "share": share, "seconds": times[mode]}
    Console().print(table)
    return results


def graph_of(network: str, mode: str, x: Tensor, y: Tensor, device: torch.device) -> Callable[[], None]:
    """As `step_of`, but forward and backward are a CUDA graph."""
    learner = learner_of(network, mode, device)
    optimizer = make_optimizer(learner, rate=0.0)
    graphed: Callable[[Tensor, Tensor], object]
    if isinstance(learner, Learner):
        graphed = GraphedStep(learner, F.cross_entropy)
    else:
        graphed = graph_of_backprop(learner, x, y)

    def step() -> None:
        graphed(x, y)
        optimizer.step()
        if isinstance(learner, Learner):  # those of backprop are written anew by every replay
            optimizer.zero_grad()

    return step


def graph_of_backprop(learner: nn.Module, x: Tensor, y: Tensor) -> Callable[[Tensor, Tensor], object]:
    """Forward and backward of backprop as PyTorch's documentation records them, into gradients that stay."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            learn(learner, x, y)
    torch.cuda.current_stream().wait_stream(stream)
    x, y, graph = x.clone(), y.clone(), torch.cuda.CUDAGraph()
    learner.zero_grad()
    with torch.cuda.graph(graph):
        learn(learner, x, y)

    def replay(new_x: Tensor, new_y: Tensor) -> None:
        x.copy_(new_x)
        y.copy_(new_y)
        graph.replay()

    return replay


def peak_memory(network: str, batch: int, device: torch.device) -> Results:
    """Bytes by mode."""
    table = Table("step", "peak, MB", "x strict", title=f"Memory, batch {batch}")
    peaks = {mode: step_peak(network, mode, batch, device).total for mode in (*YARDSTICKS, *MODES)}
    for mode, peak in peaks.items():
        table.add_row(mode, f"{peak / 1e6:.1f}", f"{peak / peaks[STRICT]:.2f}")
    Console().print(table)
    return {"bytes": peaks}


def training(options: Any, device: torch.device) -> Results:
    """Test accuracy and speed of a short training by strict backprop and by amortised DTP."""
    try:
        splits = cifar10.load(os.environ.get("DATA_DIR", "data"), download=False)
    except UserError as error:
        Console().print(f"No training: {error}")
        return {"skipped": "no CIFAR-10 in DATA_DIR"}
    batch = options.batches[0]
    train = cifar_loader(splits.train.to(device), batch)
    test = cifar_loader(splits.test.to(device), 500, train=False)
    results: Results = {}
    for mode in (STRICT, "amortised_dtp"):
        learner = learner_of(options.network, mode, device)
        optimizer = make_optimizer(learner, forward_rate(options.network, mode))
        steps, seconds = train_for(learner, optimizer, train, options.training_steps, options.training_seconds, device)
        results[mode] = {"steps": steps, "seconds": seconds, "test_accuracy": accuracy(learner, test)}
        Console().print(f"Training, batch {batch}: {mode}: {results[mode]}")
    return results


def train_for(
    learner: nn.Module,
    optimizer: torch.optim.Optimizer,
    loader: BatchLoader,
    steps: int,
    limit: float,
    device: torch.device,
) -> tuple[int, float]:
    """Train with a cosine schedule; returns the steps made, fewer if the limit of seconds ended it, and its seconds."""
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    start, made = time.perf_counter(), 0
    for x, y in islice(endless(loader), steps):
        learn(learner, x, y)
        optimizer.step()
        optimizer.zero_grad()
        scheduler.step()
        made += 1
        if made % 20 == 0:
            synchronize(device)
            if time.perf_counter() - start > limit:
                break
    synchronize(device)
    return made, time.perf_counter() - start


@torch.no_grad()
def accuracy(learner: nn.Module, loader: BatchLoader) -> float:
    """The share of images that are classified right."""
    learner.eval()
    right = sum(int((learner(x).argmax(1) == y).sum()) for x, y in loader)
    return right / len(loader.images)


class Report:
    """The record, part by part, and which parts failed."""

    def __init__(self, options: Any) -> None:
        self.options = options
        self.parts: Results = {}
        self.failed: list[str] = []

    def add(self, name: str, part: Callable[[], Results]) -> Results:
        """Run a part and write the record; a part that fails has an empty result."""
        start = time.perf_counter()
        try:
            results = part()
        except Exception as error:
            traceback.print_exc()
            self.parts[name] = {"error": f"{type(error).__name__}: {error}"}
            self.failed.append(name)
            results = {}
        else:
            self.parts[name] = results
            if results.get("passed") is False:
                self.failed.append(name)
        self.parts[name]["part_seconds"] = time.perf_counter() - start
        write_record(self.options, "gpu", {"failed": self.failed, "parts": self.parts})
        if self.options.device == "cuda":
            torch.cuda.empty_cache()
        return results


def main(arguments: Sequence[str] | None = None) -> None:
    """Run all parts."""
    made = parser(__doc__)
    made.set_defaults(device="cuda", threads=min(8, os.cpu_count() or 1))
    made.add_argument("--network", choices=NETWORKS, default="full")
    made.add_argument("--checked", choices=NETWORKS, default="small", help="network of the correctness part")
    made.add_argument("--checked-batch", type=positive, default=16, help="its batch")
    made.add_argument("--batches", nargs="+", type=positive, default=[128, 512], help="the first one also trains")
    made.add_argument("--matmul", nargs="+", type=positive, default=[2048, 4096, 8192], help="sizes of products")
    made.add_argument("--training-steps", type=positive, default=780, help="two epochs")
    made.add_argument("--training-seconds", type=float, default=60.0, help="longest training of a mode")
    made.add_argument("--cudnn-benchmark", action="store_true", help="let cuDNN time its algorithms and choose")
    add_repeats(made, repeats=20, seconds=3.0)
    options = made.parse_args(arguments)
    device = prepare(options)
    torch.backends.cudnn.benchmark = options.cudnn_benchmark
    Console().print(title(f"GPU report, {options.network}", options))
    start, report = time.perf_counter(), Report(options)
    report.add("correctness", partial(correctness, options.checked, options.checked_batch, device))
    for precision in PRECISIONS[device.type]:
        switch(precision)
        Console().print(f"Precision of float32 products and convolutions: {precision}")
        best = report.add(f"matmul, {precision}", partial(matmul_rate, options.matmul, device)).get("best", math.nan)
        for batch in options.batches:
            report.add(f"steps, batch {batch}, {precision}", partial(step_times, options, batch, best, device))
    for batch in options.batches:
        report.add(f"memory, batch {batch}", partial(peak_memory, options.network, batch, device))
    report.add("training", partial(training, options, device))
    Console().print(f"{time.perf_counter() - start:.0f} s in all; failed: {', '.join(report.failed) or 'nothing'}")
    if report.failed:
        sys.exit(1)


if __name__ == "__main__":
    main()
