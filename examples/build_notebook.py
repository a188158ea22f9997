"""Build and execute a notebook from a Python file with cell marks.

    pip install -e ".[examples]"
    DATA_DIR=data python examples/build_notebook.py            # about 5 minutes on one core

`# %%` starts a cell of code, `# %% [markdown]` one of text, whose lines are comments. The notebook is written beside
its source, and only if every cell ran.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import nbformat
from nbclient import NotebookClient

SOURCE = Path(__file__).parent / "notebook_dtp_cifar10.py"


def cells(text: str) -> list[tuple[str, str]]:
    """("code" or "markdown", source) of each cell."""
    found = re.findall(r"^# %%( \[markdown\])?\n(.*?)(?=^# %%|\Z)", text, flags=re.MULTILINE | re.DOTALL)
    return [
        ("markdown", re.sub(r"^# ?", "", body, flags=re.MULTILINE).strip()) if mark else ("code", body.strip())
        for mark, body in found
    ]


def notebook(text: str) -> nbformat.NotebookNode:
    """The notebook of these cells, not executed."""
    made = nbformat.v4.new_notebook(metadata={"language_info": {"name": "python"}})
    for number, (kind, source) in enumerate(cells(text)):
        new = nbformat.v4.new_code_cell if kind == "code" else nbformat.v4.new_markdown_cell
        made.cells.append(new(source, id=f"cell-{number}"))
    return made


def main() -> None:
    """Build, execute, write."""
    made = notebook(SOURCE.read_text())
    data = Path(os.environ.get("DATA_DIR", "data")).absolute()  # the notebook runs in its own directory
    os.environ["DATA_DIR"] = str(data)
    NotebookClient(made, timeout=3600, kernel_name="python3", resources={"metadata": {"path": SOURCE.parent}}).execute()
    for cell in made.cells:
        cell.metadata.clear()  # times of execution
    made.metadata = {"language_info": {"name": "python"}}
    text = nbformat.writes(made)
    if str(data) in text:
        raise SystemExit("The outputs name the data directory; nothing was written.")
    SOURCE.with_suffix(".ipynb").write_text(text + "\n")


if __name__ == "__main__":
    main()
