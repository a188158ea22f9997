"""Runs of `python main.py`, made and tabulated.

    python benchmarks/runs.py repeat --seeds 5 --json runs.json model=dtp trainer.max_epochs=3
    python benchmarks/runs.py family --data data --threads 1 --json runs/family.json
    python benchmarks/runs.py record --runs "as printed" runs/a1 runs/a2 --runs backprop runs/b1 --json records.json
    python benchmarks/runs.py pairs --first runs/mirror_* --second runs/backprop_* --step-ms 96.8 89.0 --json pairs.json
    python benchmarks/runs.py angles runs/a1

Each says more with `--help`.
"""

from __future__ import annotations

import argparse
import json
import re
import resource
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import accumulate, product
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean, mean, median, stdev
from tempfile import TemporaryDirectory
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from rich.console import Console
from rich.table import Column, Table

from targetprop.app.overrides import check_overrides
from targetprop.compare.run_folder import Run, compact, read_metrics, read_run
from targetprop.compare.stats import interval
from targetprop.utils.errors import UserError
from timing import add_machine, positive, prepare, title, write_record

ROOT = Path(__file__).parents[1]


def tidy(axes: Iterable[Axes]) -> None:
    """No frame, a faint grid."""
    for each in axes:
        each.grid(alpha=0.25)
        each.spines[["top", "right"]].set_visible(False)


# repeat: a run over several seeds.

COLUMNS = {
    "accuracy": ("test accuracy, %", 100.0),
    "seconds": ("training, s", 1.0),
    "host_bytes": ("host memory, MiB", 2.0**-20),
    "gpu_bytes": ("GPU memory, MiB", 2.0**-20),
}
"""What is measured of a run, and how a table shows it."""


def add_repeat(made: argparse.ArgumentParser) -> None:
    """The same training run over several seeds: test accuracy, time and peak memory, mean and standard deviation.

    Every run is what `python main.py OVERRIDES seed=k` makes, in a process of its own, one after the other. Time is
    that of the training epochs, memory the most that the process had in use: on the host, and of a GPU what torch
    allocated.
    """
    add_machine(made)
    made.add_argument("--seeds", type=positive, default=5, help="how many")
    made.add_argument("--first-seed", type=int, default=1)
    made.add_argument("overrides", nargs="+", help="as main.py takes them")


def repeat(options: argparse.Namespace) -> None:
    """Run, print, write."""
    prepare(options)
    runs = []
    with TemporaryDirectory() as folder:
        for seed in range(options.first_seed, options.first_seed + options.seeds):
            device = [] if options.device == "cuda" else ["trainer.gpus=0"]
            fixed = [f"trainer.threads={options.threads}", "test=true", f"seed={seed}", f"output_dir={folder}/{seed}"]
            overrides = [*device, *options.overrides, *fixed]
            try:
                check_overrides(overrides)
                with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
                    runs.append({"seed": seed, **process.submit(one_run, overrides).result()})
            except UserError as error:
                sys.exit(f"Error: {error}")
    Console().print(repeat_table(title(" ".join(["runs of", *options.overrides]), options), runs))
    write_record(options, "runs", {"runs": runs, "summary": summary_of(runs)})


def one_run(overrides: Sequence[str]) -> dict[str, float]:
    """Train once, in a process that has done nothing else."""
    from targetprop.app.run import train

    config = check_overrides(list(overrides))
    metrics = train(config)
    scale = 1 if sys.platform == "darwin" else 1024  # of what the system counts memory in
    return {
        "accuracy": metrics["test/accuracy"],
        "seconds": sum(read_run(Path(config.output_dir)).epoch_seconds),
        "host_bytes": float(scale * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss),
        "gpu_bytes": float(torch.cuda.max_memory_allocated()),
    }


