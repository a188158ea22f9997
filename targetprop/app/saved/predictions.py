"""What a network says of examples, as a table and as plain types."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table
from torch import Tensor

from targetprop.app.described import Described


def as_json(names: Sequence[str], outputs: Tensor, data: Described) -> list[dict[str, Any]]:
    """For each example its class and the probabilities of all of them; or the numbers to be met.

    Where every place of a sequence has a label there are the classes of all places, and probabilities for each.

    Args:
        names: of the examples.
        outputs: of the network, (batch, outputs) or (batch, time, outputs).
    """
    if data.classes is None:
        return [{"input": name, "outputs": row} for name, row in zip(names, outputs.tolist(), strict=True)]
    rows = outputs.double().softmax(-1)
    if data.places is not None:
        return [
            {
                "input": name,
                "classes": choices,
                "probabilities": [dict(zip(data.classes, row, strict=True)) for row in of],
            }
            for name, choices, of in zip(names, _of_places(outputs, data.classes), rows.tolist(), strict=True)
        ]
    chosen = [data.classes[number] for number in rows.argmax(1).tolist()]
    return [
        {"input": name, "class": choice, "probabilities": dict(zip(data.classes, row, strict=True))}
        for name, choice, row in zip(names, chosen, rows.tolist(), strict=True)
    ]


def table(names: Sequence[str], outputs: Tensor, data: Described, shown: int) -> Table:
    """A row for each example: the likeliest classes with their probabilities, so many; or its numbers.

    Where every place of a sequence has a label it has the likeliest class of each.
    """
    made = Table()
    made.add_column("input", overflow="fold")
    if data.classes is None:
        made.add_column("outputs", justify="right")
        for name, row in zip(names, outputs.tolist(), strict=True):
            made.add_row(escape(name), "  ".join(f"{value:.4g}" for value in row))
        return made
    if data.places is not None:
        made.add_column("likeliest at every place", overflow="fold")
        for name, choices in zip(names, _of_places(outputs, data.classes), strict=True):
            made.add_row(escape(name), escape(_joined(choices)))
        return made
    best = outputs.double().softmax(1).topk(min(shown, data.outputs), dim=1)
    for number in range(best.values.shape[1]):
        made.add_column("class" if number == 0 else f"{number + 1}.")
        made.add_column("%", justify="right")
    for name, values, places in zip(names, best.values.tolist(), best.indices.tolist(), strict=True):
        pairs = zip(values, places, strict=True)
        cells = [cell for value, place in pairs for cell in (data.classes[place], f"{100 * value:.1f}")]
        made.add_row(escape(name), *map(escape, cells))
    return made


def _of_places(outputs: Tensor, classes: Sequence[str]) -> list[list[str]]:
    """The likeliest class at every place of each sequence."""
    return [[classes[number] for number in places] for places in outputs.argmax(-1).tolist()]


def _joined(choices: Sequence[str]) -> str:
    """Characters as a text in which those that are no print are spelled out; other classes behind each other."""
    text = ("" if all(len(each) == 1 for each in choices) else " ").join(choices)
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)
