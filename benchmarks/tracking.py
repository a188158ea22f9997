"""Does amortised DTP track what L-DRL learns? Its feedback against the exact minimiser of L-DRL, block by block.

    python benchmarks/tracking.py --data data --json runs/tracking.json --markdown runs/tracking.md
    python benchmarks/tracking.py --quick

Small networks (five blocks of convolution, activation and 2x2 pooling and a linear one; a perceptron), at
initialisation and after an epoch of training by amortised DTP. Then forward weights stand still on one batch, the
feedback learns until it has settled, and with the gain of its style it is compared with the minimiser (`minimiser.py`):
the weights, and the difference that each block's target hands down at beta = .7. Angles and norms are those beyond the
sampling error, which is stated: the angle by which the noise of the draws turns the minimiser.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from cases import CLASSES, IMAGE, cifar_loader, configured, endless, forward_rate, learn, make_optimizer, random_images
from minimiser import (
    Indices,
    Minimiser,
    OutputNoise,
    Twin,
    as_rows,
    best_gain,
    finite_noise_gain,
    left_side,
    product_gain,
    right_sides,
)
from targetprop import AMORTISED_DTP, Learner, OutputSignal
from targetprop.data import Images, cifar10
from targetprop.feedback.base import per_block
from targetprop.models import mlp, simple_vgg
from targetprop.network.passes import StoredPass
from timing import parser, positive, prepare, title, write_record

Style = Literal["matched", "gained"]
Sigma = float | Literal["published"]
Row = dict[str, Any]
CHANNELS, HIDDEN = (8, 8, 16, 16, 32), (64, 64, 64)
PARTS = 10
"""That the draws are split into."""
FOR_ONE_UNIT = 2
"""A block with one unit in a channel of its output gets so many times the draws."""
GOALS = {"angle": 3.0, "norm": 5.0}
"""What is to hold at sigma .05: degrees, and per cent."""


@dataclass(frozen=True)
class Case:
    """A network, and how long it was trained.

    Attributes:
        pool: "none" of the perceptron.
    """

    network: str
    activation: str
    pool: str
    seed: int
    epochs: int

    @property
    def configuration(self) -> str:
        """Its name among the networks of `cases.py`."""
        return "small" if self.network == "vgg" else "mlp"

    def build(self) -> nn.Sequential:
        """The network at initialisation."""
        torch.manual_seed(self.seed)
        if self.network == "mlp":
            return mlp(IMAGE, CLASSES, HIDDEN, self.activation)
        model = simple_vgg(IMAGE, CLASSES, CHANNELS, self.activation)
        for block in model if self.pool == "average" else ():
            if isinstance(block, nn.Sequential) and isinstance(block[-1], nn.MaxPool2d):
                block[-1] = nn.AvgPool2d(2)
        return model

    def sigmas(self, sigma: Sigma) -> list[float]:
        """One for each block with feedback."""
        blocks = [str(number) for number in range(len(CHANNELS if self.network == "vgg" else HIDDEN))]
        published = configured(self.configuration).model.hparams.noise
        values = published if sigma == "published" else sigma
        return per_block("noise", values if isinstance(values, float) else list(values), blocks)


def cases(options: Any) -> list[Case]:
    """All that the options ask for."""
    made = itertools.product(options.seeds, options.networks, options.pools, options.activations, options.epochs)
    alike = (Case(n, a, p if n == "vgg" else "none", seed, epochs) for seed, n, p, a, epochs in made)
    return list(dict.fromkeys(alike))


def train(case: Case, images: Images, batches: int, batch: int) -> nn.Sequential:
    """The network after its epochs of so many batches each, by amortised DTP at the published rate."""
    model = case.build()
    learner = Learner(model, AMORTISED_DTP, seed=case.seed)
    optimizer = make_optimizer(learner, forward_rate(case.configuration, "amortised_dtp"))
    for x, y in islice(endless(cifar_loader(images, batch)), case.epochs * batches):
        learn(learner, x, y)
        optimizer.step()
        optimizer.zero_grad()
    return model


@dataclass(frozen=True)
class Settled:
    """Amortised DTP in one style on a batch, its feedback settled; then in float64.

    Attributes:
        targets: t - s of every block at the step size of the algorithm.
    """

    learner: Learner
    seen: StoredPass
    targets: list[Tensor]


def settle(model: nn.Sequential, style: Style, x: Tensor, y: Tensor, steps: int) -> Settled:
    """Let the feedback learn for so many steps on a batch, forward weights standing still."""
    learner = Learner(copy.deepcopy(model), AMORTISED_DTP.with_numbers(style=style))
    for _ in range(steps):
        learn(learner, x, y)
    seen = StoredPass(learner.double().network, x.double(), learner.noise, learner.steps)
    output = seen.output.requires_grad_()
    (gradient,) = torch.autograd.grad(F.cross_entropy(output, y, reduction="sum"), output)
    with torch.no_grad():
        targets = dict(learner.algorithm.targets.sweep(seen, OutputSignal(gradient)))
    return Settled(learner, seen, [targets[block] for block in range(len(targets))])


def compare(tracked: Tensor, estimates: Tensor) -> dict[str, float]:
    """What is tracked against the mean of independent estimates (parts, ...), whose noise is taken off.

    Returns:
        Their angle in degrees, what the norm of the first has over that of the mean in per cent, and the sampling error
        of the mean in degrees.
    """
    parts, mean = len(estimates), estimates.mean(0)
    noise = (estimates - mean).square().sum() / (parts * (parts - 1))
    norm = (mean.square().sum() - noise).clamp_min(0).sqrt()
    cosine = (tracked * mean).sum() / (tracked.norm() * norm)
    return {
        "angle": float(torch.rad2deg(torch.acos(cosine.clamp(-1, 1)))),
        "norm": float(100 * (tracked.norm() / norm - 1)),
        "error": float(torch.rad2deg(torch.atan(noise.sqrt() / norm))),
    }


def measure(case: Case, settled: dict[Style, Settled], options: Any) -> list[Row]:
    """Rows of all blocks, styles, sigmas, and ways to treat maxima."""
    generator = torch.Generator().manual_seed(case.seed)
    rows: list[Row] = []
    for number, block in enumerate(next(iter(settled.values())).learner.network.fed):
        sigmas = {sigma: case.sigmas(sigma)[number] for sigma in options.sigmas}
        rows += measure_block(block, settled, sigmas, options, generator)
    return [{**asdict(case), **row} for row in rows]


@torch.no_grad()
def measure_block(
    block: int, settled: dict[Style, Settled], sigmas: dict[Sigma, float], options: Any, generator: torch.Generator
) -> list[Row]:
    """Rows of one block; all of them hear the same noise."""
    dtype = torch.float32 if options.single else torch.float64
    pairs = {style: copy.deepcopy(each.learner.network.pairs[block]).to(dtype) for style, each in settled.items()}
    twins = {
        (style, indices, name): (twin, indices, sigma)
        for style, twin in ((style, Twin.of(pair)) for style, pair in pairs.items())
        for indices in twin.indices
        if indices in options.indices
        for name, sigma in sigmas.items()
    }
    if not twins:
        return []
    first = next(iter(settled))
    trace = pairs[first].trace(settled[first].seen.trace(block).x.to(dtype))
    wanted = options.draws * (FOR_ONE_UNIT if trace.y[0, 0].numel() == 1 else 1)
    right, draws = right_sides(twins, trace, wanted, PARTS, generator)
    rows = []
    for style, name in itertools.product(settled, sigmas):
        sides = {key[1]: side for key, side in right.items() if key[0] == style and key[2] == name}
        about = {"block": block + 1, "style": style, "sigma": name, "sigma_value": sigmas[name], "draws": draws}
        rows += [{**about, **row} for row in compare_block(block, settled[style], sigmas[name], sides)]
    return rows


def compare_block(block: int, settled: Settled, sigma: float, sides: dict[Indices, Tensor]) -> list[Row]:
    """What a block's feedback and target have of what its minimisers have, for each way to treat maxima.

    Args:
        sides: right side of the normal equations, (parts, *shape of W).
    """
    pair, trace = settled.learner.network.pairs[block], settled.seen.trace(block)
    twin = Twin.of(pair)
    part, noise = twin.part, OutputNoise.on(twin, trace, sigma)
    left = left_side(part, noise, trace.y)
    own = as_rows(scaled(part.map.transposed, product_gain(pair, trace)))
    above = part.map.forward_map.patches(twin.carry(settled.targets[block], trace.context))[0]
    below = part.map_input(settled.targets[block - 1], trace.context).movedim(1, -1).flatten(0, -2)
    rows = []
    for indices, right in sides.items():
        found, mean = Minimiser.of(left, right), right.mean(0)
        gains = {
            "ungained": torch.ones(len(mean), dtype=mean.dtype),
            "finite": finite_noise_gain(part, noise, mean, part.map_input(trace.x, trace.context)),
            "best": best_gain(part, left, mean),
        }
        mended = {name: as_rows(scaled(part.map.transposed, gain)) for name, gain in gains.items()}
        rows.append(
            {
                "indices": indices,
                "flat": found.flat,
                "weights": compare(found.seen @ own, found.estimates),
                **{name: compare(found.seen @ each, found.estimates) for name, each in mended.items()},
                "targets": compare(below, above @ found.estimates),
            }
        )
    return rows


def scaled(weight: Tensor, gain: Tensor) -> Tensor:
    """A weight in the shape of W, each unit's times its gain."""
    return weight * gain.view(-1, *[1] * (weight.dim() - 1))


