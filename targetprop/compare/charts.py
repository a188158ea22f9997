"""Charts of a table, as Vega-Lite: the same for a page and for pictures.

Every chart has the parameter `picked`, the rules that it shows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from statistics import fmean
from typing import Any, NamedTuple

from targetprop.app.score import Score
from targetprop.compare.needed import needed
from targetprop.compare.results import Board, Row

COLOURS = (
    "#3b7dd8", "#e07b1a", "#2f9e62", "#d6455d", "#8c62c9", "#0f9bb0", "#b07d2b", "#d35fb0", "#6f8f1d", "#7a8699",
)  # fmt: skip
"""One after the other; each is told apart on white and on black."""
DASHES = ((), (6, 3), (2, 2))
"""Of lines: each once for all colours."""
SCORE = "score"
"""What a point's score is called in the data of a chart."""
Spec = dict[str, Any]


class Chart(NamedTuple):
    """A chart.

    Attributes:
        key: for file names.
        spec: Vega-Lite; None where there is nothing to draw.
        alone: it is one view, which takes any width; else a grid of small ones.
    """

    key: str
    title: str
    text: str
    spec: Spec
    alone: bool


def charts_of(board: Board) -> list[Chart]:
    """All charts that there are numbers for."""
    made: list[Chart] = []
    curves = curve_points(board)
    if curves:
        band = "Line: mean over seeds; band: from the lowest seed to the highest."
        by_epoch = _curves(board, curves, "epoch", "epoch", log=False)
        made.append(Chart("epochs", f"Validation {board.score.title} by epoch", band, by_epoch, True))
    if any("seconds" in point for point in curves):
        timing = "as timed beside the reference on the same machine" if _interleaved(board) else "as the runs took them"
        how = f"Seconds of training steps, {timing}."
        timed = [point for point in curves if "seconds" in point]
        by_second = _curves(board, timed, "seconds", "seconds of training", log=True)
        made.append(Chart("seconds", f"Validation {board.score.title} by time", how, by_second, True))
    if prices := price_points(board):
        title = board.score.title
        text = f"Test {title} with its 95 % interval, against the time of a step as a multiple of the reference's."
        made.append(Chart("price", f"Price and {title}", text, _prices(board, prices), True))
    if angles := angle_points(board):
        text = "Degrees between each block's update and backprop's gradient on the same batch, mean over runs."
        made.append(Chart("angles", "Alignment with backprop, block by block", text, _angles(board, angles), False))
    return made


def colours(rules: Sequence[str]) -> dict[str, str]:
    """Of each rule."""
    return {rule: COLOURS[number % len(COLOURS)] for number, rule in enumerate(rules)}


