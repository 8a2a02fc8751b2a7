"""A public name is defined in one module, and the words are the field's."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from tools import ROOT

SHARED = {
    "main": "the entry point of a command line",
    "run": "what `llmga train STAGE` and `llmga evaluate TASK` call in a module, and `llmga VERB` in a verb's",
    "load": "a folder reader, as the registry calls it",
    "reads": "a folder reader, as the registry calls it",
}
"""Names that several modules must define, because something calls them in each."""

PRIVATE_WORDS = (
    "untold", "spoilt", "heard", "has_eyes", "Workshop", "control_of", "SpoiltPictures", "_hear", "_Heard",
)  # fmt: skip
"""Words that a stranger would have to look up, and that were used here."""


def defined(path: Path) -> Iterator[str]:
    """The public names that a module defines at its top."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            names = [node.name]
        elif isinstance(node, ast.Assign):
            names = [target.id for target in node.targets if isinstance(target, ast.Name)]
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names = [node.target.id]
        else:
            continue
        yield from (name for name in names if not name.startswith("_"))


def modules(*folders: str) -> list[Path]:
    found = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    assert len(found) > 20 * len(folders)
    return found


def test_a_public_name_is_defined_in_one_module() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for path in modules("llmga"):
        for name in defined(path):
            places[name].append(path.relative_to(ROOT).as_posix())
    twice = {name: where for name, where in places.items() if len(where) > 1}
    assert {name: where for name, where in twice.items() if name not in SHARED} == {}
    assert SHARED.keys() <= twice.keys()


def test_the_words_are_the_fields() -> None:
    pattern = re.compile(rf"\b(?:{'|'.join(PRIVATE_WORDS)})\b")
    found = [
        f"{path.relative_to(ROOT).as_posix()}: {match[0]}"
        for path in modules("llmga", "nodes")
        for match in pattern.finditer(path.read_text(encoding="utf-8"))
    ]
    assert found == []


def test_errors_do_not_say_is_no() -> None:
    """ "is not valid JSON" and not "is no JSON"; "there is no …" is plain English."""
    said = re.compile(r"\b(?<!there )(?:is|are) no (?!longer\b|other\b|place\b|more\b)[a-z]", re.IGNORECASE)
    found = [
        f"{path.relative_to(ROOT).as_posix()}:{node.lineno}"
        for path in modules("llmga", "nodes")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Raise)
        for text in ast.walk(node)
        if isinstance(text, ast.Constant) and isinstance(text.value, str) and said.search(text.value)
    ]
    assert found == []
