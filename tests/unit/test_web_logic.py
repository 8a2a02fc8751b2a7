"""The logic of the chat panel in its own language: ``node --test``, no browser. Compared with llmga/chat/tags.py."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from support.replies import REPLIES, check_split

from tools import ROOT

NODE = shutil.which("node")
TESTS = Path(__file__).parent / "web"
APP = """export const app = {
  graph: { nodes: [] },
  queued: [],
  nodeOutputs: {},
  async queuePrompt(number, batch, targets) { app.queued.push(targets); return true; },
};
app.rootGraph = app.graph;
"""
API = "export const api = Object.assign(new EventTarget(), { apiURL: (path) => path });\n"

pytestmark = pytest.mark.skipif(
    NODE is None,
    reason="Node.js is not on the PATH: the panel's JavaScript is tested in the browser suite alone",
)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the scripts where ComfyUI serves them, with its own two modules replaced."""
    root = tmp_path_factory.mktemp("web")
    pack = root / "extensions" / "ComfyUI-LLMGA"
    shutil.copytree(ROOT / "web" / "js", pack / "js")
    shutil.copytree(TESTS, pack / "tests")
    (root / "scripts").mkdir()
    (root / "scripts" / "app.js").write_text(APP)
    (root / "scripts" / "api.js").write_text(API)
    (root / "package.json").write_text('{"type": "module"}')
    (pack / "tests" / "replies.json").write_text(json.dumps(REPLIES))
    return pack / "tests"


@pytest.mark.parametrize("name", sorted(path.name for path in TESTS.glob("*.test.mjs")))
def test_it_passes_in_node(page: Path, name: str) -> None:
    done = subprocess.run(
        [str(NODE), "--test", "--test-reporter=tap", name],
        cwd=page,
        capture_output=True,
        text=True,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(re.findall(r"^# pass (\d+)", done.stdout, re.M)[0]) >= 3
    if name.startswith("tags"):
        for reply, parts in zip(REPLIES, json.loads((page / "parts.json").read_text("utf-8")), strict=True):
            check_split(reply, parts)
