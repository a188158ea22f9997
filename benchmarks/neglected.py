"""What the diagonal form of the expected feedback loss leaves out, for each activation.

    python benchmarks/neglected.py --json runs/neglected.json

The second term of L-DRL has the expectation ||V m||^2 + <S, V^2> (rules/expected.py); the diagonal form takes second
moments for variances and drops ||V m||^2. For a convolution of 32 to 64 channels with the activation above it, on
normal inputs, the table shows by how many percent that changes the term and its gradient, with feedback as
initialised and with V = W^T.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from targetprop import PairedNetwork
from targetprop.feedback.rules import output_noise
from targetprop.models.activations import ACTIVATIONS, activation_layer
from targetprop.network.linear_feedback import LinearPart
from timing import parser, prepare, title, write_record


@torch.no_grad()
def neglected(activation: str, sigma: float, *, aligned: bool) -> tuple[float, float]:
    """Relative error of the diagonal form: of the term, and of its gradient for V."""
    torch.manual_seed(0)
    block = nn.Sequential(nn.Conv2d(32, 64, 3, padding=1), activation_layer(activation))
    network = PairedNetwork.of(nn.Sequential(nn.Conv2d(3, 32, 1), block))
    pair = network.pairs[1]
    part = pair.linear
    assert isinstance(part, LinearPart)
    if aligned:
        part.map.map.weight.copy_(block[0].weight)  # type: ignore[arg-type]
    x = torch.randn(64, 32, 8, 8)
    trace = network.trace(torch.randn(64, 3, 8, 8))[1]
    trace = type(trace)(x, *pair.encode(x))
    exact, diagonal = (output_noise(part, trace, sigma, diagonal=each) for each in (False, True))
    (gradient, power), (approximate, approximate_power) = exact.gradient(part, trace), diagonal.gradient(part, trace)
    return float(approximate_power / power - 1), float((approximate - gradient).norm() / gradient.norm())


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    made = parser(__doc__)
    made.add_argument("--sigmas", type=float, nargs="+", default=[0.1, 0.4])
    options = made.parse_args(arguments)
    prepare(options)
    rows: list[dict[str, Any]] = []
    heading = title("What the diagonal form leaves out, % of the term / of its gradient", options)
    table = Table("activation", "sigma", "V as initialised", "V = W^T", title=heading)
    for name in ACTIVATIONS:
        for sigma in options.sigmas:
            errors = [neglected(name, sigma, aligned=aligned) for aligned in (False, True)]
            table.add_row(name, f"{sigma:g}", *(f"{100 * term:+.2f} / {100 * slope:.2f}" for term, slope in errors))
            rows.append({"activation": name, "sigma": sigma, "initialised": errors[0], "aligned": errors[1]})
    Console().print(table)
    write_record(options, "neglected", {"rows": rows})


if __name__ == "__main__":
    main()
