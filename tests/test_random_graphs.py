"""Random graphs of layers and functions: whatever a forward does, its update with V = W^T is that of backprop."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from targetprop import Algorithm, DifferenceTargets, Fixed, Learner

WIDTH, TIME = 4, 3
EXACT = Algorithm(DifferenceTargets(beta=0.5), Fixed(init_symmetric_weights=True, style="linear"))
ONE = (
    "linear", "norm", "batch", "tanh", "relu", "gelu", "method", "softmax", "scale", "transpose", "mean",
    "again", "parameter", "in place", "unbind", "max",
)  # fmt: skip
TWO = ("add", "multiply", "cat", "attend", "iadd", "divide", "where")
Line = tuple[str, int, int]


class RandomGraph(nn.Module):
    """Lines of a program; each makes a tensor (batch, TIME, WIDTH) of one or two that were made before.

    Operands are counted from the last backwards, so that most lines build on recent ones.
    """

    def __init__(self, lines: list[Line]) -> None:
        super().__init__()
        self.lines = lines
        make: dict[str, Any] = {
            "linear": lambda: nn.Linear(WIDTH, WIDTH), "norm": lambda: nn.LayerNorm(WIDTH),
            "batch": lambda: nn.BatchNorm1d(TIME), "relu": nn.ReLU,
            "cat": lambda: nn.Linear(2 * WIDTH, WIDTH),
        }  # fmt: skip
        self.layers = nn.ModuleList([make.get(name, nn.Identity)() for name, _, _ in lines])
        self.shared = nn.Linear(WIDTH, WIDTH)
        self.first, self.last = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.w, self.b = nn.Parameter(0.5 * torch.randn(WIDTH, WIDTH)), nn.Parameter(torch.randn(TIME, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        made = [x, self.first(x)]
        for (name, i, j), layer in zip(self.lines, self.layers, strict=True):
            a, b = made[-1 - i % len(made)], made[-1 - j % len(made)]
            made.append(self.line(name, layer, a, b))
        return self.last(made[-1])

    def line(self, name: str, layer: nn.Module, a: Tensor, b: Tensor) -> Tensor:
        if name in ("linear", "norm", "batch", "relu"):
            return layer(a)
        if name == "cat":
            return layer(torch.cat([a, b], dim=-1))
        if name == "attend":
            return F.scaled_dot_product_attention(a, b, a + b, is_causal=True)
        if name == "iadd":
            c = 1 * a
            c += b
            return c
        functions: dict[str, Any] = {
            "tanh": lambda: torch.tanh(a), "gelu": lambda: F.gelu(a), "method": lambda: a.sigmoid(),
            "softmax": lambda: a.softmax(-1), "scale": lambda: 0.5 * a + self.b,
            "transpose": lambda: (a.transpose(1, 2) * 1.1).transpose(1, 2).contiguous(),
            "mean": lambda: a - a.mean(dim=1, keepdim=True), "again": lambda: self.shared(a),
            "parameter": lambda: a @ self.w, "in place": lambda: F.relu(a + 1, inplace=True),
            "unbind": lambda: torch.stack([part * 2 for part in a.chunk(2, -1)][::-1], 2).flatten(2),
            "max": lambda: a.max(dim=1, keepdim=True)[0].expand(-1, a.size(1), -1) + a,
            "add": lambda: a + b, "multiply": lambda: a * b, "divide": lambda: a / (1 + b.abs()),
            "where": lambda: torch.where(a > 0, a, b),
        }  # fmt: skip
        found: Tensor = functions[name]()
        return found


@settings(max_examples=200, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(st.sampled_from(ONE + TWO), st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=14))
def test_with_forward_weights_the_update_of_any_graph_is_that_of_backprop(lines: list[Line]) -> None:
    torch.manual_seed(0)
    network, x = RandomGraph(lines).double(), torch.randn(5, TIME, WIDTH, dtype=torch.float64)
    weights = torch.randn(5, TIME, WIDTH, dtype=torch.float64)
    learner = Learner(network, EXACT)
    torch.manual_seed(1)
    expected = torch.autograd.grad(
        (network(x) * weights).sum((1, 2)).mean(), list(network.parameters()), materialize_grads=True
    )
    torch.manual_seed(1)
    learner.backward((learner(x) * weights).sum((1, 2)).mean())
    whole = torch.cat([each.flatten() for each in expected]).norm()
    found = [torch.zeros_like(p) if p.grad is None else p.grad for p in network.parameters()]
    error = torch.cat([(2 * each - wanted).flatten() for each, wanted in zip(found, expected, strict=True)]).norm()
    assert float(error) <= 1e-9 * float(whole)
