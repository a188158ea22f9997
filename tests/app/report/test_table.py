"""The table of results."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from targetprop.app.report.table import Accuracies, Errors, accuracies_table, errors_table
from targetprop.utils.text import printable


def lines(results: dict[str, Accuracies], classes: list[str]) -> list[list[str]]:
    """The cells of each line that has some."""
    text = io.StringIO()
    Console(file=text, width=100).print(accuracies_table(results, classes))
    printed = [line for line in text.getvalue().splitlines() if line.startswith("│")]
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in printed]


def test_a_note_stands_below_the_table() -> None:
    text = io.StringIO()
    Console(file=text, width=100).print(accuracies_table({"test": Accuracies(0.5, 0.9, [0.5])}, ["cat"], "other files"))
    assert text.getvalue().splitlines()[-1].strip() == "other files"


def test_few_classes_have_a_row_each() -> None:
    results = {"validation": Accuracies(0.5, 0.9, [0.25, 1.0]), "test": Accuracies(0.625, 1.0, [0.125, 0.75])}
    assert lines(results, ["cat", "dog"]) == [
        ["top-1", "50.00", "62.50"],
        ["top-5", "90.00", "100.00"],
        ["cat", "25.00", "12.50"],
        ["dog", "100.00", "75.00"],
    ]


def test_of_many_classes_the_best_and_worst_of_the_test_are_shown() -> None:
    accuracies: list[float | None] = [(number * 7 % 1000) / 1000 for number in range(1000)]
    results = {"validation": Accuracies(0.5, 0.9, [0.5] * 1000), "test": Accuracies(0.1, 0.2, accuracies)}
    shown = lines(results, [f"class {number}" for number in range(1000)])
    assert shown[:2] == [["top-1", "50.00", "10.00"], ["top-5", "90.00", "20.00"]]
    assert [row[0] for row in shown if not row[1]] == ["best 5 of 1000 (test)", "worst 5 of 1000 (test)"]
    assert len(shown) == 2 + 2 * (1 + 5)
    assert shown[3] == ["class 857", "50.00", "99.90"]
    assert [row[2] for row in shown[3:8]] == ["99.90", "99.80", "99.70", "99.60", "99.50"]
    assert shown[-1] == ["class 0", "50.00", "0.00"]


def test_classes_without_examples_are_neither_best_nor_worst() -> None:
    accuracies: list[float | None] = [None if number % 5 else number / 1000 for number in range(1000)]
    shown = lines({"test": Accuracies(0.1, 0.2, accuracies)}, [f"class {number}" for number in range(1000)])
    assert [row[0] for row in shown if not row[1]] == [
        "best 5 of 200 with images (test)",
        "worst 5 of 200 with images (test)",
    ]
    assert shown[3] == ["class 995", "99.50"]
    assert [row[1] for row in shown[-5:]] == ["2.00", "1.50", "1.00", "0.50", "0.00"]


def test_of_few_classes_one_without_examples_has_no_accuracy() -> None:
    assert lines({"test": Accuracies(0.5, 0.9, [None, 0.5])}, ["cat", "dog"])[2:] == [["cat", ""], ["dog", "50.00"]]


def test_errors_have_a_row_each() -> None:
    text = io.StringIO()
    Console(file=text, width=100).print(errors_table({"validation": Errors(0.25, 0.75), "test": Errors(2e-5, None)}))
    assert "Accuracy" not in text.getvalue()
    rows = [
        [cell.strip() for cell in line.strip("│").split("│")] for line in text.getvalue().splitlines() if line[0] == "│"
    ]
    assert rows == [["mean squared error", "0.25", "2e-05"], ["variance explained (R²)", "0.7500", ""]]


@pytest.mark.parametrize("name", ["[/]", "[bold]x[/bold]", "a\\", "\x1b[31mred", "one\ntwo", ":smile:", "[link=x]"])
def test_names_are_shown_and_not_obeyed(name: str) -> None:
    (row,) = lines({"test": Accuracies(0.5, 0.9, [0.5])}, [name])[2:]
    assert row == [printable(name), "50.00"]
    assert "\x1b" not in row[0]


def test_a_note_is_shown_and_not_obeyed() -> None:
    text = io.StringIO()
    table = accuracies_table({"test": Accuracies(0.5, 0.9, [0.5])}, ["cat"], "[/] other files")
    Console(file=text, width=100).print(table)
    assert text.getvalue().splitlines()[-1].strip() == "[/] other files"
