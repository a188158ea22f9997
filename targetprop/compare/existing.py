"""Results of runs that are there, whoever made them: their directories, grouped by data and network."""

from __future__ import annotations

import copy
import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from targetprop.algorithms import ALGORITHMS
from targetprop.compare import results
from targetprop.compare.gather import difference_of, level_of, mean_angles, mean_cost, mean_of, now, reached, tests_of
from targetprop.compare.records import flat, without_places
from targetprop.compare.results import Board, Cost, Results, Row, RunResult
from targetprop.compare.run_folder import Run, read_run
from targetprop.version import __version__

REFERENCE = "backprop"
Found = tuple[Path, Run]


def read(paths: Sequence[Path]) -> Results:
    """What stands in one results.json of a comparison, or in directories of runs.

    Raises:
        UserError: something that is neither.
    """
    if len(paths) == 1 and paths[0].is_file():
        return results.read(paths[0])
    return of_runs([(path, read_run(path)) for path in paths])


def of_runs(found: Sequence[Found]) -> Results:
    """A board for each data set and network, a row for each rule and its settings."""
    groups: dict[str, list[Found]] = {}
    for each in found:
        config = deciding(each[1])
        key = json.dumps([config["datamodule"], config["network"], each[1].score.title], sort_keys=True)
        groups.setdefault(key, []).append(each)
    places = [{key: deciding(group[0][1])[key] for key in ("datamodule", "network")} for group in groups.values()]
    names = labels([title_of(each) for each in places], places)
    boards = [board(name, group) for name, group in zip(names, groups.values(), strict=True)]
    return Results("Runs that were there", now(), __version__, {}, None, boards)


def deciding(run: Run) -> dict[str, Any]:
    """All of a run's configuration that decides its result, but for the seed."""
    made = without_places(copy.deepcopy(run.config))
    made.pop("callbacks")
    return made


def board(title: str, found: Sequence[Found]) -> Board:
    """The runs of one data set and network."""
    groups: dict[str, list[Found]] = {}
    for each in found:
        groups.setdefault(json.dumps(deciding(each[1]), sort_keys=True), []).append(each)
    configs = [deciding(group[0][1]) for group in groups.values()]
    names = labels([rule_of(config) for config in configs], configs)
    by_name = dict(zip(names, groups.values(), strict=True))
    reference = next((name for name in names if name == REFERENCE or name.startswith(f"{REFERENCE}, ")), None)
    runs = {name: [run_of(*each) for each in group] for name, group in by_name.items()}
    score = found[0][1].score
    level = level_of(runs[reference], score) if reference else None
    rows = [row(name, by_name[name], runs, reference, level) for name in names]
    rows.sort(key=lambda each: each.rule != reference)
    return Board(title, reference, level, None, None, None, {}, rows, score)


def row(
    name: str, found: Sequence[Found], runs: Mapping[str, list[RunResult]], reference: str | None, level: float | None
) -> Row:
    """The runs of one rule with the same settings."""
    algorithm = ALGORITHMS.get(rule_of(deciding(found[0][1])))
    mine, other = runs[name], runs[reference] if reference else []
    seconds, others = seconds_of(mine), seconds_of(other)
    epochs = reached(mine, level, found[0][1].score)
    kept = [{"cost": run.cost} for _, run in found]
    cost = Cost(
        "in the run",
        step_of(found),
        seconds / others if seconds and others else None,
        epochs * seconds if epochs and seconds else None,
        *(mean_cost(kept, key) for key in ("host_bytes", "gpu_bytes", "joules")),
    )
    needs = None if algorithm is None else {**vars(algorithm.needs), "transports": sorted(algorithm.needs.transports)}
    return Row(
        rule=name,
        source=vars(algorithm.source) if algorithm and algorithm.source else None,
        needs=needs,
        rate=None,
        at_an_edge=False,
        diverged=0,
        failed=0,
        test=mean_of(list(tests_of(mine).values())),
        difference=difference_of(tests_of(mine), tests_of(other)) if name != reference else None,
        cost=cost,
        angles=mean_angles([run.metrics.angles.by_epoch() for _, run in found if run.metrics]),
        search={},
        command=mine[0].command,
        config={key: value for key, value in found[0][1].config.items() if key not in ("data_dir", "output_dir")},
        runs=mine,
    )


def run_of(path: Path, run: Run) -> RunResult:
    """A run as a table has it; the command is empty where the run does not say it."""
    command = "" if run.overrides is None else shlex.join(["python", "main.py", *run.overrides])
    record = str(path / "results.json")
    return RunResult(
        run.seed,
        False,
        run.of(run.test),
        run.of(run.validation),
        run.epoch_seconds,
        None,
        run.curve,
        command,
        "unknown",
        record,
    )


def seconds_of(runs: Sequence[RunResult]) -> float | None:
    """Seconds of training of an epoch, mean."""
    every = [seconds for run in runs for seconds in run.epoch_seconds]
    return fmean(every) if every else None


def step_of(found: Sequence[Found]) -> float | None:
    """Seconds of a training step, as the runs took them."""
    runs = [run for _, run in found if run.metrics and run.metrics.steps and run.epoch_seconds]
    return fmean(sum(run.epoch_seconds) / run.metrics.steps[-1] for run in runs if run.metrics) if runs else None


def rule_of(config: Mapping[str, Any]) -> str:
    """The name of what trained: the algorithm, or what made the learner."""
    model = config["model"]
    return str(model.get("algorithm") or str(model["_target_"]).rpartition(".")[2])


def title_of(config: Mapping[str, Any]) -> str:
    """Data set and network."""
    load = config["datamodule"].get("load") or {}
    data = str(load.get("_target_", config["datamodule"]["_target_"])).removesuffix(".load").rpartition(".")[2]
    return f"{data}, {str(config['network']['_target_']).rpartition('.')[2]}"


def labels(names: Sequence[str], configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names, made different by the settings that differ among those of the same name."""
    leaves = [dict(flat(dict(config))) for config in configs]
    made = []
    for name, mine in zip(names, leaves, strict=True):
        same = [each for other, each in zip(names, leaves, strict=True) if other == name]
        keys = [key for key in mine if any(each.get(key) != mine[key] for each in same)]
        shown = [f"{key.removeprefix('model.hparams.')}={mine[key]}" for key in keys]
        made.append(", ".join([name, *shown]))
    return made


def sweep_page(folder: Path) -> Path | None:
    """The page of all runs of a sweep, in its directory; None where fewer than two have ended.

    Raises:
        UserError: a package that it needs is not there.
    """
    from targetprop.compare import page  # here, as a sweep needs it at its end only

    runs = sorted(path.parent for path in folder.rglob("results.json") if (path.parent / "config.yaml").is_file())
    if len(runs) < 2:
        return None
    page.write(read(runs), folder / "page.html")
    return folder / "page.html"