def repeat_table(heading: str, runs: Sequence[dict[str, float]]) -> Table:
    """A row for each seed, and one for mean and standard deviation."""
    shown = [key for key in COLUMNS if any(run[key] for run in runs)]
    table = Table("seed", *(COLUMNS[key][0] for key in shown), title=heading)
    for run in runs:
        table.add_row(f"{run['seed']:.0f}", *(f"{COLUMNS[key][1] * run[key]:.2f}" for key in shown))
    table.add_section()
    values = [[COLUMNS[key][1] * run[key] for run in runs] for key in shown]
    table.add_row("mean (sd)", *(f"{mean(each):.2f} ({spread(each):.2f})" for each in values))
    return table


def summary_of(runs: Sequence[dict[str, float]]) -> dict[str, Any]:
    """Mean and standard deviation of everything measured."""
    columns = {key: [run[key] for run in runs] for key in COLUMNS}
    return {key: {"mean": mean(values), "sd": spread(values)} for key, values in columns.items()}


def spread(values: Sequence[float]) -> float:
    """Standard deviation; 0 of a single value."""
    return stdev(values) if len(values) > 1 else 0.0


# record: what runs reached, kind by kind.


def add_record(made: argparse.ArgumentParser) -> None:
    """The accuracies of runs of `python main.py`, a row for each kind of run, and their epochs in one compact file.

    `--picture FILE` draws accuracy against epochs and against seconds of training, a colour for each kind of run.
    """
    made.add_argument("--runs", nargs="+", action="append", required=True, help="a name and run directories")
    made.add_argument("--json", type=Path)
    made.add_argument("--picture", type=Path)


def record(options: argparse.Namespace) -> None:
    """Read, print, write."""
    kinds = {name: [read_run(Path(folder)) for folder in folders] for name, *folders in options.runs}
    table = Table("", "runs", "validation (%)", "test (%)", "training (s)")
    for name, runs in kinds.items():
        table.add_row(*kind_row(name, runs))
    Console().print(table)
    if options.json:
        records = {name: list(map(compact, runs)) for name, runs in kinds.items()}
        options.json.write_text(json.dumps(records, indent=1) + "\n")
    if options.picture:
        draw_kinds(options.picture, kinds)


def kind_row(name: str, runs: Sequence[Run]) -> list[str]:
    """Name, runs, mean accuracies, the deviation of test accuracy between runs, and seconds of training."""
    test = [100 * value for run in runs if (value := run.of(run.test)) is not None]
    deviation = f" +- {stdev(test):.2f}" if len(test) > 1 else ""
    validation = [100 * value for run in runs if (value := run.of(run.validation)) is not None]
    return [
        name,
        str(len(runs)),
        f"{mean(validation):.2f}" if validation else "",
        f"{mean(test):.2f}{deviation}" if test else "",
        f"{mean(sum(run.epoch_seconds) for run in runs):.0f}",
    ]


def draw_kinds(path: Path, kinds: Mapping[str, Sequence[Run]]) -> None:
    """Training accuracy thin, validation accuracy thick."""
    figure = Figure(figsize=(11, 4), layout="constrained")
    by_epoch, by_second = figure.subplots(1, 2, sharey=True)
    styles = {"train/accuracy": ("training", "--", 1.0), "val/accuracy": ("validation", "-", 2.0)}
    numbered = [(number, name, run) for number, (name, runs) in enumerate(kinds.items()) for run in runs]
    labelled: set[str] = set()
    for (number, name, run), column in product(numbered, styles):
        y = [100 * value for value in run.metrics.epochs.get(column, [])] if run.metrics else []
        if not y:
            continue
        what, style, width = styles[column]
        label = f"{name}, {what}"
        look: dict[str, Any] = {"linestyle": style, "color": f"C{number}", "linewidth": width}
        by_epoch.plot(range(1, len(y) + 1), y, **look)
        by_second.plot(list(accumulate(run.epoch_seconds)), y, label=None if label in labelled else label, **look)
        labelled.add(label)
    by_epoch.set(xlabel="epoch", ylabel="accuracy (%)")
    by_epoch.xaxis.set_major_locator(MaxNLocator(integer=True))
    by_second.set(xlabel="seconds of training")
    by_second.legend(frameon=False)
    tidy((by_epoch, by_second))
    figure.savefig(path, dpi=130)