GROUP = ("network", "pool", "activation", "epochs", "style", "indices", "sigma")
"""What rows of a table have in common: of the seeds they show the worst."""


def grouped(rows: Sequence[Row]) -> dict[tuple[str, ...], dict[int, list[Row]]]:
    """Rows by what they have in common, and by block."""
    groups: dict[tuple[str, ...], dict[int, list[Row]]] = {}
    for row in rows:
        blocks = groups.setdefault(tuple(str(row[key]) for key in GROUP), {})
        blocks.setdefault(row["block"], []).append(row)
    return groups


def summary(rows: Sequence[Row], what: str) -> list[list[str]]:
    """For each group, and in it for each block, the worst over the seeds of what is compared; the first is the head."""
    numbers = sorted({row["block"] for row in rows})
    lines = [[*GROUP, *(f"block {number}" for number in numbers)]]
    for group, blocks in grouped(rows).items():
        lines.append([*group, *(worst([row[what] for row in blocks.get(number, [])]) for number in numbers)])
    return lines


def worst(measured: Sequence[dict[str, float]]) -> str:
    """The largest angle, the deviation of norm that is farthest from zero, and the largest sampling error."""
    if not measured:
        return ""
    angle, error = (max(each[key] for each in measured) for key in ("angle", "error"))
    norm = max((each["norm"] for each in measured), key=abs)
    return f"{angle:.1f} / {norm:+.1f} ({error:.1f})"


