"""The best convolution rate of this machine over a network's layer shapes, and the share that `closed_form` reaches.

    python benchmarks/ceiling.py --threads 2 --json runs/ceiling.json
    python benchmarks/ceiling.py --network small --batch 64

Each convolution of the network is timed alone: forward, transposed (the gradient for its input), and the gradient for
its weight. The best of these rates is the ceiling; that of the four passes together, "library", is what would be left
if all else took no time. Interleaved with them, whole L-DRL steps are timed with `closed_form`
feedback learning and without any; the difference is the feedback phase. Its work is four passes an iteration and
trained pair: the noisy forward pass, feedback of the output response, and two correlations. A multiply-add counts as
two operations; the padding of an image is counted as if it were computed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from cases import NO_FEEDBACK, VGGS, algorithm_of, build_network, learner_of, random_batch, step_of
from timing import (
    Step,
    add_clock,
    add_repeats,
    measure,
    medians,
    operations_of,
    parser,
    positive,
    prepare,
    title,
    write_record,
)

CLOSED = "closed_form"
PASSES = ("forward", "transposed", "weight gradient", "weight gradient")
"""Through a pair's map in one iteration of `closed_form`."""
Timed = tuple[str, str]
"""Block and pass of a convolution, or a step's name and nothing."""


@torch.no_grad()
def inputs_of(network: nn.Sequential, x: Tensor) -> dict[str, tuple[nn.Module, Tensor]]:
    """Every block by name, with its input for x."""
    found: dict[str, tuple[nn.Module, Tensor]] = {}
    for name, block in network.named_children():
        found[name] = (block, x)
        x = block(x)
    return found


@torch.no_grad()
def multiply_adds(block: nn.Module, x: Tensor) -> int:
    """Of one forward pass of a batch."""
    return len(x) * operations_of(lambda: block(x[:1])) // 2


@torch.no_grad()
def passes_of(conv: nn.Conv2d, x: Tensor) -> dict[str, Step]:
    """The three passes of a convolution with stride 1."""
    assert conv.stride == (1, 1)
    assert not isinstance(conv.padding, str)
    weight = conv.weight.detach().contiguous(memory_format=torch.channels_last)
    x = x.contiguous(memory_format=torch.channels_last)
    y, padding = torch.randn_like(F.conv2d(x, weight, padding=conv.padding)), conv.padding

    def weight_gradient() -> Tensor:
        arguments = ((1, 1), padding, (1, 1), False, (0, 0), 1, (False, True, False))
        return torch.ops.aten.convolution_backward(y, x, weight, None, *arguments)[1]

    return {
        "forward": lambda: F.conv2d(x, weight, padding=padding),
        "transposed": lambda: F.conv_transpose2d(y, weight, padding=padding),
        "weight gradient": weight_gradient,
    }


def iterations_of(network: str, blocks: Iterable[str]) -> dict[str, int]:
    """Feedback iterations of every block but the first."""
    trained = list(blocks)[1:]
    counts = algorithm_of(network, CLOSED).numbers["feedback_training_iterations"]
    return dict(zip(trained, counts if isinstance(counts, Sequence) else [counts] * len(trained), strict=True))


def library_rate(
    iterations: Mapping[str, int], operations: Mapping[Timed, int], seconds: Mapping[Timed, float]
) -> float:
    """GFLOP/s of the convolutions of all iterations, each as fast as it is alone."""
    passes = [((name, kind), count) for name, count in iterations.items() for kind in PASSES]
    timed = [(key, count) for key, count in passes if key in operations]  # a dense output block is not
    done = sum(count * operations[key] for key, count in timed)
    return done / sum(count * seconds[key] for key, count in timed) / 1e9


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    made = parser(__doc__)
    made.add_argument("--network", choices=VGGS, default="full")
    made.add_argument("--batch", type=positive, default=128)
    add_repeats(made, repeats=15, seconds=30.0)
    add_clock(made)
    options = made.parse_args(arguments)
    device = prepare(options)
    x, y = random_batch(options.batch, device)
    blocks = inputs_of(build_network(options.network).to(device), x)
    steps: dict[Timed, Step] = {}
    operations: dict[Timed, int] = {}
    for name, (block, given) in blocks.items():
        for conv in (each for each in block.modules() if isinstance(each, nn.Conv2d)):
            for kind, step in passes_of(conv, given).items():
                steps[name, kind] = torch.no_grad()(step)
                operations[name, kind] = 2 * multiply_adds(block, given)
    for mode in (CLOSED, NO_FEEDBACK):
        steps[mode, ""] = step_of(learner_of(options.network, mode, device), x, y)
    times = measure(steps, device, options.repeats, options.seconds, options.clock)
    middle = medians(times)
    rates = {key: operations[key] / middle[key] / 1e9 for key in operations}
    best = max(rates, key=lambda key: rates[key])
    iterations = iterations_of(options.network, blocks)
    work = len(PASSES) * sum(count * multiply_adds(*blocks[name]) for name, count in iterations.items())
    seconds = middle[CLOSED, ""] - middle[NO_FEEDBACK, ""]
    rate = 2 * work / seconds / 1e9
    results: dict[str, Any] = {
        "ceiling_gflops": rates[best],
        "ceiling_of": list(best),
        "library_gflops": library_rate(iterations, operations, middle),
        "closed_form_gflops": rate,
        "share": rate / rates[best],
        "feedback_seconds": seconds,
        "feedback_multiply_adds": work,
        "gflops": [{"block": block, "pass": kind, "gflops": rates[block, kind]} for block, kind in rates],
        "seconds": [{"of": list(key), "seconds": values} for key, values in times.items()],
    }
    Console().print(table_of(title(f"{options.network}, batch {options.batch}", options), results))
    write_record(options, "ceiling", results)


def table_of(heading: str, results: dict[str, Any]) -> Table:
    """Rates, and the share of the best one."""
    table = Table("block", "pass", "GFLOP/s", "share of the ceiling", title=heading)
    ceiling = results["ceiling_gflops"]
    for row in results["gflops"]:
        table.add_row(row["block"], row["pass"], f"{row['gflops']:.1f}", f"{row['gflops'] / ceiling:.2f}")
    library = results["library_gflops"]
    table.add_row("library", "all passes of an iteration", f"{library:.1f}", f"{library / ceiling:.2f}")
    feedback = f"feedback phase, {results['feedback_seconds']:.3f} s"
    table.add_row(CLOSED, feedback, f"{results['closed_form_gflops']:.1f}", f"{results['share']:.2f}")
    return table


if __name__ == "__main__":
    main()
