"""No circle of imports in the library, neither between modules nor between rooms, lazy imports counted."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

from tools import ROOT

KNOWN: dict[frozenset[str], str] = {}
"""Circles that are allowed, each with its reason."""

Graph = Mapping[str, set[str]]


def imports_of(root: Path, package: str) -> Graph:
    """Every module of a package with the modules of it that it imports anywhere, also inside functions.

    A name that a package's ``__init__`` only passes on counts as an import of that ``__init__``.
    """
    paths = {module_name(root, path): path for path in (root / package).rglob("*.py")}
    return {
        module: {
            target
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            for target in targets(node, module, path.name == "__init__.py", paths)
            if target != module
        }
        for module, path in paths.items()
    }


def module_name(root: Path, path: Path) -> str:
    return ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")


def targets(node: ast.AST, module: str, is_package: bool, known: Iterable[str]) -> Iterable[str]:
    """The modules of ours that one statement imports; under TYPE_CHECKING too, for a reader follows those as well."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names if alias.name in known)
    elif isinstance(node, ast.ImportFrom):
        above = module.split(".")[: len(module.split(".")) - node.level + is_package]
        base = ".".join([*(above if node.level else []), *filter(None, [node.module])])
        for alias in node.names:
            inner = f"{base}.{alias.name}"
            if inner in known:
                yield inner
            elif base in known:
                yield base


def rooms_of(modules: Graph, packages: set[str]) -> Graph:
    """The same between packages. A package and one inside it are one house: what is between them does not count."""

    def room(module: str) -> str:
        return module if module in packages else module.rpartition(".")[0]

    graph: dict[str, set[str]] = {}
    for module, found in modules.items():
        mine = room(module)
        others = {room(target) for target in found} - {mine}
        nested = {
            one for one in others if f"{one}.".startswith(f"{mine}.") or f"{mine}.".startswith(f"{one}.")
        }
        graph.setdefault(mine, set()).update(others - nested)
    return graph


def circles(graph: Graph) -> list[frozenset[str]]:
    """The strongly connected components of more than one member."""

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        stack = [start]
        while stack:
            for target in graph.get(stack.pop(), set()) - seen:
                seen.add(target)
                stack.append(target)
        return seen

    reach = {one: reached(one) for one in graph}
    found = {
        frozenset({one} | {other for other in reach[one] if one in reach.get(other, set())})
        for one in graph
        if one in reach[one]
    }
    return sorted(found, key=sorted)


def packages_below(root: Path, package: str) -> set[str]:
    return {module_name(root, path) for path in (root / package).rglob("__init__.py")}


def test_no_circle_of_modules() -> None:
    assert [sorted(one) for one in circles(imports_of(ROOT, "llmga")) if one not in KNOWN] == []


def test_no_circle_of_rooms() -> None:
    graph = rooms_of(imports_of(ROOT, "llmga"), packages_below(ROOT, "llmga"))
    assert len(graph) > 8 and any(graph.values())
    assert [sorted(one) for one in circles(graph) if one not in KNOWN] == []


def test_a_known_circle_still_exists() -> None:
    modules = imports_of(ROOT, "llmga")
    found = {*circles(modules), *circles(rooms_of(modules, packages_below(ROOT, "llmga")))}
    assert found >= KNOWN.keys()


@pytest.mark.parametrize(
    ("back", "modules", "rooms"),
    [
        ("from ..a import one", [["p.a.one", "p.b.two"]], [["p.a", "p.b"]]),
        ("def late():\n    from ..a.one import x", [["p.a.one", "p.b.two"]], [["p.a", "p.b"]]),
        ("def late():\n    from ..a import one", [["p.a.one", "p.b.two"]], [["p.a", "p.b"]]),
        ("import p.a.one", [["p.a.one", "p.b.two"]], [["p.a", "p.b"]]),
        ("from .. import shared", [], []),
        ("import json", [], []),
    ],
)
def test_the_checks_above_see(tmp_path: Path, back: str, modules: list, rooms: list) -> None:
    files = {
        "__init__.py": "",
        "shared.py": "",
        "a/__init__.py": "",
        "a/one.py": "from ..b.two import y" if "one" in back else "",
        "a/other.py": "from ..b import two",
        "b/__init__.py": "",
        "b/two.py": back,
    }
    for name, text in files.items():
        path = tmp_path / "p" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    graph = imports_of(tmp_path, "p")
    assert [sorted(one) for one in circles(graph)] == modules
    assert [sorted(one) for one in circles(rooms_of(graph, packages_below(tmp_path, "p")))] == rooms
