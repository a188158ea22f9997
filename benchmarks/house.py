"""The package as a house, in numbers, read from its source: who imports whom, over how many floors, and who looks up.

    python benchmarks/house.py            this tree
    python benchmarks/house.py TREE       another one that holds the package's folder

Only imports among the package's own modules count. They are counted in three ways, one column each: all of them;
without those under `if TYPE_CHECKING`, which never happen; and without those inside functions, too, which happen later.

- A chain is a sequence of modules each of which imports the next one. Modules that import each other in a circle count
  all, and are named.
- Rooms are the files and folders at the package's top level. A room's floor is one above the highest floor of the rooms
  that it imports; rooms in a circle share a floor, and are named.
- An import goes up if it is of a room that stands above by `ORDER`. Rooms without a place in it are named: the order
  is that of the second edition, but that measures are of a learner, and stand above it.
- `WORDS` are of the configuration, and have nothing to look for outside app/ and what stands on it.
"""

from __future__ import annotations

import argparse
import ast
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table

PACKAGE = "targetprop"
ORDER = (
    {"utils", "noise", "properties", "version"},
    {"layers", "data", "models"},
    {"network"},
    {"targets", "local", "feedback"},
    {"algorithms", "step"},
    {"hook"},
    {"learner", "trainable"},
    {"execution", "baselines", "learners", "measure"},
    {"loops"},
    {"public"},
    {"app"},
    {"compare"},
    {"published"},
    {"__init__", "__main__"},
)
"""Rooms, from the ground up."""
ONLY: Mapping[str, tuple[str, ...]] = {
    "data": ("data", "utils"),
    "models": ("models", "utils", "layers.residual", "layers.fixed", "layers.standardize"),
}
"""Rooms that may import nothing else, whatever stands below them."""
WORDS = re.compile(r"\bhparams|\b(?:trainer|datamodule)\.\w")
KNOWING = ("app", "compare", "published")
"""Rooms that know the configuration."""
Kind = Literal["top", "function", "typing"]
"""Where an import stands: at a module's top, in a function, or under `if TYPE_CHECKING`."""
WAYS: Mapping[str, tuple[Kind, ...]] = {
    "all imports": ("top", "function", "typing"),
    "without TYPE_CHECKING": ("top", "function"),
    "at once": ("top",),
}
"""Which imports count."""
Graph = Mapping[str, Set[str]]
"""For each name the names that it imports."""


@dataclass(frozen=True)
class Import:
    """One module imports another; names are without that of the package, which stands for itself as `__init__`."""

    of: str
    by: str
    kind: Kind
    line: int

    def __str__(self) -> str:
        return f"{self.by}:{self.line} -> {self.of}"