def dashes(rules: Sequence[str]) -> dict[str, list[int]]:
    """Of each rule's line."""
    return {rule: list(DASHES[number // len(COLOURS) % len(DASHES)]) for number, rule in enumerate(rules)}


def curve_points(board: Board) -> list[dict[str, Any]]:
    """Scores as shown (accuracies in %) after each epoch, and seconds until then where they are known."""
    made: list[dict[str, Any]] = []
    for row in board.rows:
        curves = [run.curve for run in row.runs if run.curve]
        seconds = epoch_ends(row, board)
        for epoch, values in enumerate(zip(*curves, strict=False), start=1):
            shown = {"mean": fmean(values), "low": min(values), "high": max(values)}
            point = _as_shown(board.score, shown)
            when = {"seconds": round(seconds[epoch - 1], 4)} if epoch <= len(seconds) else {}
            made.append({"rule": row.rule, "epoch": epoch, "seeds": len(values), **point, **when})
    return made


def epoch_ends(row: Row, board: Board) -> list[float]:
    """Seconds of training until the end of each epoch."""
    count = max((len(run.curve) for run in row.runs), default=0)
    if row.cost.measured == "interleaved" and row.cost.step is not None and board.steps is not None:
        return [epoch * board.steps * row.cost.step for epoch in range(1, count + 1)]
    taken = [run.epoch_seconds for run in row.runs if run.epoch_seconds]
    return list(accumulate(map(fmean, zip(*taken, strict=False))))


def price_points(board: Board) -> list[dict[str, Any]]:
    """Of each rule, where both are known; names of neighbours stand above and below by turns."""
    made: list[dict[str, Any]] = []
    for row in board.rows:
        if row.test is not None and row.cost.ratio is not None:
            half, mean = row.test.half or 0.0, row.test.mean
            most = 1.0 if board.score.unit == "%" else math.inf
            shown = {SCORE: mean, "low": max(0.0, mean - half), "high": min(most, mean + half)}
            numbers = _as_shown(board.score, shown)
            name = row.rule.rpartition(".")[2]
            made.append({"rule": row.rule, "name": name, "ratio": round(row.cost.ratio, 3), **numbers})
    made.sort(key=lambda point: float(point["ratio"]))
    return [{**point, "above": number % 2 == 0} for number, point in enumerate(made)]


def _as_shown(score: Score, values: Mapping[str, float]) -> dict[str, float]:
    return {key: round(score.scale * value, score.digits + 1) for key, value in values.items()}


def angle_points(board: Board) -> list[dict[str, Any]]:
    """Of each rule, block and epoch; those of the reference itself are left out."""
    return [
        {"rule": row.rule, "block": block, "epoch": int(epoch), "angle": round(angle, 3)}
        for row in board.rows
        if row.rule != board.reference
        for block, by_epoch in row.angles.items()
        for epoch, angle in by_epoch.items()
    ]


def _interleaved(board: Board) -> bool:
    return any(row.cost.measured == "interleaved" for row in board.rows)


def _altair() -> Any:
    return needed("altair", "a chart")


def _shared(board: Board) -> tuple[Any, Any, Callable[[Any], Spec]]:
    """Colour and dash of every rule, and what makes a chart's spec with the parameter `picked`."""
    alt = _altair()
    rules = [row.rule for row in board.rows]
    by_colour, by_dash = colours(rules), dashes(rules)
    colour = alt.Color("rule:N", title=None, scale=alt.Scale(domain=rules, range=list(by_colour.values())))
    dash = alt.StrokeDash("rule:N", title=None, scale=alt.Scale(domain=rules, range=list(by_dash.values())))
    picked = alt.param(name="picked", value=rules)

    def finished(chart: Any) -> Spec:
        # Of the lines, not of the pale bands; a page sets another one.
        legend = {"symbolOpacity": 1, "symbolType": "stroke", "symbolStrokeWidth": 3, "labelLimit": 300}
        made: Spec = chart.add_params(picked).configure_legend(symbolLimit=40, **legend).to_dict()
        return made

    return colour, dash, finished


PICKED = "indexof(picked, datum.rule) >= 0"


def _curves(board: Board, points: list[dict[str, Any]], key: str, label: str, log: bool) -> Spec:
    alt = _altair()
    colour, dash, finished = _shared(board)
    scale = alt.Scale(type="log", nice=False) if log else alt.Scale(nice=False)
    axis = alt.Axis(format="~g") if log else _epochs(points)
    x = alt.X(f"{key}:Q", title=label, scale=scale, axis=axis)
    tooltip = [
        alt.Tooltip("rule:N"),
        alt.Tooltip(f"{key}:Q", title=label, format=".3~g"),
        *_numbers(alt, board, "mean"),
        alt.Tooltip("seeds:Q"),
    ]
    base = alt.Chart(alt.Data(values=points)).transform_filter(PICKED)
    band = base.mark_area(opacity=0.13).encode(x=x, y=alt.Y("low:Q"), y2="high:Q", color=colour)
    y = alt.Y("mean:Q", title=f"validation {_named(board)}", scale=alt.Scale(zero=False))
    line = base.mark_line(strokeWidth=2).encode(x=x, y=y, color=colour, strokeDash=dash)
    dots = base.mark_circle(size=45, opacity=0.9).encode(x=x, y=y, color=colour, tooltip=tooltip)
    return finished(alt.layer(band, line, dots).properties(width=620, height=320))


def _named(board: Board) -> str:
    """The score with its unit, as an axis has it."""
    score = board.score
    return f"{score.title}, {score.unit}" if score.unit and score.unit not in score.title else score.title


def _numbers(alt: Any, board: Board, name: str) -> list[Any]:
    """What a point says of its score."""
    unit, digits = board.score.heading, f".{board.score.digits}f"
    return [alt.Tooltip(f"{each}:Q", title=f"{each}, {unit}", format=digits) for each in (name, "low", "high")]


def _epochs(points: list[dict[str, Any]]) -> Any:
    """An axis of whole epochs, about ten of them named."""
    last = max(int(point["epoch"]) for point in points)
    return _altair().Axis(values=list(range(1, last + 1, -(-last // 10))), format="d")


def _prices(board: Board, points: list[dict[str, Any]]) -> Spec:
    alt = _altair()
    colour, _, finished = _shared(board)
    x = alt.X("ratio:Q", title="time of a step, x reference", scale=alt.Scale(type="log", nice=False, padding=45))
    y = alt.Y(f"{SCORE}:Q", title=f"test {_named(board)}", scale=alt.Scale(zero=False, padding=10))
    tooltip = [
        alt.Tooltip("rule:N"),
        alt.Tooltip("ratio:Q", title="time, x reference", format=".2f"),
        *_numbers(alt, board, SCORE),
    ]
    base = alt.Chart(alt.Data(values=points)).transform_filter(PICKED)
    bars = base.mark_rule(strokeWidth=1.5).encode(x=x, y=alt.Y("low:Q"), y2="high:Q", color=colour)
    dots = base.mark_circle(size=90, opacity=1).encode(x=x, y=y, color=colour, tooltip=tooltip)
    above, below = (
        base.transform_filter(alt.datum.above == is_above)
        .mark_text(dy=-12 if is_above else 14, fontSize=11)
        .encode(x=x, y=y, text="name:N", color=colour)
        for is_above in (True, False)
    )
    return finished(alt.layer(bars, dots, above, below).properties(width=620, height=320))


def _angles(board: Board, points: list[dict[str, Any]]) -> Spec:
    alt = _altair()
    colour, dash, finished = _shared(board)
    blocks = sorted({point["block"] for point in points}, key=lambda name: (len(name), name))
    x = alt.X("epoch:Q", axis=_epochs(points), scale=alt.Scale(nice=False))
    y = alt.Y("angle:Q", title="degrees", scale=alt.Scale(domainMin=0))
    tooltip = [alt.Tooltip("rule:N"), alt.Tooltip("epoch:Q"), alt.Tooltip("angle:Q", title="degrees", format=".2f")]
    base = alt.Chart(alt.Data(values=points)).transform_filter(PICKED)
    line = base.mark_line(point={"size": 25}).encode(x=x, y=y, color=colour, strokeDash=dash, tooltip=tooltip)
    facet = alt.Facet("block:N", title=None, sort=blocks)
    return finished(line.properties(width=185, height=130).facet(facet, columns=3))
