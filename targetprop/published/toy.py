"""Toy experiments of "A Theoretical Framework for Target Propagation" (Meulemans et al. 2020), on a teacher network.

Their teacher was not read; this one is `datamodule=teacher`. In double precision, in this process.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from functools import partial
from math import atan2, degrees

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor, nn

from targetprop.algorithms import named
from targetprop.algorithms.base import Algorithm
from targetprop.data import teacher
from targetprop.feedback.base import OptimizerSpec
from targetprop.learner import Learner
from targetprop.measure.alignment import backprop_gradients
from targetprop.published.drawing import bars, legend, panels
from targetprop.published.experiment import Means, Part, Row, Rows, rows_of

PAPER = "Meulemans et al. 2020, https://arxiv.org/abs/2006.14331"


@dataclass(frozen=True)
class Feedback:
    """Numbers of a rule: step size of the output's target, and of the feedback's learning by SGD."""

    rule: str
    beta: float
    noise: float
    rate: float
    decay: float

    @property
    def algorithm(self) -> Algorithm:
        spec = OptimizerSpec("sgd", self.rate, weight_decay=self.decay)
        return named(self.rule).with_numbers(beta=self.beta, noise=self.noise, b_optim=spec)


@dataclass(frozen=True)
class NullSpace:
    """Their figure 2: how much of an update does not change the output.

    The share ||P d|| / ||d|| of the update d of a layer's weights that lies in the null space of the output's Jacobian
    for these weights, sample by sample. DTP has such a part, and feedback that learns by DRL is to have none. Forward
    weights stay as they are drawn; the feedback has learned for some epochs, one sample a step.
    """

    title: str = "Share of updates in the null space of the output, on a teacher (their figure 2)"
    paper: str = PAPER
    rules: tuple[Feedback, ...] = (
        Feedback("meulemans_dtp", 0.01186235243557516, 0.09999731226483778, 0.003289433723080337, 1.084514667138376e-5),
        Feedback("ddtp_linear", 0.0403226567555006, 0.06086642605203958, 0.0022485520139920064, 9.821494271391093e-5),
    )
    width: int = 6
    outputs: int = 2
    samples: int = 400
    epochs: int = 30
    looked_at: int = 200

    def rows(self, means: Means) -> Rows:
        """A row for each rule, layer, seed and sample."""
        made = replace(self, samples=20, epochs=1, looked_at=5) if means.quick else self
        seeds = means.seeds or ((42,) if means.quick else (42, 43, 44, 45, 46))
        return rows_of([made._part(rule, seed) for seed in seeds for rule in made.rules], means)

    def _part(self, rule: Feedback, seed: int) -> Part:
        settings = {"width": self.width, "outputs": self.outputs, "samples": self.samples, "epochs": self.epochs}
        settings |= {"looked_at": self.looked_at, **asdict(rule)}
        return Part(f"{rule.rule}_seed_{seed}", settings, lambda: self._measured(rule, seed))

    def _measured(self, rule: Feedback, seed: int) -> Rows:
        x, y = examples(self.width, self.outputs, self.samples, seed)
        learner = Learner(student(self.width, self.outputs, seed), rule.algorithm, seed=seed, input_shape=(self.width,))
        learner.double()
        order = torch.Generator().manual_seed(seed)
        for _ in range(self.epochs):
            for number in torch.randperm(len(x), generator=order).tolist():
                learner.learn_feedback(x[number : number + 1])
        rows: Rows = []
        for number in range(min(self.looked_at, len(x))):
            shares = null_shares(learner, x[number : number + 1], y[number : number + 1])
            rows += [
                Row(rule=rule.rule, seed=seed, layer=layer + 1, sample=number, share=share)
                for layer, share in enumerate(shares)
            ]
        return rows

    def draw(self, rows: Rows) -> Figure:
        """Bars for each layer."""
        figure, (axes,) = panels(1, ["share of the update that leaves the output as it is"])
        bars(axes, rows, "share", "layer", "rule", "|P d| / |d|")
        axes.set_xlabel("layer")
        legend(figure, axes)
        return figure


def examples(inputs: int, outputs: int, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """So many inputs and targets of the seed's teacher, which has a hidden layer of 30 units."""
    data = teacher.load(inputs=inputs, hidden=(30,), outputs=outputs, train=count, test=1, seed=seed)
    return data.train.inputs.double(), data.train.targets.double()


def student(width: int, outputs: int, seed: int, bias: bool = True) -> nn.Sequential:
    """Two hidden layers of tanh, drawn by the seed (Xavier, normal; biases 0)."""
    torch.manual_seed(seed)
    layers = [nn.Linear(width, width, bias), nn.Linear(width, width, bias), nn.Linear(width, outputs, bias)]
    for layer in layers:
        nn.init.xavier_normal_(layer.weight)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    first, second, last = layers
    return nn.Sequential(nn.Sequential(first, nn.Tanh()), nn.Sequential(second, nn.Tanh()), last).double()


def updates(learner: Learner, x: Tensor, y: Tensor) -> list[Tensor]:
    """Gradients that a step on (x, y) leaves on the weights, by layer; the feedback stays as it is."""
    fed = [p for p in learner.network.feedback_parameters() if p.requires_grad]
    for parameter in fed:
        parameter.requires_grad_(False)
    learner.zero_grad()
    learner.backward(F.mse_loss(learner(x), y))
    for parameter in fed:
        parameter.requires_grad_(True)
    return [torch.zeros_like(w) if w.grad is None else w.grad.clone() for w in weights(learner)]