class House:
    """The package in a tree.

    Attributes:
        sources: text of every module, by name: "learner", "app.run"; of a folder, that of its `__init__.py`.
    """

    def __init__(self, tree: Path) -> None:
        root = tree / PACKAGE
        paths = {_name(path.relative_to(root)): path for path in sorted(root.rglob("*.py"))}
        self.sources = {name: path.read_text() for name, path in paths.items()}
        self.folders = {name for name, path in paths.items() if path.name == "__init__.py"}
        self.files_at_the_top = [path.stem for path in sorted(root.glob("*.py"))]

    @cached_property
    def imports(self) -> list[Import]:
        """All of them, each module that is named by one once for every line."""
        return [each for name, source in self.sources.items() for each in self._imports_of(name, source)]

    def counted(self, way: str) -> list[Import]:
        """Those that count, one of `WAYS`."""
        return [each for each in self.imports if each.kind in WAYS[way]]

    def modules(self, way: str) -> Graph:
        """Which module imports which."""
        return _graph(self.sources, ((each.by, each.of) for each in self.counted(way)))

    def rooms(self, way: str) -> Graph:
        """Which room imports which."""
        pairs = ((room_of(each.by), room_of(each.of)) for each in self.counted(way))
        return _graph(map(room_of, self.sources), pairs)

    def upward(self, way: str) -> list[Import]:
        """Imports that go up, or of what `ONLY` does not name."""
        return [each for each in self.counted(way) if _goes_up(each) or _is_foreign(each)]

    @cached_property
    def without_place(self) -> list[str]:
        """Rooms that `ORDER` does not know."""
        return sorted(set(map(room_of, self.sources)) - set().union(*ORDER))

    @cached_property
    def words(self) -> list[str]:
        """Lines outside the `KNOWING` rooms that use one of the `WORDS`."""
        outside = {name: source for name, source in self.sources.items() if room_of(name) not in KNOWING}
        return [
            f"{name}:{number}"
            for name, source in outside.items()
            for number, line in enumerate(source.splitlines(), 1)
            if WORDS.search(line)
        ]

    def _imports_of(self, name: str, source: str) -> Iterator[Import]:
        for node, kind in _import_nodes(ast.parse(source), "top"):
            for target in self._targets(name, node):
                if target != name:
                    yield Import(target, name, kind, node.lineno)

    def _targets(self, name: str, node: ast.Import | ast.ImportFrom) -> set[str]:
        if isinstance(node, ast.Import):
            modules = {self._module(each.name) for each in node.names}
            return {each for each in modules if each is not None}
        base = node.module or ""
        if node.level:  # relative, from the folder of the module
            folder = [PACKAGE, *([] if name == "__init__" else name.split("."))]
            up = node.level - (name in self.folders)
            base = ".".join([*folder[: len(folder) - up], *([base] if base else [])])
        # A name that is imported from a folder may be a module in it.
        modules = {self._module(f"{base}.{each.name}") or self._module(base) for each in node.names}
        return {each for each in modules if each is not None}

    def _module(self, name: str) -> str | None:
        """The module of a full name, without the package's; None if it is none of this package."""
        if name == PACKAGE:
            return "__init__"
        short = name.removeprefix(f"{PACKAGE}.")
        return short if short != name and short in self.sources else None


def _name(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def _import_nodes(node: ast.AST, kind: Kind) -> Iterator[tuple[ast.Import | ast.ImportFrom, Kind]]:
    """All imports below a node, and where they stand."""
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        yield node, kind
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)) and kind == "top":
        kind = "function"
    inside: Kind = "typing" if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test) else kind
    otherwise = node.orelse if isinstance(node, ast.If) else []
    for child in ast.iter_child_nodes(node):
        yield from _import_nodes(child, kind if child in otherwise else inside)


def _graph(names: Iterable[str], pairs: Iterable[tuple[str, str]]) -> Graph:
    graph: dict[str, set[str]] = {name: set() for name in names}
    for by, of in pairs:
        if by != of:
            graph[by].add(of)
    return graph


def room_of(module: str) -> str:
    """The file or folder at the package's top level in which a module is."""
    return module.partition(".")[0]


def _goes_up(each: Import) -> bool:
    ranks = {room: rank for rank, rooms in enumerate(ORDER) for room in rooms}
    of, by = ranks.get(room_of(each.of)), ranks.get(room_of(each.by))
    return of is not None and by is not None and of > by


def _is_foreign(each: Import) -> bool:
    allowed = ONLY.get(room_of(each.by))
    known = any(room_of(each.of) in rooms for rooms in ORDER)
    return known and allowed is not None and each.of not in allowed and room_of(each.of) not in allowed


def circles(graph: Graph) -> list[list[str]]:
    """Names that import each other, by way of others or not: groups of one or more, what is imported first."""
    return list(_Circles(graph))