# pairs: two ways to train, seed by seed.


def add_pairs(made: argparse.ArgumentParser) -> None:
    """Two ways to train with the same seeds: accuracies, their mean difference with its 95 % interval, and the curves.

    Arguments are run directories of `python main.py`, paired by their seed. Step times, from `step_time.py` on a quiet
    machine, scale the second panel: the runs themselves may have shared the machine.
    """
    made.add_argument("--first", type=Path, nargs="+", required=True)
    made.add_argument("--second", type=Path, nargs="+", required=True)
    made.add_argument("--names", nargs=2, default=["first", "second"])
    made.add_argument("--step-ms", type=float, nargs=2, required=True, help="time of a training step")
    made.add_argument("--json", type=Path)
    made.add_argument("--picture", type=Path)


def pairs(options: argparse.Namespace) -> None:
    """Read, print, draw."""
    groups = [sorted(map(paired, runs), key=lambda run: run["seed"]) for runs in (options.first, options.second)]
    seeds = [[run["seed"] for run in group] for group in groups]
    if seeds[0] != seeds[1] or len(seeds[0]) < 2:
        sys.exit(f"Expected two runs or more of the same seeds, got {seeds}.")
    middle, half = print_pairs(options.names, groups)
    if options.json:
        kept = dict(zip(options.names, groups, strict=True))
        options.json.write_text(json.dumps({**kept, "difference": middle, "half_interval": half}, indent=1) + "\n")
    if options.picture:
        draw_pairs(options.picture, options.names, groups, options.step_ms)


def paired(folder: Path) -> dict[str, Any]:
    """Seed, final accuracies, and per epoch the step it ended at, validation accuracy and mean angles, of one run."""
    run = read_run(folder)
    if run.metrics is None:
        sys.exit(f"{folder} has no csv/metrics.csv; pairs are compared by runs with logger=csv.")
    epochs = run.metrics.epochs
    return {
        "seed": run.seed,
        "test": run.of(run.test),
        "validation": run.of(run.validation),
        "training": epochs.get("train/accuracy", [None])[-1],
        "epoch_steps": run.metrics.steps,
        "epoch_validation": epochs.get("val/accuracy", []),
        "epoch_angles": run.metrics.angles.by_epoch(),
        "epoch_seconds": run.epoch_seconds,
    }


def print_pairs(names: Sequence[str], groups: Sequence[list[dict[str, Any]]]) -> tuple[float, float]:
    """Accuracies; the first group's angles. Returns the mean difference of test accuracy and half its interval."""
    table, middle, half = accuracy_table("Test accuracy", names, groups, "test")
    Console().print(table)
    if all(run["training"] is not None for group in groups for run in group):
        Console().print(accuracy_table("Training accuracy in the last epoch", names, groups, "training")[0])
    Console().print(angle_table(f"{names[0]}: mean angle, degrees", [run["epoch_angles"] for run in groups[0]]))
    return middle, half


def accuracy_table(
    what: str, names: Sequence[str], groups: Sequence[list[dict[str, Any]]], key: str
) -> tuple[Table, float, float]:
    """Accuracies of both groups by seed; with their mean difference, and half its interval."""
    table = Table("seed", *names, "difference", title=f"{what}, %")
    differences = [100 * (a[key] - b[key]) for a, b in zip(*groups, strict=True)]
    for a, b, difference in zip(*groups, differences, strict=True):
        table.add_row(str(a["seed"]), f"{100 * a[key]:.2f}", f"{100 * b[key]:.2f}", f"{difference:+.2f}")
    middle, half = interval(differences)
    means = [f"{100 * mean(run[key] for run in group):.2f}" for group in groups]
    table.add_row("mean", *means, f"{middle:+.2f} +- {half:.2f}")
    return table, middle, half


