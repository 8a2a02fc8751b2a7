"""Help pages in Chinese: served, titled as the node is, and about every socket by the name that is seen on it."""

from __future__ import annotations

import json

import pytest

from tools import ROOT
from tools.comfy_server import PACK_FOLDER, ComfyServer

DOCS = ROOT / "web" / "docs"
WORDS = json.loads((ROOT / "locales" / "zh" / "nodeDefs.json").read_text(encoding="utf-8"))
PAGES = sorted(path.parent.name for path in DOCS.glob("*/zh.md"))
CHAT = {
    "LLMGA_Chat",
    "LLMGA_Endpoint",
    "LLMGA_HostLanguageModel",
    "LLMGA_LoadHistory",
    "LLMGA_LongCLIPEncode",
    "LLMGA_ModelLoader",
    "LLMGA_SaveHistory",
}


def test_the_chat_nodes_have_chinese_pages() -> None:
    assert set(PAGES) >= CHAT
    assert set(PAGES) <= WORDS.keys()


@pytest.mark.parametrize("name", PAGES)
def test_a_chinese_page_is_served_and_explains_every_socket(server: ComfyServer, name: str) -> None:
    page = server.request(f"/extensions/{PACK_FOLDER}/docs/{name}/zh.md").decode("utf-8")
    words = WORDS[name]
    assert page.startswith(f"# {words['display_name']}\n")
    inputs = [f"**{one['name']}**（{key}" for key, one in words["inputs"].items()]
    outputs = [f"**{one['name']}**（" for one in words["outputs"].values()]
    assert [one for one in (*inputs, *outputs) if one not in page] == []
    for heading in ("## 输入", "## 输出", "## 示例", "## 出错时"):
        assert heading in page, f"{name}/zh.md has no {heading!r}"
