"""Every model on CIFAR-10 at a size for a CPU, by one command each: accuracy, alignment and time in a table.

    python benchmarks/family.py --data data --threads 1 --json runs/family.json
    python benchmarks/family.py --only amortised_dtp --epochs 1
    python benchmarks/family.py --data data --json runs/family.json --resume      what the record holds is not run again

Each is `python main.py` with the command in the table, `COMMON` and, where it names no network, `VGG`; all other
numbers are those of its configuration: published ones where there are any, which were not made for this network. One
run each; so this shows what runs and roughly how it compares, not which is best.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from timing import parser, positive, write_record

ROOT = Path(__file__).parents[1]
ADAM = " ".join(
    f"model.hparams.{optimiser}.{setting}"
    for optimiser in ("b_optim", "f_optim")
    for setting in ("type=adam", "momentum=0", "lr=1e-3")
)
"""For losses with which the published rates, those of L-DRL, diverge on this network."""
COMMANDS = (
    "model=backprop",
    "model=dtp",
    "model=dtp feedback=expected",
    "model=layer_parallel_dtp trainer=layer_parallel trainer.processes=2",
    "model=amortised_dtp",
    "model=dtp feedback=kolen_pollack model.hparams.f_optim.lr=0.04 model.hparams.init_symmetric_weights=true",
    "model=parallel_dtp",
    f"model=vanilla_dtp model.hparams.feedback_training_iterations=10 {ADAM}",
    f"model=tp model.hparams.feedback_training_iterations=10 {ADAM}",
    "model=amortised_dtp network=resnet18 network.hparams.channels=[16,32,64] network.hparams.blocks=[1,1,1]",
    "model=amortised_dtp network=lenet network.hparams.channels=[16,32] network.hparams.hidden=128",
    "model=amortised_dtp network=mlp network.hparams.hidden=[256,256]",
)
COMMON = "datamodule=cifar10 scheduler=cosine_to_end"
VGG = "network=simple_vgg network.hparams.channels=[16,16,32,32,64]"
"""The network, where the command names none."""


def run(command: str, options: argparse.Namespace) -> dict[str, Any]:
    """One run: its command and, if it ends well, its results."""
    with tempfile.TemporaryDirectory() as scratch:
        output = Path(scratch, "run")
        settings = [f"data_dir={options.data.resolve()}", f"hydra.run.dir={output}", "logger=csv"]
        processes = int(found[1]) if (found := re.search(r"trainer\.processes=(\d+)", command)) else 1
        threads = max(1, options.threads // processes)
        shorter = [f"trainer.max_epochs={options.epochs}", f"trainer.threads={threads}", f"seed={options.seed}"]
        whole = f"{command} {COMMON} {'' if 'network=' in command else VGG}".split()
        whole = [sys.executable, str(ROOT / "main.py"), *whole, *shorter, *settings]
        done = subprocess.run(whole, cwd=scratch, capture_output=True, text=True)
        said = [line.strip() for line in done.stdout.splitlines() if "Error" in line or "diverged" in line]
        if done.returncode:
            return {"command": command, "error": " ".join(said) or done.stderr[-500:]}
        reached = json.loads((output / "results.json").read_text())
        return {
            "command": command,
            "validation": reached["validation"]["accuracy"],
            "test": reached["test"]["accuracy"],
            "epoch_seconds": statistics.median(reached["epoch_seconds"]),
            "angles": angles(output / "csv" / "metrics.csv"),
        }


def angles(metrics: Path) -> list[float]:
    """Between update and backprop gradient, degrees, of each block: means over the last quarter of the measurements."""
    rows = [row for row in csv.DictReader(metrics.open()) if row.get("angle/block1")]
    last = rows[-max(1, len(rows) // 4) :]
    names = sorted((name for name in (rows[0] if rows else {}) if name.startswith("angle/")), key=lambda n: int(n[11:]))
    return [statistics.fmean(float(row[name]) for row in last) for name in names]


def table_of(results: Sequence[dict[str, Any]], heading: str) -> Table:
    """A row for each command."""
    table = Table("command", "validation", "test", "angles, last quarter", "s an epoch", title=heading)
    for row in results:
        if "error" in row:
            table.add_row(row["command"], "", "", row["error"][:120], "")
            continue
        shown = " ".join(f"{angle:.0f}" for angle in row["angles"])
        accuracies = (f"{100 * row['validation']:.2f}", f"{100 * row['test']:.2f}")
        table.add_row(row["command"], *accuracies, shown, f"{row['epoch_seconds']:.0f}")
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    """Run them all and print the table."""
    made = parser(__doc__)
    made.set_defaults(threads=1)
    made.add_argument("--data", type=Path, default=Path("data"), help="directory that holds CIFAR-10")
    made.add_argument("--epochs", type=positive, default=2)
    made.add_argument("--seed", type=int, default=1)
    made.add_argument("--only", default="", help="commands with this text in them")
    made.add_argument("--resume", action="store_true", help="keep what the file of --json holds already")
    options = made.parse_args(arguments)
    resumes = options.resume and options.json and options.json.exists()
    kept = json.loads(options.json.read_text())["runs"] if resumes else []
    known, results = {row["command"]: row for row in kept}, []
    for command in COMMANDS:
        if options.only in command:
            results.append(known.get(command) or run(command, options))
            print(results[-1], flush=True)
            write_record(options, "family", {"runs": results})
    heading = f"{COMMON}, {options.epochs} epochs, seed {options.seed}, {options.threads} threads"
    Console(width=160).print(table_of(results, heading))


if __name__ == "__main__":
    main()
