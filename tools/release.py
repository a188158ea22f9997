"""Build what is released, and refuse unless tag, version, changelog and citation agree.

    python tools/release.py            in a clean tree whose commit has the tag vVERSION
    python tools/release.py --check    the same without building

Wheel and sdist go to dist/. Nothing is uploaded: that is one command of its own, which this one prints.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
VERSION = re.compile(r'^__version__ = "(\d+\.\d+\.\d+(?:rc\d+)?)"$', re.MULTILINE)
HEADING = re.compile(r"^## (\S+)(?: \((.*)\))?$", re.MULTILINE)
DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
CITED = {name: re.compile(rf'^{name}: "?([^"\n]*)"?$', re.MULTILINE) for name in ("version", "date-released")}


def main(arguments: Sequence[str] | None = None, root: Path = ROOT) -> None:
    """Check, then build.

    Raises:
        SystemExit: something does not agree, or cannot be built.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="build nothing")
    options = parser.parse_args(arguments)
    if found := list(disagreements(root)):
        sys.exit("\n".join(["Not released:", *(f"  {each}" for each in found)]))
    version = version_of(root)
    print(f"Tag, version, changelog and citation agree: {version}")
    if not options.check:
        build(root, version)
        print(f"To upload: python -m twine upload dist/targetprop-{version}*")


def version_of(root: Path) -> str | None:
    """The version of the package; None if it is none that is released."""
    found = VERSION.search((root / "targetprop/version.py").read_text())
    return found and found[1]


def disagreements(root: Path) -> Iterator[str]:
    """What stands against a release, each in a line."""
    version = version_of(root)
    if version is None:
        yield "targetprop/version.py: expected a version like 1.2.3"
        return
    tags = _git(root, "tag", "--points-at", "HEAD").split()
    if f"v{version}" not in tags:
        yield f"tag: expected v{version} at this commit, got {', '.join(tags) or 'none'}"
    if changed := _git(root, "status", "--porcelain"):
        yield f"tree: expected one without changes, got {changed.splitlines()[0].strip()}"
    name, day = _first_heading(root)
    if name != version:
        yield f"CHANGELOG.md: expected {version} as its first heading, got {name}"
    elif not DAY.fullmatch(day or ""):
        yield f"CHANGELOG.md: expected ## {version} (YEAR-MONTH-DAY), got ({day})"
    cited = _cited(root)
    if cited["version"] != version:
        yield f"CITATION.cff: expected version {version}, got {cited['version']}"
    if cited["date-released"] != day:
        yield f"CITATION.cff: expected date-released {day}, as the changelog says, got {cited['date-released']}"


def build(root: Path, version: str | None) -> None:
    """Build both kinds of package into an empty dist/, and look whether they are of this version."""
    folder = root / "dist"
    for each in folder.glob("*"):
        each.unlink()
    subprocess.run([sys.executable, "-m", "build", "--outdir", str(folder), str(root)], check=True)
    expected = {f"targetprop-{version}.tar.gz", f"targetprop-{version}-py3-none-any.whl"}
    made = {each.name for each in folder.iterdir()}
    if made != expected:
        sys.exit(f"Not released: expected {', '.join(sorted(expected))} in dist/, got {', '.join(sorted(made))}")


def _first_heading(root: Path) -> tuple[str | None, str | None]:
    found = HEADING.search((root / "CHANGELOG.md").read_text())
    return (found[1], found[2]) if found else (None, None)


def _cited(root: Path) -> dict[str, str | None]:
    text = (root / "CITATION.cff").read_text()
    found = {name: pattern.search(text) for name, pattern in CITED.items()}
    return {name: match and match[1] for name, match in found.items()}


def _git(root: Path, *arguments: str) -> str:
    call = ["git", "-C", str(root), *arguments]
    return subprocess.run(call, check=True, capture_output=True, text=True).stdout.rstrip()


if __name__ == "__main__":
    main()
