"""An installed pack needs neither diffusers nor accelerate: ComfyUI runs without them, chats, paints, edits, restores."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.host import ENVIRONMENT, PROBES

from tools import ROOT
from tools.comfy_server import ComfyServer, server_environment
from tools.miniature import PACK as MINIATURE_PACK
from tools.props import load_prompt

# Packages of the extra "train" that no node may need; ComfyUI itself requires PyYAML and tqdm.
BLOCKED = ("diffusers", "accelerate", "peft")
PROGRAM = f"""
import sys
sys.modules.update(dict.fromkeys({BLOCKED}))
"""


@pytest.fixture(scope="module")
def server(
    comfyui: Path, fill_base: Callable[[Path], None], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ComfyServer]:
    """Python imports ``sitecustomize`` before anything else."""
    folder = tmp_path_factory.mktemp("blocked")
    (folder / "sitecustomize.py").write_text(PROGRAM, encoding="utf-8")
    environment = {**ENVIRONMENT, "PYTHONPATH": str(folder)}
    server = ComfyServer(comfyui, extra_packs=(PROBES, MINIATURE_PACK), arguments=("--cpu",), env=environment)
    fill_base(server.base)
    with server:
        yield server


@pytest.mark.parametrize("name", ["text_to_image", "instruction_edit", "inpaint"])
def test_a_shipped_prompt_runs(server: ComfyServer, name: str) -> None:
    entry = server.run(load_prompt(ROOT / "workflows" / "api" / f"{name}.json"))
    assert any(one.get("images") for one in entry["outputs"].values())


def test_every_node_is_there(server: ComfyServer) -> None:
    shipped = {path.stem for path in (ROOT / "web" / "docs").glob("LLMGA_*.md")}
    assert shipped <= {*server.object_info()}


@pytest.mark.parametrize("name", BLOCKED)
def test_the_packages_are_out_of_reach(server: ComfyServer, name: str) -> None:
    tried = [sys.executable, "-c", f"import {name}"]
    done = subprocess.run(tried, env=server_environment(server.env), capture_output=True, text=True)
    assert f"import of {name} halted" in done.stderr