WHAT = {
    "weights": "g V~ against the minimiser",
    "targets": "target differences of the block below, at beta = .7",
    "ungained": "V~ without a gain, against the minimiser",
    "finite": "V~ with the finite-noise gain, against the minimiser",
    "best": "V~ with the best gain for each channel, against the minimiser",
}
"""What is compared, in words."""
CELLS = "Degrees / per cent of the norm (sampling error in degrees), the worst of the seeds"
"""What a cell of a table shows."""


def table_of(heading: str, lines: Sequence[Sequence[str]]) -> Table:
    """One column for what the rows have in common, and one for each block."""
    common = len(GROUP)
    table = Table("", *lines[0][common:], title=heading)
    for line in lines[1:]:
        table.add_row(" ".join(line[:common]), *line[common:])
    return table


def markdown(heading: str, rows: Sequence[Row]) -> str:
    """A table of each thing that is compared, for each sigma."""
    parts = [f"{heading}. {CELLS}."]
    for sigma, what in itertools.product(dict.fromkeys(row["sigma"] for row in rows), WHAT):
        head, *lines = summary([row for row in rows if row["sigma"] == sigma], what)
        body = [head, ["---"] * len(head), *lines]
        table = "\n".join(f"| {' | '.join(line)} |" for line in body)
        parts.append(f"### Sigma {sigma}: {WHAT[what]}\n\n{table}")
    return "\n\n".join(parts) + "\n"


