"""The newcomer does what a page says, in its order, and tells what failed."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import newcomer
import pytest
from newcomer import Newcomer, Otherwise, Step
from pages import ROOT, blocks

PAGE = """
```
echo first \\
    second && false
```

```python title="mine.py"
NUMBER = 3
```

```python
from mine import NUMBER
```

```python
assert NUMBER == 3
```

```python
raise SystemExit(f"{NUMBER} is too small")
```

```
properdocs serve
echo datamodule=imagenet32
```
"""


@pytest.fixture
def steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Step]:
    """Of `PAGE`, with a program named properdocs that fails."""
    monkeypatch.setattr(newcomer, "OTHERWISE", (Otherwise("serve", "built", "false"), *newcomer.OTHERWISE))
    (tmp_path / "page.md").write_text(PAGE)
    (tmp_path / "python").symlink_to(sys.executable)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    with (tmp_path / "log").open("w") as log:
        return list(Newcomer(tmp_path, environment, log).read("page.md"))


def test_a_page_is_done_in_its_order(steps: list[Step], tmp_path: Path) -> None:
    assert [step.code for step in steps] == [1, 0, 0, 1, 1, None]
    assert steps[0].text == "echo first second && false"
    assert steps[4].note == "built"
    assert steps[5].note.startswith("not run: needs ImageNet")
    assert all((step.seconds is None) == (step.code is None) for step in steps)
    log = (tmp_path / "log").read_text()
    assert log.index("first second") < log.index("3 is too small")
    assert "\ndatamodule=imagenet32" not in log


def test_the_table_of_a_page(steps: list[Step]) -> None:
    rows = newcomer.markdown_of(steps).splitlines()
    assert len(rows) == 2 + len(steps)
    assert (
        rows[-1]
        == "| page.md | `echo datamodule=imagenet32` |  |  | not run: needs ImageNet 32x32, and so an account |"
    )


def test_the_last_run_is_the_newest_that_is_no_comparison(tmp_path: Path) -> None:
    for name, time in (("day/one/checkpoints", 2), ("day/two/checkpoints", 1), ("compare/results", 3)):
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        os.utime(folder.parent, (time, time))
    with (tmp_path / "log").open("w") as log:
        assert Newcomer(tmp_path, {}, log).last_run() == tmp_path / "runs/day/one"


def test_every_exception_is_for_a_command_of_the_pages() -> None:
    commands = [
        command
        for page in newcomer.PAGES
        for block in blocks((ROOT / page).read_text())
        if block.language in ("", "bash")
        for command in block.commands
    ]
    for each in newcomer.OTHERWISE:
        assert any(each.part in command for command in commands), each