class _Circles:
    """Tarjan, "Depth-First Search and Linear Graph Algorithms", 1972, https://doi.org/10.1137/0201010."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.number: dict[str, int] = {}
        self.lowest: dict[str, int] = {}
        self.open: list[str] = []

    def __iter__(self) -> Iterator[list[str]]:
        for name in sorted(self.graph):
            if name not in self.number:
                yield from self._visit(name)

    def _visit(self, name: str) -> Iterator[list[str]]:
        self.number[name] = self.lowest[name] = len(self.number)
        self.open.append(name)
        for other in sorted(self.graph[name]):
            if other not in self.number:
                yield from self._visit(other)
                self.lowest[name] = min(self.lowest[name], self.lowest[other])
            elif other in self.open:
                self.lowest[name] = min(self.lowest[name], self.number[other])
        if self.lowest[name] == self.number[name]:
            start = self.open.index(name)
            circle, self.open = self.open[start:], self.open[:start]
            yield circle


def longest_chain(graph: Graph) -> list[str]:
    """The names of one of the longest chains, what imports first; of a circle in it, all names."""
    below: dict[str, list[str]] = {}
    for circle in circles(graph):
        next_ones = {other for name in circle for other in graph[name]} - set(circle)
        longest = max((below[other] for other in sorted(next_ones)), key=len, default=[])
        below |= {name: [*circle, *longest] for name in circle}
    return max(below.values(), key=len, default=[])


def floors(graph: Graph) -> dict[str, int]:
    """The floor of every name, from 1."""
    found: dict[str, int] = {}
    for circle in circles(graph):
        next_ones = {other for name in circle for other in graph[name]} - set(circle)
        found |= dict.fromkeys(circle, 1 + max((found[other] for other in next_ones), default=0))
    return found


def in_circles(graph: Graph) -> str:
    """The circles of more than one name, in words."""
    return "; ".join(", ".join(sorted(circle)) for circle in circles(graph) if len(circle) > 1) or "none"


def numbers_table(house: House, heading: str) -> Table:
    """What is counted, in each of the `WAYS`."""
    table = Table("", *WAYS, title=heading)
    chains = {way: longest_chain(house.modules(way)) for way in WAYS}
    levels = {way: floors(house.rooms(way)) for way in WAYS}
    table.add_row("imports between modules", *(str(len(house.counted(way))) for way in WAYS))
    table.add_row("longest chain, modules", *(str(len(chains[way])) for way in WAYS))
    table.add_row("floors", *(str(max(levels[way].values())) for way in WAYS))
    table.add_row("imports that go up", *(str(len(house.upward(way))) for way in WAYS))
    table.add_section()
    table.add_row("the chain", *("\n".join(chains[way]) for way in WAYS))
    table.add_row("circles of modules", *(in_circles(house.modules(way)) for way in WAYS))
    table.add_row("circles of rooms", *(in_circles(house.rooms(way)) for way in WAYS))
    table.add_row("rooms by floor", *(by_floor(levels[way]) for way in WAYS))
    return table


def by_floor(levels: Mapping[str, int]) -> str:
    """The rooms of each floor, the highest first."""
    rooms = {floor: sorted(room for room in levels if levels[room] == floor) for floor in set(levels.values())}
    return "\n".join(f"{floor}: {', '.join(rooms[floor])}" for floor in sorted(rooms, reverse=True))


def main(arguments: Sequence[str] | None = None) -> None:
    """Read and print."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("tree", type=Path, nargs="?", default=Path(__file__).parents[1])
    options = made.parse_args(arguments)
    house = House(options.tree)
    if not house.sources:
        made.error(f"{options.tree} has no folder {PACKAGE}.")
    lines = sum(len(source.splitlines()) for source in house.sources.values())
    console = Console(width=140)
    console.print(
        f"Files at the top level: {len(house.files_at_the_top)}\nModules: {len(house.sources)}, lines: {lines}\n"
        f"Rooms without a place in the order: {', '.join(house.without_place) or 'none'}\n"
        f"Lines outside app/ and compare/ with hparams, trainer. or datamodule.: {len(house.words)}"
    )
    console.print(numbers_table(house, "Imports"))
    for each in house.upward("all imports"):
        console.print(f"Goes up: {each}")
    for line in house.words:
        console.print(f"Word of the configuration: {line}")


if __name__ == "__main__":
    main()