def record(rows: Sequence[Row]) -> dict[str, Any]:
    """All rows as comma-separated values: nested ones would take a line for every number."""
    flat = [flattened(row) for row in rows]
    lines = [",".join(f"{each:.4g}" if isinstance(each, float) else str(each) for each in row.values()) for row in flat]
    return {"goals": GOALS, "columns": ",".join(flat[0]), "rows": lines}


def flattened(row: Row) -> Row:
    """A row in which everything that is compared has a column for each of its numbers."""
    flat: Row = {}
    for key, value in row.items():
        flat |= {f"{key} {name}": number for name, number in value.items()} if isinstance(value, dict) else {key: value}
    return flat


def sigma_of(text: str) -> Sigma:
    """A number, or "published", from the command line."""
    return "published" if text == "published" else float(text)


def read_images(data: Path | None) -> Images:
    """Training images of CIFAR-10, or random ones."""
    return random_images(2000) if data is None else cifar10.load(data, download=False).train


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, measure, print and write."""
    made = parser(__doc__)
    made.add_argument("--data", type=Path, help="directory of CIFAR-10; without it, random images")
    made.add_argument("--networks", nargs="+", choices=("vgg", "mlp"), default=["vgg", "mlp"])
    made.add_argument("--activations", nargs="+", default=["elu", "tanh"])
    made.add_argument("--pools", nargs="+", choices=("max", "average"), default=["max", "average"])
    made.add_argument("--styles", nargs="+", choices=get_args(Style), default=list(get_args(Style)))
    made.add_argument("--indices", nargs="+", choices=get_args(Indices), default=["held"], help="see minimiser.py")
    made.add_argument("--sigmas", nargs="+", type=sigma_of, default=[0.05, "published"])
    made.add_argument("--draws", type=positive, default=100_000, help="of the noise of one sample, at least, per block")
    made.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    made.add_argument("--epochs", nargs="+", type=int, default=[0, 1])
    made.add_argument("--train-batches", type=positive, default=351, help="of an epoch")
    made.add_argument("--batch", type=positive, default=128)
    made.add_argument("--settle", type=positive, default=200, help="steps of the feedback with forward weights fixed")
    made.add_argument("--single", action="store_true", help="noisy passes in float32; sums and solutions in float64")
    made.add_argument("--markdown", type=Path, help="file for the tables")
    made.add_argument("--quick", action="store_true", help="one seed, 4 batches of training, few draws")
    options = made.parse_args(arguments)
    if options.quick:
        options.seeds, options.train_batches, options.draws, options.settle = options.seeds[:1], 4, 4000, 20
    prepare(options)
    images = read_images(options.data)
    x, y = next(iter(cifar_loader(images, options.batch, train=False)))
    heading = title(f"batch {options.batch}, {options.draws} draws and more", options)
    console, rows = Console(), []
    for case in cases(options):
        model = train(case, images, options.train_batches, options.batch)
        settled = {style: settle(model, style, x, y, options.settle) for style in options.styles}
        rows += measure(case, settled, options)
        console.print(f"{case} measured", highlight=False)
        write_record(options, "tracking", record(rows))
    for what, words in WHAT.items():
        console.print(table_of(f"{words}; {heading}", summary(rows, what)))
    if options.markdown:
        options.markdown.parent.mkdir(parents=True, exist_ok=True)
        options.markdown.write_text(markdown(heading, rows))


if __name__ == "__main__":
    main()
