"""Memory of ImageNet32: while its files are converted, and in a process that trains on the mapped images.

    python benchmarks/imagenet32_memory.py --images 100000

Files of so many images are generated in a temporary folder (`tests/commands/make_imagenet32.py`). Each part runs in a
process of its own, on Linux, and is told apart from what the imports take: private memory, which a process has for
itself, and pages of mapped files, which all processes share and the system can drop. The peak of the conversion is
measured as the process's largest resident size, in which both are.
"""

from __future__ import annotations

import multiprocessing
import re
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from timing import parser, positive, prepare, title, write_record

Sizes = dict[str, int]
BATCH = 256
COMMANDS = Path(__file__).parents[1] / "tests" / "commands"


def status() -> Sizes:
    """Bytes of this process now ("private", "file") and at most ("peak")."""
    text = Path("/proc/self/status").read_text()
    keys = {"private": "RssAnon", "file": "RssFile", "peak": "VmHWM"}
    return {name: 1024 * int(re.findall(rf"{key}:\s+(\d+) kB", text)[0]) for name, key in keys.items()}


def convert(data_dir: str) -> Sizes:
    """Load the images where nothing has been converted yet."""
    from targetprop.data import imagenet32

    before = status()
    imagenet32.load(data_dir)
    return growth(before)


def train(data_dir: str) -> Sizes:
    """All batches of an epoch, and of the validation split, from mapped images."""
    from targetprop.app.datamodule import ImageDataModule
    from targetprop.data import Augmentation, imagenet32

    before = status()
    data = ImageDataModule(
        imagenet32.load, data_dir=data_dir, batch_size=BATCH, mean=[0.5] * 3, std=[0.25] * 3, val_fraction=0.1,
        augmentation=Augmentation(flip=0.5, crop=4),
    )  # fmt: skip
    for loader in (data.train_dataloader(), data.val_dataloader()):
        for _ in loader:
            pass
    return growth(before)


def growth(before: Sizes) -> Sizes:
    """What the sizes have grown by."""
    return {name: size - before[name] for name, size in status().items()}


def apart(step: Callable[[str], Sizes], data_dir: str) -> Sizes:
    """The step's result, from a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(step, (data_dir,))


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    made = parser(__doc__)
    made.add_argument("--images", type=positive, default=100_000, help="for training, 10 or more")
    options = made.parse_args(arguments)
    prepare(options)
    sys.path.append(str(COMMANDS))
    from make_imagenet32 import make_files

    with tempfile.TemporaryDirectory() as data_dir:
        make_files(Path(data_dir), options.images, classes=1000)
        largest = max(path.stat().st_size for path in Path(data_dir).rglob("*_batch_*"))
        rows = {"convert": apart(convert, data_dir), "train": apart(train, data_dir)}
        mapped = sum(path.stat().st_size for path in Path(data_dir).rglob("*.images"))
    table = Table(
        "MB above the imports", "peak", "private at the end", "of mapped files", title=title("ImageNet32", options)
    )
    for name, sizes in rows.items():
        table.add_row(name, *(f"{sizes[key] / 1e6:.0f}" for key in ("peak", "private", "file")))
    Console().print(table, f"largest published file {largest / 1e6:.0f} MB, mapped files {mapped / 1e6:.0f} MB")
    write_record(options, "imagenet32_memory", {"bytes": rows, "largest_source": largest, "mapped": mapped})


if __name__ == "__main__":
    main()
