"""A short while with a GPU: its tests, its step times, and training runs that go on where the last session stopped.

    python benchmarks/gpu_session.py pack runs/carried --data A B --unpacker FILE --runs runs/gpu    # here, beforehand
    python benchmarks/gpu_session.py tests runs/carried OUT     # there, each within its --limit of seconds; or keep
    python benchmarks/gpu_session.py times runs/carried OUT
    python benchmarks/gpu_session.py train runs/carried OUT
    python benchmarks/gpu_session.py collect OUT runs/gpu       # here, afterwards

`pack` shares out what has to travel over folders 1, 2, ..., each small enough for one call. The first one has a copy of
the packages in `--packages`, which a machine with torch may lack; nothing is downloaded there.
Data are any files with a Python program that writes the published ones, `python FILE DATA_DIR FOLDER`; without them
`train` reads DATA_DIR. What has arrived is kept in `--store`, from call to call, until all of it is there.

`train` makes the runs of `--runs` in this order, `--jobs` at a time; those that were finished are left out, and those
that were stopped go on. After every epoch the runs, with the checkpoints of unfinished ones, are written into OUT, in
parts of 15 MiB. Every stage writes its record, OUT/STAGE.json, whatever became of it.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from targetprop.app.machine import machine
from targetprop.data import cifar10
from targetprop.data.locate import locate
from targetprop.utils.files import whole_file, write_text
from timing import positive

ROOT = Path(__file__).parents[1]
MIB = 2**20
PART = 15 * MIB
"""Size of the files in OUT."""
MOST = 62 * MIB
"""Size of all of them: checkpoints beyond it are left there."""
SETTING = (
    "network=simple_vgg", "datamodule=cifar10_legacy", "scheduler=cosine", "trainer=default",
    "trainer.matmul_precision=high", "callbacks.alignment.every_n_steps=100",
)  # fmt: skip
"""What all runs share: the published network, schedule and 90 epochs, on all images, normalised as the legacy code."""
RATE = 0.08 * 0.7
"""Effective forward rate: that of a method with step size beta is this over beta."""
BETAS = {"backprop": None, "amortised_dtp": 0.7, "dtp": 0.7}
SMALL = (".json", ".yaml", ".csv", ".txt", ".log", ".png")
"""What comes home of a run, beside its checkpoint."""
RUNS = ("backprop:1", "amortised_dtp:1", "backprop:2", "amortised_dtp:2", "dtp:1")
PACKAGES = ("hydra-core", "omegaconf", "antlr4-python3-runtime")
MANIFEST, SITE, UNPACKER, STATE = "manifest.json", "site.tar", "unpack.py", "state.tar"

# Files that travel.


def split(content: bytes, folder: Path, name: str, size: int) -> list[Path]:
    """Write name.0, name.1, ... and remove what an earlier, larger content left."""
    starts = range(0, max(1, len(content)), size)
    paths = [folder / f"{name}.{number}" for number in range(len(starts))]
    for path, start in zip(paths, starts, strict=True):
        with whole_file(path) as partial:
            partial.write_bytes(content[start : start + size])
    for path in set(folder.glob(f"{name}.*")) - set(paths):
        path.unlink()
    return paths


def joined(folder: Path, name: str) -> bytes:
    """What `split` wrote."""
    paths = sorted(folder.glob(f"{name}.*"), key=lambda path: int(path.suffix[1:]))
    return b"".join(path.read_bytes() for path in paths)


def tar_of(files: Mapping[str, Path]) -> bytes:
    """An archive of these files by their names in it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, path in files.items():
            content = path.read_bytes()  # at once: a run may be writing it
            facts = tarfile.TarInfo(name)
            facts.size, facts.mtime = len(content), int(path.stat().st_mtime)
            archive.addfile(facts, io.BytesIO(content))
    return buffer.getvalue()


def untar(content: bytes, folder: Path) -> None:
    """Its files, below the folder."""
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        archive.extractall(folder, filter="data")


