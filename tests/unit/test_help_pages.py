"""Help pages say of each input what the node does with it: whether it is among the advanced ones, which are hidden."""

from __future__ import annotations

import json
import re

import pytest

from tools import ROOT

DOCS = ROOT / "web" / "docs"
NODES = json.loads((ROOT / "tests" / "host" / "object_info.json").read_text(encoding="utf-8"))
ENGLISH = re.compile(r"^- (\*\*\w+\*\*(?:, \*\*\w+\*\*)*)(?: \(([^)]*)\))?:", re.M)
CHINESE = re.compile(r"\*\*[^*]+\*\*（(\w+)([^）]*)）")


def advanced(name: str) -> dict[str, bool]:
    inputs = [
        each for part in ("required", "optional") for each in NODES[name]["input"].get(part, {}).items()
    ]
    return {key: bool(len(kind) > 1 and kind[1].get("advanced")) for key, kind in inputs}


@pytest.mark.parametrize("name", sorted(NODES))
def test_a_help_page_says_which_inputs_are_advanced(name: str) -> None:
    english, chinese = (
        (DOCS / page).read_text(encoding="utf-8").split("\n## ")[1]
        for page in (f"{name}.md", f"{name}/zh.md")
    )
    told = {
        key: "advanced" in note
        for names, note in ENGLISH.findall(english)
        for key in re.findall(r"\w+", names)
    }
    assert told == advanced(name)
    told = {key: "高级" in note for line in chinese.splitlines() for key, note in CHINESE.findall(line[:200])}
    assert {key: told[key] for key in advanced(name)} == advanced(name)
