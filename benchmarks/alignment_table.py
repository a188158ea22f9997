"""Mean angle between update and backprop gradient in each epoch of a run, from its metrics.

python benchmarks/alignment_table.py docs/runs/cifar10_small_amortised.csv
"""

from __future__ import annotations

import csv
import sys
from collections import defaultdict
from pathlib import Path
from statistics import mean

from rich.console import Console
from rich.table import Table


def mean_angles(path: Path) -> dict[int, dict[str, float]]:
    """Degrees for each epoch (from 1) and block; `path` is a run's csv/metrics.csv."""
    with path.open() as file:
        rows = list(csv.DictReader(file))
    ends = sorted({int(row["step"]) for row in rows if row.get("train/loss")})  # last step of each epoch
    blocks = [name for name in rows[0] if name.startswith("angle/")]
    angles: dict[int, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        for name in blocks:
            if row[name]:
                epoch = 1 + sum(int(row["step"]) > end for end in ends)
                angles[epoch][name].append(float(row[name]))
    return {epoch: {name: mean(values) for name, values in by.items()} for epoch, by in sorted(angles.items())}


def main() -> None:
    """Print the table."""
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    table = Table(title="Mean angle to backprop, degrees")
    angles = mean_angles(Path(sys.argv[1]))
    table.add_column("epoch")
    for name in sorted(next(iter(angles.values()))):
        table.add_column(name.removeprefix("angle/"), justify="right")
    for epoch, by_block in angles.items():
        table.add_row(str(epoch), *(f"{by_block[name]:.1f}" for name in sorted(by_block)))
    Console().print(table)


if __name__ == "__main__":
    main()