def weights(learner: Learner) -> list[nn.Parameter]:
    """Matrices of the forward layers."""
    return [p for p in learner.network.forward_parameters() if p.dim() == 2]


def null_shares(learner: Learner, x: Tensor, y: Tensor) -> list[float]:
    """||P d|| / ||d|| of each layer's update d by one sample, P on the null space of d output / d weights."""
    shares = []
    found = updates(learner, x, y)
    for number, (weight, update) in enumerate(zip(weights(learner), found, strict=True)):
        jacobian = _jacobian(learner, x, number).reshape(-1, weight.numel())
        d = update.flatten()
        within = torch.linalg.pinv(jacobian) @ (jacobian @ d)
        shares.append(float((d - within).norm() / d.norm()))
    return shares


def _jacobian(learner: Learner, x: Tensor, layer: int) -> Tensor:
    """Of the output of one sample for the weights of a layer."""
    network = learner.network
    name = next(name for name, p in network.named_parameters() if p is weights(learner)[layer])

    def output(weight: Tensor) -> Tensor:
        made: Tensor = torch.func.functional_call(network, {name: weight}, (x,))[0]
        return made

    jacobian: Tensor = torch.func.jacrev(output)(weights(learner)[layer].detach())
    return jacobian.detach()


@dataclass(frozen=True)
class OutputSpace:
    """Where a small step of Gauss-Newton targets (GNT) and of backprop moves the output of one sample.

    By GNT it moves towards the target, about; backprop goes along the gradient of a loss that is stretched by the
    weights. Angles to the way to the target are written, too.
    """

    title: str = "Where updates move the output, on a teacher (their figure of the output space)"
    paper: str = PAPER
    width: int = 4
    outputs: int = 2
    step: float = 1e-5

    def rows(self, means: Means) -> Rows:
        """A row for each rule and seed."""
        seeds = means.seeds or tuple(range(93, 95 if means.quick else 113))
        settings = {"width": self.width, "outputs": self.outputs, "step": self.step}
        return rows_of([Part(f"seed_{seed}", settings, partial(self._moves, seed)) for seed in seeds], means)

    def _moves(self, seed: int) -> Rows:
        x, y = (each[:1] for each in examples(self.width, self.outputs, 2, seed))
        learner = Learner(student(self.width, self.outputs, seed, bias=False), named("gauss_newton"), seed=seed)
        at = learner.network(x).detach()
        flat = backprop_gradients(learner.network, x, y, F.mse_loss)
        shaped = [g.view_as(w) for g, w in zip(flat, weights(learner), strict=True)]
        rows: Rows = []
        for rule, directions in (("gauss_newton", updates(learner, x, y)), ("backprop", shaped)):
            moved = self._after(learner, x, directions) - at
            unit, aim = (moved / moved.norm())[0], (y - at)[0]
            turned = degrees(atan2(float(unit[0] * aim[1] - unit[1] * aim[0]), float(unit @ aim)))
            place: Row = {"rule": rule, "seed": seed, "y1": float(at[0, 0]), "y2": float(at[0, 1])}
            rows.append(
                place
                | {"target1": float(y[0, 0]), "target2": float(y[0, 1])}
                | {"move1": float(unit[0]), "move2": float(unit[1]), "degrees": turned}
            )
        return rows

    def _after(self, learner: Learner, x: Tensor, directions: list[Tensor]) -> Tensor:
        """The output behind a small step, which is then taken back."""
        with torch.no_grad():
            for weight, direction in zip(weights(learner), directions, strict=True):
                weight.sub_(self.step * direction)
            output = learner.network(x).clone()
            for weight, direction in zip(weights(learner), directions, strict=True):
                weight.add_(self.step * direction)
        return output

    def draw(self, rows: Rows) -> Figure:
        """Arrows of the first seed on the contours of its loss, and angles of all of them."""
        title = f"seed {rows[0]['seed']}: moves of the output, and its target (*)"
        figure, (left, right) = panels(2, [title, "angle to the target"])
        first = [row for row in rows if row["seed"] == rows[0]["seed"]]
        numbers = {key: float(str(first[0][key])) for key in ("y1", "y2", "target1", "target2")}
        reach = 1.5 * max(abs(numbers["y1"] - numbers["target1"]), abs(numbers["y2"] - numbers["target2"]))
        grid = torch.linspace(-reach, reach, 81)
        loss = (grid[:, None] ** 2 + grid**2) / 2
        left.contour(grid + numbers["target1"], grid + numbers["target2"], loss, levels=12, linewidths=0.6, alpha=0.5)
        left.plot(numbers["target1"], numbers["target2"], "k*")
        for row, colour in zip(first, ("tab:blue", "tab:orange"), strict=True):
            moves = [float(str(row[f"move{axis}"])) for axis in (1, 2)]
            ends = (numbers["y1"] + 0.6 * reach * moves[0], numbers["y2"] + 0.6 * reach * moves[1])
            start = (numbers["y1"], numbers["y2"])
            left.annotate("", ends, start, arrowprops={"color": colour, "arrowstyle": "->", "linewidth": 1.6})
        left.set_aspect("equal")
        absolute = [row | {"degrees": abs(float(str(row["degrees"]))), "all": "all seeds"} for row in rows]
        bars(right, absolute, "degrees", "all", "rule", "degrees")
        legend(figure, right)
        return figure
