"""Images a second that the data pipeline makes, beside those that a training step uses up.

    python benchmarks/data_throughput.py --network small
    python benchmarks/data_throughput.py --device cuda --network full --modes amortised_dtp

The loader runs through whole epochs of images of the size and number of CIFAR-10 (random ones: nothing is downloaded)
on the device, with the published augmentation and without. Everything is timed interleaved; the table shows medians,
and what share of each step's time the augmented images take.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from cases import MODES, NETWORKS, YARDSTICKS, cifar_loader, learner_of, random_batch, random_images, step_of
from targetprop.data import BatchLoader
from timing import Step, add_repeats, measure, medians, parser, positive, prepare, title, write_record

AUGMENTED, PLAIN = "loader, augmented", "loader, plain"


def epoch_of(loader: BatchLoader) -> Step:
    """All batches of one epoch."""

    def epoch() -> None:
        for _ in loader:
            pass

    return epoch


def table_of(heading: str, rates: dict[str, float]) -> Table:
    """Images a second, and the data pipeline's share of each step."""
    table = Table("", "images / s", "data / step", title=heading)
    for name, rate in rates.items():
        share = "" if name in (AUGMENTED, PLAIN) else f"{100 * rate / rates[AUGMENTED]:.1f} %"
        table.add_row(name, f"{rate:.0f}", share)
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    made = parser(__doc__)
    made.add_argument("--network", choices=NETWORKS, default="small", help="of the training step")
    made.add_argument("--modes", nargs="+", choices=MODES, default=["amortised_dtp"])
    made.add_argument("--batch", type=positive, default=128)
    made.add_argument("--images", type=positive, default=50_000)
    add_repeats(made, repeats=15, seconds=20.0)
    options = made.parse_args(arguments)
    device = prepare(options)
    images = random_images(options.images).to(device)
    loaders = {
        AUGMENTED: cifar_loader(images, options.batch),
        PLAIN: cifar_loader(images, options.batch, augment=False),
    }
    steps = {name: epoch_of(loader) for name, loader in loaders.items()}
    counts = {name: len(loader) * options.batch for name, loader in loaders.items()}
    x, y = random_batch(options.batch, device)
    for mode in (*YARDSTICKS, *options.modes):
        steps[mode] = step_of(learner_of(options.network, mode, device), x, y)
        counts[mode] = options.batch
    times = measure(steps, device, options.repeats, options.seconds)
    rates = {name: counts[name] / seconds for name, seconds in medians(times).items()}
    Console().print(table_of(title(f"{options.network}, batch {options.batch}", options), rates))
    write_record(options, "data_throughput", {"images_per_second": rates, "seconds": times})


if __name__ == "__main__":
    main()
