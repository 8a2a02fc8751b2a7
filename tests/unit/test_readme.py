"""What the README claims and a machine can check."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from llmga.chat.endpoints import load_endpoints
from miniworld.models.random_language import write_tiny_llava
from tools import ROOT
from tools.template_list import NAMES
from tools.template_models import MODELS

README = (ROOT / "README.md").read_text(encoding="utf-8")
NODES = (ROOT / "docs" / "nodes.md").read_text(encoding="utf-8")

DOCUMENTS = [
    "README.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "CHANGELOG.md",
    *(path.relative_to(ROOT).as_posix() for path in sorted((ROOT / "docs").rglob("*.md"))),
]


def block(page: str, language: str) -> str:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    found = re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert len(found) == 1
    return found[0]


def test_the_readme_is_short_and_says_first_what_it_cannot() -> None:
    assert len(README.splitlines()) <= 180
    assert README.index("**Limits first.**") < README.index("## Install")


def test_the_node_table_is_the_pack() -> None:
    shipped = {
        node.value.value
        for path in (ROOT / "nodes").glob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.keyword) and node.arg == "node_id" and isinstance(node.value, ast.Constant)
    }
    assert set(re.findall(r"`(LLMGA_\w+)`", NODES)) == shipped


def test_the_template_table_is_the_folder() -> None:
    text = (ROOT / "docs" / "templates.md").read_text(encoding="utf-8")
    listed = dict(re.findall(r"^\| (\d\d [^|]+?) \| `(\w+)`", text, re.MULTILINE))
    assert listed == NAMES
    assert sorted(listed) == sorted(path.stem for path in (ROOT / "workflows").glob("*.json"))
    assert sorted(listed.values()) == sorted(
        path.stem for path in (ROOT / "workflows" / "api").glob("*.json")
    )


@pytest.mark.parametrize("page", sorted((ROOT / "web" / "docs").rglob("*.md")), ids=lambda page: page.stem)
def test_a_help_page_names_templates_by_their_titles(page: Path) -> None:
    for line in page.read_text(encoding="utf-8").splitlines():
        if re.search("[Tt]emplates?:? |模板", line):
            assert {*re.findall(r"\*(\d\d [^*]+)\*", line)} <= NAMES.keys(), line
            assert not {*re.findall(r"[Tt]emplates? \*(\w+)\*", line)} & {*NAMES.values()}, line


def test_every_file_of_a_template_is_linked_with_its_folder() -> None:
    for name, model in MODELS.items():
        (row,) = (line for line in README.splitlines() if f"[{name}]" in line)
        assert f"({model.url})" in row and f"`{model.directory}/`" in row


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_within_the_repository_lead_somewhere(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    local = [target for target in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in target]
    assert [target for target in local if not ((ROOT / document).parent / target).exists()] == []


def test_the_endpoints_file_is_valid(tmp_path: Path) -> None:
    path = tmp_path / "endpoints.json"
    path.write_text(block("endpoints.md", "json"), encoding="utf-8")
    endpoints = load_endpoints(path)
    assert endpoints["ollama"].key_env == ""
    assert endpoints["hosted"].deadline_s == 120


def test_the_library_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tiny_llava(tmp_path / "models" / "LLM" / "llava-1.5-7b-hf")
    monkeypatch.chdir(tmp_path)
    *lines, last = ast.parse(block("library.md", "python")).body
    assert isinstance(last, ast.Expr)
    known: dict = {}
    exec(compile(ast.Module(lines, []), "library.md", "exec"), known)  # noqa: S102 - our own page
    prompt, conversation = eval(compile(ast.Expression(last.value), "library.md", "eval"), known)  # noqa: S307
    assert prompt
    assert [turn.role for turn in conversation.turns] == ["user", "assistant"]