def md5(content: bytes) -> str:
    """To tell whether all of it is there."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


# Runs. Every session that a run is in leaves a folder in that of the run: 1, 2, ...


@dataclass(frozen=True)
class Run:
    """A training run, in a folder below that of all runs."""

    method: str
    seed: int
    folder: Path

    @classmethod
    def of(cls, text: str, runs: Path) -> Run:
        """The one that "method:seed" names."""
        method, _, seed = text.partition(":")
        return cls(method, int(seed), runs / f"{method}_{seed}")

    @property
    def next_leg(self) -> Path:
        """The folder of its next session."""
        legs = numbered(self.folder)
        return self.folder / str(int(legs[-1].name) + 1 if legs else 1)

    def command(self, options: argparse.Namespace, data: Path) -> list[str]:
        """The next leg of it."""
        gpu, last = options.device == "cuda", unfinished(self.folder)
        beta = BETAS[self.method]
        settings = [
            f"model={self.method}", f"seed={self.seed}", *options.setting, "logger=csv", f"data_dir={data}",
            f"model.hparams.f_optim.lr={options.rate / (beta or 1.0)!r}", f"trainer.gpus={int(gpu)}",
            f"trainer.cuda_graph={str(gpu and beta is not None).lower()}", "trainer.enable_progress_bar=false",
            f"hydra.run.dir={self.next_leg}",
        ]  # fmt: skip
        settings += [] if beta is None else [f"model.hparams.beta={beta}"]
        settings += [] if last is None else [f"ckpt_path={last}"]
        return [sys.executable, str(ROOT / "main.py"), *settings, *options.override]


def numbered(folder: Path) -> list[Path]:
    """The folders 1, 2, ... in it: the legs of a run, or what was carried."""
    return sorted((path for path in folder.glob("*") if path.name.isdigit()), key=lambda path: int(path.name))


def is_finished(run: Path) -> bool:
    """Whether it was evaluated in the end."""
    return any((leg / "results.json").is_file() for leg in numbered(run))


def unfinished(run: Path) -> Path | None:
    """The checkpoint that a run goes on from, if it is not finished."""
    found = [path for leg in numbered(run) if (path := leg / "checkpoints" / "last.ckpt").is_file()]
    return found[-1] if found and not is_finished(run) else None


def epochs_of(run: Path) -> int:
    """That an unfinished run has behind it."""
    last = unfinished(run)
    return 0 if last is None else int(torch.load(last, map_location="cpu", weights_only=True)["epoch"]) + 1


def files_of(runs: Path, most: float) -> tuple[dict[str, Path], list[str]]:
    """All small files of all runs, and as many checkpoints of unfinished ones as fit; the names of runs that do not."""
    small = [path for path in sorted(runs.rglob("*")) if path.suffix in SMALL]
    files, left_out = {str(path.relative_to(runs)): path for path in small}, []
    room = most - sum(path.stat().st_size + 1024 for path in small)
    for run in sorted(runs.glob("*")):
        last = unfinished(run)
        if last is None:
            continue
        size = last.stat().st_size + 1024
        if size <= room:
            files[str(last.relative_to(runs))] = last
            room -= size
        else:
            left_out.append(run.name)
    return files, left_out


# pack: here, beforehand.


def add_pack(made: argparse.ArgumentParser) -> None:
    """Share out what has to travel over folders that fit into one call each."""
    made.add_argument("folder", type=Path)
    made.add_argument("--data", type=Path, nargs="+", default=[], help="files, in any form")
    made.add_argument("--unpacker", type=Path, help="program that writes the published files from them")
    made.add_argument("--runs", type=Path, help="runs of earlier sessions; unfinished ones go on")
    made.add_argument("--packages", nargs="*", default=PACKAGES, help="installed ones, without compiled parts")
    made.add_argument("--most", type=positive, default=56, help="MiB in one folder; the working tree travels beside it")


def pack(options: argparse.Namespace) -> None:
    """Write the folders, and say what is in them."""
    shutil.rmtree(options.folder, ignore_errors=True)
    with tempfile.TemporaryDirectory() as scratch:
        files = list(parcels(options, Path(scratch)))
        manifest = {"commit": commit(), "md5": {path.name: md5(path.read_bytes()) for path in files}}
        folders = shared_out(files, options.most * MIB)
        for number, inside in enumerate(folders, start=1):
            folder = options.folder / str(number)
            folder.mkdir(parents=True)
            for path in inside:
                shutil.copy(path, folder / path.name)
            write_text(folder / MANIFEST, json.dumps(manifest, indent=2) + "\n")
            size = sum(path.stat().st_size for path in inside) / MIB
            print(f"call {number}: carry {folder} ({size:.1f} MiB: {', '.join(path.name for path in inside)})")
    print("Tests and step times need the first one, training needs all.")


def parcels(options: argparse.Namespace, scratch: Path) -> Iterator[Path]:
    """The files that travel, the packages first."""
    site = scratch / SITE
    site.write_bytes(tar_of(package_files(options.packages)))
    yield site
    if options.data:
        unpacker = scratch / UNPACKER
        shutil.copy(options.unpacker, unpacker)
        yield unpacker
    yield from options.data
    if options.runs:
        waiting = {run: last for run in sorted(options.runs.glob("*")) if (last := unfinished(run))}
        done = [path for run in options.runs.glob("*") for path in run.glob("*/results.json")]
        files = {str(path.relative_to(options.runs)): path for path in (*done, *waiting.values())}
        yield from split(tar_of(files), scratch, STATE, 8 * MIB)


def package_files(names: Sequence[str]) -> dict[str, Path]:
    """All files of installed packages."""
    files: dict[str, Path] = {}
    for name in names:
        own = {str(each): Path(str(each.locate())) for each in importlib.metadata.files(name) or ()}
        compiled = [each for each in own if each.endswith((".so", ".pyd"))]
        if compiled:
            sys.exit(f"{name} has compiled parts ({compiled[0]}), which may not fit another machine.")
        files |= {each: path for each, path in own.items() if not each.startswith("..") and "__pycache__" not in each}
    return files


def shared_out(files: Sequence[Path], most: int) -> list[list[Path]]:
    """The first file in the first folder, the others, large ones first, in the first that has room for them."""
    rest = sorted(files[1:], key=lambda path: -path.stat().st_size)
    folders: list[list[Path]] = []
    for path in (files[0], *rest):
        size = path.stat().st_size
        if size > most:
            sys.exit(f"{path.name} ({size / MIB:.1f} MiB) does not fit into one call.")
        fitting = (each for each in folders if size + sum(other.stat().st_size for other in each) <= most)
        folder = next(fitting, None)
        if folder is None:
            folders.append(folder := [])
        folder.append(path)
    return folders


def commit() -> str:
    """Of the working tree, with a mark if it was changed since."""
    git = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    return subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip() or "unknown"


# keep, tests, times, train: there.


def add_stage(made: argparse.ArgumentParser, limit: float) -> None:
    """The options of every stage."""
    made.add_argument("carried", type=Path, help="what `pack` wrote, as far as it is here")
    made.add_argument("out", type=Path, help="folder for records and runs")
    made.add_argument("--store", type=Path, default=Path(tempfile.gettempdir(), "targetprop_gpu_session"))
    made.add_argument("--limit", type=float, default=limit, help="seconds")
    made.add_argument("--device", choices=("cuda", "cpu"), default="cuda")


class Store:
    """What has arrived, and the runs."""

    def __init__(self, folder: Path, carried: Path) -> None:
        self.folder = folder.resolve()
        self.runs = self.folder / "runs"
        self.runs.mkdir(parents=True, exist_ok=True)
        for each in numbered(carried):
            for path in each.iterdir():
                shutil.copy(path, self.folder / path.name)
        manifest = self.folder / MANIFEST
        self.manifest: dict[str, Any] = json.loads(manifest.read_text()) if manifest.is_file() else {"md5": {}}
        if (self.folder / SITE).is_file():
            untar((self.folder / SITE).read_bytes(), self.folder / "site")

    @property
    def environment(self) -> dict[str, str]:
        """In which processes find the packages, those of the machine after those that travelled."""
        paths = [str(self.folder / "site"), str(ROOT), os.environ.get("PYTHONPATH", "")]
        return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "PYTHONUNBUFFERED": "1"}

    def missing(self) -> list[str]:
        """What has not arrived, or not as it was packed."""
        paths = {name: self.folder / name for name in self.manifest["md5"]}
        here = {name: md5(path.read_bytes()) for name, path in paths.items() if path.is_file()}
        return [name for name, packed in self.manifest["md5"].items() if here.get(name) != packed]

    def complete(self) -> None:
        """Refuse to go on without all that was packed; then put the earlier runs in their place, once."""
        if missing := self.missing():
            raise RuntimeError(f"{', '.join(missing)} has not arrived, or not as it was packed")
        if (self.folder / f"{STATE}.0").is_file() and not any(self.runs.iterdir()):
            untar(joined(self.folder, STATE), self.runs)

    def data(self) -> Path:
        """The directory of the published files, checked, unpacked from what travelled if any data did."""
        if not (self.folder / UNPACKER).is_file():
            return Path(os.environ.get("DATA_DIR", "data")).resolve()
        folder = self.folder / "data"
        command = [sys.executable, str(self.folder / UNPACKER), str(folder), str(self.folder)]
        subprocess.run(command, check=True, env=self.environment)
        if note := locate(cifar10.ARCHIVE, folder, download=False).note:
            raise RuntimeError(note)
        return folder


Stage = Callable[[argparse.Namespace, Store], dict[str, Any]]


def at_stage(name: str, stage: Stage) -> Callable[[argparse.Namespace], None]:
    """The stage with its record, also if it fails: then the exit status is 1."""

    def run(options: argparse.Namespace) -> None:
        options.out.mkdir(parents=True, exist_ok=True)
        start, store = time.monotonic(), Store(options.store, options.carried)
        gpu = torch.cuda.is_available()
        try:
            if options.device == "cuda" and not gpu:
                raise RuntimeError("torch finds no GPU on this machine")
            results = stage(options, store)
        except Exception as error:
            results = {"error": f"{type(error).__name__}: {error}"}
        seconds = time.monotonic() - start
        facts = {
            **machine(torch.device(options.device if gpu else "cpu")),
            "driver": driver(),
            "commit": store.manifest.get("commit"),
        }
        record = {"stage": name, "machine": facts, "seconds": seconds, **results}
        write_text(options.out / f"{name}.json", json.dumps(record, indent=2) + "\n")
        print(f"{name}: {seconds:.0f} s, {results.get('error') or 'done'}", flush=True)
        if "error" in results:
            sys.exit(1)

    return run


def driver() -> str | None:
    """Of the GPU, if there is one."""
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    return subprocess.check_output(query, text=True).strip() if shutil.which(query[0]) else None


def limited(command: Sequence[str], options: argparse.Namespace, store: Store) -> dict[str, Any]:
    """Run a command that ends within the limit; the end of what it said."""
    said = store.folder / "said.txt"
    with said.open("w") as file:
        try:
            done = subprocess.run(
                command, cwd=ROOT, env=store.environment, stdout=file, stderr=file, timeout=options.limit, check=False
            )
        except subprocess.TimeoutExpired:
            return {"error": "the time was up", "said": said.read_text()[-4000:]}
    failure = {} if done.returncode == 0 else {"error": f"exit status {done.returncode}"}
    return {**failure, "said": said.read_text()[-4000:]}


def add_keep(made: argparse.ArgumentParser) -> None:
    """Only keep what has arrived: for calls between the first and the last."""
    add_stage(made, limit=60.0)


def keep(options: argparse.Namespace, store: Store) -> dict[str, Any]:
    """Every stage does it before it begins."""
    return {"missing": store.missing()}


def add_tests(made: argparse.ArgumentParser) -> None:
    """Run the tests that need a GPU."""
    add_stage(made, limit=150.0)


def tests(options: argparse.Namespace, store: Store) -> dict[str, Any]:
    """All that are marked, and no file without any, which may want more than this machine has."""
    marked = [str(path) for path in sorted((ROOT / "tests").rglob("test_*.py")) if "mark.gpu" in path.read_text()]
    return limited([sys.executable, "-m", "pytest", "-q", "-m", "gpu", *marked], options, store)


def add_times(made: argparse.ArgumentParser) -> None:
    """Measure what benchmarks/gpu.py measures: correctness, step times with and without graphs, memory."""
    add_stage(made, limit=200.0)
    made.add_argument("--sizes", default="--repeats 10 --seconds 1.5", help="options of gpu.py, in one argument")


def times(options: argparse.Namespace, store: Store) -> dict[str, Any]:
    """Its record is OUT/gpu.json."""
    script = [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), "--device", options.device]
    return limited([*script, "--json", str(options.out.resolve() / "gpu.json"), *options.sizes.split()], options, store)


def add_train(made: argparse.ArgumentParser) -> None:
    """Make training runs, or go on with them, as many as fit into the time."""
    add_stage(made, limit=540.0)
    made.add_argument("--runs", nargs="+", default=RUNS, metavar="METHOD:SEED", help=f"methods: {', '.join(BETAS)}")
    made.add_argument("--jobs", type=positive, default=2, help="runs at a time")
    made.add_argument("--setting", nargs="+", default=SETTING, help="overrides of main.py that all runs share")
    made.add_argument("--override", nargs="+", default=(), help="further ones")
    made.add_argument("--rate", type=float, default=RATE, help="effective forward rate")


def train(options: argparse.Namespace, store: Store) -> dict[str, Any]:
    """Start a run whenever there is room for one, bring home what there is, and stop all when the time is up."""
    deadline = time.monotonic() + options.limit
    store.complete()
    data = store.data()
    waiting = [run for text in options.runs if not is_finished((run := Run.of(text, store.runs)).folder)]
    work, home = Work(options, store, data), Home(store.runs, options.out)
    while (waiting or work.active) and time.monotonic() < deadline:
        while waiting and len(work.active) < options.jobs:
            work.begin(waiting.pop(0))
        time.sleep(1.0)
        work.look()
        home.bring()
    work.stop()
    home.bring()
    failed = [name for name, run in work.runs.items() if run["state"].startswith("failed")]
    failure = {"error": f"{', '.join(failed)} failed"} if failed else {}
    facts = {"setting": [*options.setting, *options.override], "not_begun": [run.folder.name for run in waiting]}
    return {**failure, **facts, "runs": work.runs, **home.facts}


class Work:
    """Runs while they run."""

    def __init__(self, options: argparse.Namespace, store: Store, data: Path) -> None:
        self.options, self.store, self.data = options, store, data
        self.active: dict[str, tuple[Run, subprocess.Popen[bytes], float]] = {}
        self.runs: dict[str, dict[str, Any]] = {}

    def begin(self, run: Run) -> None:
        """Start it, in its next leg."""
        command = run.command(self.options, self.data)
        settings = [each for each in command[2:] if str(self.store.folder) not in each]  # records are committed
        self.runs[run.folder.name] = {"settings": settings, "epochs_before": epochs_of(run.folder)}
        leg = run.next_leg
        leg.mkdir(parents=True)
        with (leg / "said.txt").open("wb") as said:
            process = subprocess.Popen(command, cwd=ROOT, env=self.store.environment, stdout=said, stderr=said)
        self.active[run.folder.name] = run, process, time.monotonic()

    def look(self) -> None:
        """Note which ones have ended."""
        for name, (_, process, _) in list(self.active.items()):
            if process.poll() is not None:
                self._end(name, f"failed, exit status {process.returncode}" if process.returncode else "finished")

    def stop(self) -> None:
        """End what still runs: it goes on from its last epoch another time."""
        for _, process, _ in self.active.values():
            process.terminate()
        for name, (_, process, _) in list(self.active.items()):
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            self._end(name, "stopped")

    def _end(self, name: str, state: str) -> None:
        run, _, start = self.active.pop(name)
        facts = {"state": state, "seconds": time.monotonic() - start, "epochs": epochs_of(run.folder)}
        leg = numbered(run.folder)[-1]
        if is_finished(run.folder):
            facts |= {"results": json.loads((leg / "results.json").read_text())}
        elif state != "stopped":
            facts |= {"said": (leg / "said.txt").read_text()[-2000:]}
        self.runs[name] |= facts


class Home:
    """The folder that is brought home, OUT, and what was last written there."""

    def __init__(self, runs: Path, out: Path) -> None:
        self.runs, self.out = runs, out
        self.facts: dict[str, Any] = {}
        self._seen: list[tuple[str, float]] = []

    def bring(self) -> None:
        """Write the runs, if an epoch or a run has ended since."""
        ends = sorted((*self.runs.glob("*/*/checkpoints/last.ckpt"), *self.runs.glob("*/*/results.json")))
        found = [(str(path), path.stat().st_mtime) for path in ends]
        if found == self._seen:
            return
        files, left_out = files_of(self.runs, MOST)
        self._seen, content = found, tar_of(files)
        parts = split(content, self.out, "runs.tar", PART)
        self.facts = {"md5": md5(content), "parts": len(parts), "left_out": left_out}
        write_text(self.out / "runs.json", json.dumps(self.facts, indent=2) + "\n")


# collect: here, afterwards.


def add_collect(made: argparse.ArgumentParser) -> None:
    """Put what `train` brought home among the runs of earlier sessions."""
    made.add_argument("out", type=Path)
    made.add_argument("runs", type=Path)


def collect(options: argparse.Namespace) -> None:
    """Refuse what is not whole."""
    content = joined(options.out, "runs.tar")
    if md5(content) != json.loads((options.out / "runs.json").read_text())["md5"]:
        sys.exit(f"{options.out}: the parts of runs.tar do not belong together.")
    untar(content, options.runs)
    for run in sorted(options.runs.glob("*")):
        print(f"{run.name}: {'finished' if is_finished(run) else f'{epochs_of(run)} epochs'}")


COMMANDS: dict[str, tuple[Callable[[argparse.ArgumentParser], None], Callable[[argparse.Namespace], None]]] = {
    "pack": (add_pack, pack),
    "keep": (add_keep, at_stage("keep", keep)),
    "tests": (add_tests, at_stage("tests", tests)),
    "times": (add_times, at_stage("times", times)),
    "train": (add_train, at_stage("train", train)),
    "collect": (add_collect, collect),
}
"""Of each sub-command, what adds its options, and what it does."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Do what the sub-command says."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    choices = made.add_subparsers(dest="command", required=True)
    for name, (add, _) in COMMANDS.items():
        add(choices.add_parser(name, help=add.__doc__, description=add.__doc__))
    options = made.parse_args(arguments)
    COMMANDS[options.command][1](options)


if __name__ == "__main__":
    main()
