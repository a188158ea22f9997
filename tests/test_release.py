"""A release is refused unless tag, version, changelog and citation agree."""

from __future__ import annotations

import importlib.util
import subprocess
from pathlib import Path
from types import ModuleType

import pytest
import yaml

ROOT = Path(__file__).parents[1]
FILES = {
    "targetprop/version.py": '"""The version."""\n\n__version__ = "1.2.3"\n',
    "CHANGELOG.md": "# Changelog\n\n## 1.2.3 (2026-11-27)\n\nNews.\n\n## 1.2.2 (2026-01-01)\n",
    "CITATION.cff": "cff-version: 1.2.0\nversion: 1.2.3\ndate-released: 2026-11-27\n",
}


@pytest.fixture(scope="module")
def release() -> ModuleType:
    spec = importlib.util.spec_from_file_location("release", ROOT / "tools/release.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A repository that is ready to be released."""
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    git(tmp_path, "init", "-q")
    commit(tmp_path)
    git(tmp_path, "tag", "v1.2.3")
    return tmp_path


def git(folder: Path, *arguments: str) -> None:
    names = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", "-C", str(folder), *names, *arguments], check=True, capture_output=True)


def commit(folder: Path) -> None:
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "a change")


def test_what_agrees_may_be_released(release: ModuleType, tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    release.main(["--check"], tree)
    assert capsys.readouterr().out == "Tag, version, changelog and citation agree: 1.2.3\n"
    assert not (tree / "dist").exists()


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        ("targetprop/version.py", "1.2.3", "1.2.4", "tag: expected v1.2.4 at this commit, got v1.2.3"),
        ("targetprop/version.py", "1.2.3", "1.2", "targetprop/version.py: expected a version like 1.2.3"),
        ("CHANGELOG.md", "## 1.2.3", "## 1.3.0", "CHANGELOG.md: expected 1.2.3 as its first heading, got 1.3.0"),
        ("CHANGELOG.md", "2026-11-27", "unreleased", "CHANGELOG.md: expected ## 1.2.3 (YEAR-MONTH-DAY), got (unrel"),
        ("CHANGELOG.md", " (2026-11-27)", "", "CHANGELOG.md: expected ## 1.2.3 (YEAR-MONTH-DAY), got (None)"),
        ("CITATION.cff", "\nversion: 1.2.3", "\nversion: 1.2.2", "CITATION.cff: expected version 1.2.3, got 1.2.2"),
        ("CITATION.cff", "date-released: 2026-11-27", "", "CITATION.cff: expected date-released 2026-11-27, as the ch"),
    ],
)
def test_whatever_disagrees_is_named(release: ModuleType, tree: Path, file: str, old: str, new: str, said: str) -> None:
    text = (tree / file).read_text()
    assert old in text
    (tree / file).write_text(text.replace(old, new, 1))
    commit(tree)
    git(tree, "tag", "-f", "v1.2.3")
    with pytest.raises(SystemExit) as refused:
        release.main([], tree)
    assert said in str(refused.value)


def test_an_older_tag_and_a_changed_tree_are_named(release: ModuleType, tree: Path) -> None:
    (tree / "new.py").write_text("")
    assert list(release.disagreements(tree)) == ["tree: expected one without changes, got ?? new.py"]
    commit(tree)
    assert list(release.disagreements(tree)) == ["tag: expected v1.2.3 at this commit, got none"]


def test_this_tree_names_its_version_in_all_places_and_is_not_released_yet_by_mistake(release: ModuleType) -> None:
    version = release.version_of(ROOT)
    assert release._first_heading(ROOT)[0] == version
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == version


def test_workflows_and_hooks_call_what_is_there() -> None:
    for path in (ROOT / ".github/workflows").glob("*.yml"):
        jobs = yaml.safe_load(path.read_text())["jobs"]
        commands = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
        assert ".ci/run" in commands
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert {hook["entry"].split()[0] for hook in repository["hooks"]} == {"ruff", "mypy", "bash"}
    assert len((ROOT / "CONTRIBUTING.md").read_text().splitlines()) <= 45