def draw_pairs(
    path: Path, names: Sequence[str], groups: Sequence[list[dict[str, Any]]], step_ms: Sequence[float]
) -> None:
    """Validation accuracy against epochs and against seconds, and the first group's angles."""
    figure = Figure(figsize=(13, 3.8), layout="constrained")
    by_epoch, by_second, angles = figure.subplots(1, 3)
    for number, (name, runs, ms) in enumerate(zip(names, groups, step_ms, strict=True)):
        for run in runs:
            y = [100 * value for value in run["epoch_validation"]]
            look: dict[str, Any] = {"color": f"C{number}", "alpha": 0.6, "lw": 1.2, "marker": "o", "ms": 2.5}
            look["label"] = name if run is runs[0] else None
            by_epoch.plot(range(1, len(y) + 1), y, **look)
            by_second.plot([ms / 1000 * step for step in run["epoch_steps"]], y, **look)
    by_epoch.set(xlabel="epoch", ylabel="validation accuracy (%)", title="one curve a seed")
    by_second.set(xlabel="seconds of training steps (quiet machine)", ylabel="validation accuracy (%)")
    for axes in (by_epoch, by_second):
        axes.legend(frameon=False)
    draw_angles(angles, mean_of([run["epoch_angles"] for run in groups[0]]))
    angles.set(title=f"{names[0]}: mean over seeds")
    tidy((by_epoch, by_second, angles))
    figure.savefig(path, dpi=130)


def draw_angles(axes: Axes, by_epoch: Mapping[int, Mapping[str, float]]) -> None:
    """A curve for each block."""
    blocks = list(next(iter(by_epoch.values()), {}))
    for number, block in enumerate(blocks):
        shade = 0.15 + 0.7 * number / max(1, len(blocks) - 1)
        values = [each[block] for each in by_epoch.values()]
        axes.plot(list(by_epoch), values, color=(0.1, shade, 0.7), marker="o", ms=3, label=block)
    axes.set(xlabel="epoch", ylabel="update to backprop (degrees)")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, fontsize="small", ncols=2)


# angles: epoch by epoch.


def add_angles(made: argparse.ArgumentParser) -> None:
    """The mean angle between update and backprop gradient in each epoch of a run.

    Of several runs, their mean.
    """
    made.add_argument("runs", type=Path, nargs="+", help="run directories, or files of metrics (csv/metrics.csv)")


def angles(options: argparse.Namespace) -> None:
    """Read and print."""
    files = [path / "csv" / "metrics.csv" if path.is_dir() else path for path in options.runs]
    by_epoch = [read_metrics(path).angles.by_epoch() for path in files]
    Console().print(angle_table("Mean angle to backprop, degrees", by_epoch))


def angle_table(heading: str, runs: Sequence[Mapping[int, Mapping[str, float]]]) -> Table:
    """A row for each epoch, the mean over the runs."""
    by_epoch = mean_of(runs)
    blocks = list(next(iter(by_epoch.values()), {}))
    table = Table("epoch", *(Column(block, justify="right") for block in blocks), title=heading)
    for epoch, by_block in by_epoch.items():
        table.add_row(str(epoch), *(f"{by_block[block]:.1f}" for block in blocks))
    return table


def mean_of(runs: Sequence[Mapping[int, Mapping[str, float]]]) -> dict[int, dict[str, float]]:
    """Over runs, the angles by epoch and block, of the epochs that all of them have."""
    shared = [epoch for epoch in runs[0] if all(epoch in run for run in runs)]
    return {epoch: {block: fmean(run[epoch][block] for run in runs) for block in runs[0][epoch]} for epoch in shared}


# family: every model.

