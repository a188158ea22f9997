"""Results as one page of HTML that needs nothing else: no network, no file beside it."""

from __future__ import annotations

import json
import re
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from targetprop.compare import results as results_file
from targetprop.compare import table
from targetprop.compare.charts import charts_of, colours, dashes
from targetprop.compare.needed import needed
from targetprop.compare.results import Board, Results, Row
from targetprop.utils.files import whole_file, write_text

FILES = files("targetprop.compare").joinpath("page_files")
PIXELS = 2.0
"""Of a picture for each of a chart."""


def write(results: Results, path: Path) -> None:
    """Write the page.

    Raises:
        UserError: a package that it needs is not there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, html(results))


def pictures(results: Results, folder: Path) -> None:
    """Write every chart as PNG, named after its table."""
    convert = needed("vl_convert", "a picture")
    for board in results.boards:
        for chart in charts_of(board):
            with whole_file(folder / f"{slug(board.title)}_{chart.key}.png") as partial:
                spec = {**chart.spec, "title": f"{board.title}: {chart.title.lower()}", "background": "white"}
                partial.write_bytes(convert.vegalite_to_png(spec, scale=PIXELS))


def html(results: Results) -> str:
    """The page."""
    jinja2 = needed("jinja2", "the page")
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(FILES.joinpath("page.html.jinja").read_text())
    boards = [shown(board) for board in results.boards]
    return str(
        template.render(
            results=results,
            boards=boards,
            charts={chart["id"]: chart for board in boards for chart in board["charts"]},
            record=results_file.as_json(results),
            style=FILES.joinpath("page.css").read_text(),
            script=FILES.joinpath("page.js").read_text(),
            vega=vega(),
            plan="" if results.plan is None else as_yaml(results.plan),
        )
    )


@cache
def vega() -> str:
    """Vega, Vega-Lite and vega-embed as one script."""
    return str(needed("vl_convert", "the page").javascript_bundle()).replace("</script", "<\\/script")


def shown(board: Board) -> dict[str, Any]:
    """A table as the template has it."""
    rules = [row.rule for row in board.rows]
    by_colour, by_dash = colours(rules), dashes(rules)
    key = slug(board.title)
    return {
        "id": key,
        "board": board,
        "columns": table.columns(board),
        "rows": [row_shown(row, f"{key}-{number}") for number, row in enumerate(board.rows)],
        "rules": [(rule, by_colour[rule], " ".join(map(str, by_dash[rule]))) for rule in rules],
        "charts": [{**chart._asdict(), "id": f"{key}-{chart.key}"} for chart in charts_of(board)],
        "protocol": "" if board.protocol is None else as_yaml(board.protocol),
    }


def row_shown(row: Row, key: str) -> dict[str, Any]:
    """A rule as the template has it."""
    return {"id": key, "row": row, "config": as_yaml(row.config) if row.config else ""}


def as_yaml(value: Any) -> str:
    """Plain types as YAML."""
    return OmegaConf.to_yaml(OmegaConf.create(json.loads(json.dumps(value)))).rstrip()


def slug(title: str) -> str:
    """A title as part of a file's name."""
    return re.sub(r"\W+", "_", title.lower()).strip("_")
