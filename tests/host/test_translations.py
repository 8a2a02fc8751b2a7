"""Help pages in Chinese: served, titled as the node is, about every socket by the name that is seen on it, and as
complete as the English ones."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tools import ROOT
from tools.comfy_server import PACK_FOLDER, ComfyServer

DOCS = ROOT / "web" / "docs"
WORDS = json.loads((ROOT / "locales" / "zh" / "nodeDefs.json").read_text(encoding="utf-8"))
NODES = sorted(json.loads(Path(__file__).with_name("object_info.json").read_text(encoding="utf-8")))
# What no translation changes: a section or a point more or less, a number, a `piece of code`.
SECTION = re.compile(r"^#+ ", re.M)
POINT = re.compile(r"^ *- ", re.M)
NUMBER = re.compile(r"\d[\d,.]*\d|\d")
CODE = re.compile(r"`[^`\n]+`")


def test_every_node_has_a_page_in_both_languages() -> None:
    assert sorted(path.stem for path in DOCS.glob("*.md")) == NODES
    assert sorted(path.parent.name for path in DOCS.glob("*/zh.md")) == NODES
    assert sorted(WORDS) == NODES


@pytest.mark.parametrize("name", NODES)
def test_a_chinese_page_is_served_and_explains_every_socket(server: ComfyServer, name: str) -> None:
    page = server.request(f"/extensions/{PACK_FOLDER}/docs/{name}/zh.md").decode("utf-8")
    words = WORDS[name]
    assert page.startswith(f"# {words['display_name']}\n")
    inputs = [f"**{one['name']}**（{key}" for key, one in words["inputs"].items()]
    outputs = [f"**{one['name']}**（" for one in words["outputs"].values()]
    assert [one for one in (*inputs, *outputs) if one not in page] == []
    for heading in ("## 输入", "## 输出", "## 示例", "## 出错时"):
        assert heading in page, f"{name}/zh.md has no {heading!r}"


@pytest.mark.parametrize("name", NODES)
def test_both_pages_say_the_same(name: str) -> None:
    english, chinese = ((DOCS / one).read_text("utf-8") for one in (f"{name}.md", f"{name}/zh.md"))
    for pattern in (SECTION, POINT):
        assert len(pattern.findall(chinese)) == len(pattern.findall(english)), pattern.pattern
    for pattern in (NUMBER, CODE):
        assert set(pattern.findall(chinese)) == set(pattern.findall(english)), pattern.pattern