ADAM = " ".join(
    f"model.hparams.{optimiser}.{setting}"
    for optimiser in ("b_optim", "f_optim")
    for setting in ("type=adam", "momentum=0", "lr=1e-3")
)
"""For losses with which the published rates, those of L-DRL, diverge on this network."""
FAMILY = (
    "model=backprop",
    "model=dtp",
    "model=layer_parallel_dtp trainer=layer_parallel trainer.processes=2",
    "model=delta_mirror",
    "model=kolen_pollack model.hparams.f_optim.lr=0.04 model.hparams.init_symmetric_weights=true",
    "model=fixed_dtp",
    "model=parallel_dtp",
    f"model=vanilla_dtp model.hparams.feedback_training_iterations=10 {ADAM}",
    f"model=lee_dtp model.hparams.noise=0.2 {ADAM}",
    f"model=tp model.hparams.feedback_training_iterations=10 {ADAM}",
    "model=delta_mirror network=resnet18 network.hparams.channels=[16,32,64] network.hparams.blocks=[1,1,1]",
    "model=delta_mirror network=lenet network.hparams.channels=[16,32] network.hparams.hidden=128",
    "model=delta_mirror network=mlp network.hparams.hidden=[256,256]",
)
COMMON = "datamodule=cifar10 scheduler=cosine_to_end"
VGG = "network=simple_vgg network.hparams.channels=[16,16,32,32,64]"
"""The network, where the command names none."""


def add_family(made: argparse.ArgumentParser) -> None:
    """Every model on CIFAR-10 at a size for a CPU, by one command each: accuracy, alignment and time in a table.

    Each is `python main.py` with the command in the table, `COMMON` and, where it names no network, `VGG`; all other
    numbers are those of its configuration: published ones where there are any, which were not made for this network.
    One run each; so this shows what runs and roughly how it compares, not which is best.
    """
    add_machine(made)
    made.set_defaults(threads=1)
    made.add_argument("--data", type=Path, default=Path("data"), help="directory that holds CIFAR-10")
    made.add_argument("--epochs", type=positive, default=2)
    made.add_argument("--seed", type=int, default=1)
    made.add_argument("--only", default="", help="commands with this text in them")
    made.add_argument("--resume", action="store_true", help="run nothing again that the file of --json holds")


def family(options: argparse.Namespace) -> None:
    """Run them all and print the table."""
    resumes = options.resume and options.json and options.json.exists()
    kept = json.loads(options.json.read_text())["runs"] if resumes else []
    known, results = {row["command"]: row for row in kept}, []
    for command in FAMILY:
        if options.only in command:
            results.append(known.get(command) or member(command, options))
            print(results[-1], flush=True)
            write_record(options, "family", {"runs": results})
    heading = f"{COMMON}, {options.epochs} epochs, seed {options.seed}, {options.threads} threads"
    Console(width=160).print(family_table(heading, results))


def member(command: str, options: argparse.Namespace) -> dict[str, Any]:
    """One run: its command and, if it ends well, its results."""
    with TemporaryDirectory() as scratch:
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
        run = read_run(output)
        return {
            "command": command,
            "validation": run.of(run.validation),
            "test": run.of(run.test),
            "epoch_seconds": median(run.epoch_seconds),
            "angles": run.metrics.angles.at_the_end() if run.metrics else [],
        }


def family_table(heading: str, results: Sequence[dict[str, Any]]) -> Table:
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


Add = Callable[[argparse.ArgumentParser], None]
COMMANDS: dict[str, tuple[Add, Callable[[argparse.Namespace], None]]] = {
    "repeat": (add_repeat, repeat),
    "record": (add_record, record),
    "pairs": (add_pairs, pairs),
    "angles": (add_angles, angles),
    "family": (add_family, family),
}
"""Of each sub-command, what adds its options, and what it does."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Do what the sub-command says."""
    raw = argparse.RawDescriptionHelpFormatter
    made = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    choices = made.add_subparsers(dest="command", required=True)
    for name, (add, _) in COMMANDS.items():
        doc = (add.__doc__ or "").replace("\n    ", "\n")
        summary = doc.partition("\n")[0].replace("%", "%%")
        add(choices.add_parser(name, help=summary, description=doc, formatter_class=raw))
    options = made.parse_args(arguments)
    COMMANDS[options.command][1](options)


if __name__ == "__main__":
    main()
