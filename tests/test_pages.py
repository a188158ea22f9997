"""The documentation does what it says: its code runs, its commands are understood, its links lead somewhere."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from pages import ROOT, blocks

from targetprop import ALGORITHMS, LEARNERS, Algorithm, LearnerRule
from targetprop.__main__ import OF_MANY_RUNS
from targetprop.app.commands import COMMANDS
from targetprop.app.overrides import check_overrides
from targetprop.app.run import train
from targetprop.app.user_conf import offer_user_conf

PAGES = {path.relative_to(ROOT).as_posix(): path.read_text() for path in [*sorted(ROOT.glob("docs/**/*.md"))]}
PAGES["README.md"] = (ROOT / "README.md").read_text()
RUN_BY = {
    "README.md": "tests/test_readme.py",
    "docs/data.md": "tests/test_data_page.py",
    "docs/layer_parallel.md": "tests/test_layer_parallel.py",
    "docs/measures.md": "tests/test_measures.py",
    "docs/saved_runs.md": "tests/app/test_saved_page.py",
    "docs/your_own.md": "tests/test_your_own_page.py",
}
"""Pages whose code needs more than to be run as it stands, and the tests that do."""
SMALL = ["trainer.max_epochs=1", "trainer.limit_train_batches=2", "callbacks=none", "trainer.threads=1"]
PLUGINS = ("hydra/launcher=", "hydra.launcher.")
"""Settings that need an extra: tests/test_sweeps.py."""
SUBCOMMANDS = (*OF_MANY_RUNS, *COMMANDS, "figure")


def commands(page: str) -> list[list[str]]:
    """The arguments of every training run that a page shows, without placeholders."""
    lines = [line for each in blocks(page) if each.language in ("", "bash") for line in each.commands]
    runs = [re.fullmatch(r"(?:\w+=\S+ )*(?:python main\.py|targetprop)(?: (.*))?", line) for line in lines]
    split = [shlex.split(run[1] or "", comments=True) for run in runs if run]
    return [each for each in split if not set(each) & {"...", "--help", "--version", *SUBCOMMANDS}]


def named(page: str) -> list[str]:
    return [name for name, text in PAGES.items() if page in text]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the reader of a page is: an empty folder that Python knows, and whose `conf/` the command line finds."""
    offer_user_conf()
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in [path.stem for path in tmp_path.glob("*.py")]:
        sys.modules.pop(name, None)  # other pages have files of the same names


def write_files(page: str, folder: Path) -> None:
    for block in blocks(page):
        if block.title:
            block.write(folder)


@pytest.mark.parametrize("name", [each for each in named("```python") if each not in RUN_BY])
def test_the_code_of_a_page_runs(name: str, folder: Path) -> None:
    write_files(PAGES[name], folder)
    names: dict[str, Any] = {"__name__": "__main__"}
    with torch.random.fork_rng():
        for block in blocks(PAGES[name]):
            if block.language == "python" and not block.title:
                exec(compile(block.text, name, "exec"), names)


def test_pages_that_are_left_out_are_run_elsewhere() -> None:
    for page, test in RUN_BY.items():
        assert f"{Path(page).name}" in (ROOT / test).read_text(), f"{test} does not read {page}"


def overrides(arguments: list[str]) -> list[str]:
    """What a command overrides, of a sweep in its first run."""
    typed = [each for each in arguments if each != "-m"]
    return typed if typed == arguments else [first_of(each) for each in typed]


def first_of(override: str) -> str:
    key, _, value = override.partition("=")
    return override if value[:1] in "[{" else f"{key}={value.split(',')[0]}"


@pytest.mark.parametrize("name", [each for each in PAGES if commands(PAGES[each]) and each != "docs/your_own.md"])
def test_the_commands_of_a_page_are_understood(name: str, folder: Path) -> None:
    write_files(PAGES[name], folder)
    for arguments in commands(PAGES[name]):
        if not arguments or arguments[0].startswith("--batch-size"):  # the legacy line: tests/test_legacy.py
            continue
        known = [each for each in overrides(arguments) if not each.startswith(("hydra/launcher=", "hydra.laun"))]
        if not any(each.startswith("hparams_search=") for each in known):  # needs an extra: tests/test_sweeps.py
            check_overrides(known)


@pytest.mark.parametrize("name", [each for each in PAGES if each.startswith("docs/tutorial/")])
def test_the_last_command_of_a_page_of_the_tutorial_trains(name: str, folder: Path) -> None:
    """The one that needs the most of what the page has said; the first of all is what continuous integration runs."""
    write_files(PAGES[name], folder)
    asked = overrides(commands(PAGES[name])[-1])
    assert 0 <= train(check_overrides([*asked, *SMALL, f"output_dir={folder / 'run'}"]))["test/accuracy"] <= 1


def test_lists_begin_behind_an_empty_line() -> None:
    """Else the site shows them as running text, though the repository shows a list."""
    for name, text in PAGES.items():
        inside = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
        for above, line in zip(inside.splitlines(), inside.splitlines()[1:], strict=False):
            begins = re.match(r"(- |1\. )", line) and above.strip() and not re.match(r"\s*(- |\d+\. |  )", above)
            assert not begins, f"{name}: an empty line is missing before {line!r}"


def test_pages_that_the_code_names_are_there() -> None:
    """Messages, comments and docstrings lead to them."""
    for folder in ("targetprop", "tests", "benchmarks", "examples", "plans"):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in (".py", ".yaml", ".md", ".json"):
                for page in re.findall(r"\bdocs/[\w/]+\.md", path.read_text()):
                    assert (ROOT / page).is_file(), f"{path.relative_to(ROOT)} names {page}"


@pytest.mark.parametrize("name", PAGES)
def test_links_to_files_lead_somewhere(name: str) -> None:
    text = re.sub(r"^```.*?^```", "", PAGES[name], flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\((?!https?:|mailto:|#)([^)#\s]+)", text):
        assert ((ROOT / name).parent / target).exists(), f"{name}: {target}"


def test_the_equations_stand_where_the_page_says() -> None:
    page = PAGES["docs/algorithms.md"]
    for path in re.findall(r"`([\w/]+\.py)`", page):
        assert (ROOT / "targetprop" / path).is_file() or (ROOT / path).is_file(), path
    for names, path in re.findall(r"((?:`\w+`(?: and )?)+) in `([\w/]+\.py)`", page):
        for each in re.findall(r"\w+", names.replace(" and ", "")):
            assert re.search(rf"^(def|class) {each}\b|^{each} = ", (ROOT / "targetprop" / path).read_text(), re.M), each


def test_the_reading_list_has_the_source_of_every_rule() -> None:
    rules: dict[str, Algorithm | LearnerRule] = {**ALGORITHMS, **LEARNERS}
    for name, rule in rules.items():
        assert rule.source is None or rule.source.url in PAGES["docs/reading.md"], f"{name}: {rule.source.url}"
