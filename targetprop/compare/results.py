"""What came of a comparison, as `results.json` has it: `results.schema.json` says what stands where.

Scores are as `Board.score` says; accuracies and their differences are fractions. Times are seconds.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from targetprop.app.score import ACCURACY, Score
from targetprop.compare.needed import needed
from targetprop.utils.errors import UserError, no_such
from targetprop.utils.files import write_text

VERSION = 1
"""Of the schema; files of another one are refused."""


@dataclass(frozen=True)
class Mean:
    """Of values, one for each seed.

    Attributes:
        half: of the 95 % interval of the mean (Student's t); None of a single value.
    """

    n: int
    mean: float
    sd: float | None
    half: float | None


@dataclass(frozen=True)
class RunResult:
    """One run.

    Attributes:
        test: score on the test set; of a run that diverged that of chance.
        epoch_seconds: of training, as the run took them, beside whatever else ran.
        curve: validation score after each epoch.
        record: file that all of this is read from.
    """

    seed: int
    diverged: bool
    test: float | None
    validation: float | None
    epoch_seconds: list[float]
    wall_seconds: float | None
    curve: list[float]
    command: str
    commit: str
    record: str


@dataclass(frozen=True)
class Cost:
    """What a rule takes.

    Attributes:
        measured: how steps were timed: "interleaved" with the reference on the same machine, or "in the run".
        step: seconds of a training step.
        ratio: to the reference's, by the processor's seconds.
        to_level: seconds of training steps until the mean validation score reaches the table's level; None if it never
            does.
        host_bytes, gpu_bytes, joules: of a run, mean.
    """

    measured: str
    step: float | None
    ratio: float | None
    to_level: float | None
    host_bytes: float | None
    gpu_bytes: float | None
    joules: float | None


@dataclass(frozen=True)
class Row:
    """A rule.

    Attributes:
        needs: what it needs beside each block's own activity, and what transports; None where it is not known.
        rate: effective one, chosen by the search.
        failed: runs that ended otherwise than by diverging.
        difference: to the reference, paired by seed; None of itself, and where fewer than two seeds are shared.
        angles: of each block's update to backprop's gradient, degrees, by epoch, mean over runs.
        search: validation scores by rate, one for each seed of the search.
        command: of one of its runs; seeds are in `runs`.
        config: of one of its runs.
    """

    rule: str
    source: Mapping[str, Any] | None
    needs: Mapping[str, Any] | None
    rate: float | None
    at_an_edge: bool
    diverged: int
    failed: int
    test: Mean | None
    difference: Mean | None
    cost: Cost
    angles: dict[str, dict[str, float]]
    search: dict[str, list[float]]
    command: str
    config: Mapping[str, Any]
    runs: list[RunResult]


@dataclass(frozen=True)
class Board:
    """A table: rules on one task, at one length.

    Attributes:
        reference: the rule that others are compared with; None where none is there.
        level: validation score whose price is told.
        steps: of training in an epoch; None where it is not known.
        protocol: all that rows must share to be comparable; None of runs that no plan made.
        verdict: in words, if the plan has one for this table.
        left_out: rules without a row, and why.
        score: by which rules are compared.
    """

    title: str
    reference: str | None
    level: float | None
    steps: int | None
    protocol: Mapping[str, Any] | None
    verdict: str | None
    left_out: dict[str, str]
    rows: list[Row]
    score: Score = ACCURACY


@dataclass(frozen=True)
class Results:
    """Of a comparison, or of runs that were there.

    Attributes:
        plan: in plain types; None of runs that no plan made.
        machine: facts of the machine that steps were timed on.
    """

    question: str
    made: str
    targetprop: str
    machine: Mapping[str, Any]
    plan: Mapping[str, Any] | None
    boards: list[Board]
    version: int = field(default=VERSION)


def write(results: Results, path: Path) -> None:
    """Write a file as `read` reads it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(as_json(results), indent=1, allow_nan=False) + "\n")


def as_json(results: Results) -> dict[str, Any]:
    """In the types of JSON."""
    return asdict(results)


def read(path: Path) -> Results:
    """The results in a file, after a look at whether they are some.

    Raises:
        UserError: they are not, by file and place in it.
    """
    try:
        given = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"cannot be read as JSON: {error}", key=str(path)) from None
    check(given, str(path))
    return Results(**{**given, "boards": [_board(each) for each in given["boards"]]})


def check(given: Any, path: str) -> None:
    """Refuse what does not fit the schema.

    Raises:
        UserError: the first place that does not.
    """
    if isinstance(given, Mapping) and given.get("version", VERSION) != VERSION:
        message = f"it has version {given['version']!r}, and this edition reads version {VERSION}"
        raise UserError(message, key=path)
    jsonschema = needed("jsonschema", "reading results.json")
    error = jsonschema.exceptions.best_match(jsonschema.Draft202012Validator(schema()).iter_errors(given))
    if error is None:
        _refuse_percentages(given, path)
        return
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.absolute_path)
    valid = error.schema.get("properties", {}) if isinstance(error.schema, Mapping) else {}
    if error.validator == "additionalProperties" and isinstance(error.instance, Mapping):
        name = next(str(each) for each in error.instance if each not in valid)
        raise no_such(name, valid).under(f"{path}: {place.lstrip('.')}" if place else path)
    said = error.message if len(error.message) < 300 else f"{error.message[:140]} ... {error.message[-140:]}"
    raise UserError(f"{place.lstrip('.') or 'all of it'}: {said}", key=path)


def _refuse_percentages(given: Mapping[str, Any], path: str) -> None:
    """Accuracies are fractions, which the schema cannot say, as it does not know which scores are some."""
    for number, board in enumerate(given["boards"]):
        if board.get("score", asdict(ACCURACY))["name"] != ACCURACY.name:
            continue
        for place, value in _scores(board):
            if value is not None and value > 1:
                where = f"boards[{number}].{place}"
                raise UserError(f"{where}: {value} is greater than the maximum of 1", key=path)


def _scores(board: Mapping[str, Any]) -> Iterator[tuple[str, float | None]]:
    """All scores of a table, and where they stand in it."""
    yield "level", board["level"]
    for number, row in enumerate(board["rows"]):
        place = f"rows[{number}]"
        yield from ((f"{place}.search.{rate}", each) for rate, values in row["search"].items() for each in values)
        for count, run in enumerate(row["runs"]):
            yield from ((f"{place}.runs[{count}].{name}", run[name]) for name in ("test", "validation"))
            yield from ((f"{place}.runs[{count}].curve", each) for each in run["curve"])


@cache
def schema() -> dict[str, Any]:
    """The schema, as JSON Schema has them."""
    made: dict[str, Any] = json.loads(files("targetprop.compare").joinpath("results.schema.json").read_text())
    return made


def _board(given: Mapping[str, Any]) -> Board:
    score = Score(**given.get("score", asdict(ACCURACY)))
    return Board(**{**given, "rows": [_row(each) for each in given["rows"]], "score": score})


def _row(given: Mapping[str, Any]) -> Row:
    means = {key: None if given[key] is None else Mean(**given[key]) for key in ("test", "difference")}
    runs = [RunResult(**each) for each in given["runs"]]
    return Row(**{**given, **means, "cost": Cost(**given["cost"]), "runs": runs})
