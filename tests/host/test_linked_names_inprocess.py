"""A file's name that comes by a link: ComfyUI's own check of what has changed, which cannot see it, runs the node again when
a file changed and not otherwise."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image
from support import comfy_inprocess

pytestmark = pytest.mark.skipif(
    comfy_inprocess.skip_reason() is not None, reason=str(comfy_inprocess.skip_reason())
)
NAMES = {
    "LLMGA_ModelLoader": ("loaders", "ModelLoader", ("model",), "LLM/linked/config.json"),
    "LLMGA_GILLLoader": (
        "gill",
        "GILLLoader",
        ("language", "gill", "vision", "decision"),
        "gill/linked.safetensors",
    ),
    "LLMGA_PictureIndex": ("gill", "PictureIndex", ("folder",), "input/linked/a.png"),
    "LLMGA_CaptionFolder": ("caption_folder", "CaptionFolder", ("folder",), "input/linked/a.png"),
    "LLMGA_CaptionFolder, both": (
        "caption_folder",
        "CaptionFolder",
        ("folder", "place"),
        "output/linked/a.png",
    ),
    "LLMGA_LoadHistory": ("history", "LoadHistory", ("name",), "user/linked.json"),
    "LLMGA_DiffRIRLoader": ("restore", "DiffRIRLoader", ("restorer_file",), "diffrir/linked.pth"),
    "LLMGA_UNetLoader": ("unet_loader", "UNetLoader", ("unet",), "diffusion_models/linked.safetensors"),
    "LLMGA_UNetLoader, variant": (
        "unet_loader",
        "UNetLoader",
        ("variant",),
        "diffusion_models/linked.safetensors",
    ),
    "LLMGA_LongCLIPEncode": ("encode", "LongCLIPEncode", ("text",), "embeddings/linked.safetensors"),
    "LLMGA_InversionEdit": ("edit", "InversionEdit", ("target_prompt",), "embeddings/linked.safetensors"),
}


@pytest.fixture
def made() -> Iterator[list[Path]]:
    paths: list[Path] = []
    yield paths
    for path in paths:
        path.unlink(missing_ok=True)
        if path.parent.name == "linked":
            path.parent.rmdir()
    importlib.import_module("folder_paths").filename_list_cache.clear()


def place_of(name: str) -> Path:
    folders = importlib.import_module("folder_paths")
    kind, _, rest = name.partition("/")
    if kind == "user":
        return comfy_inprocess.pack("nodes.host").private_directory() / "histories" / rest
    roots = {"input": folders.get_input_directory, "output": folders.get_output_directory}
    return Path(roots[kind]() if kind in roots else folders.get_folder_paths(kind)[0]) / rest


def changed_by_comfyui(class_: Any, inputs: dict[str, Any]) -> Any:
    """What ComfyUI compares from one run to the next, from a prompt in which these inputs are links or widgets."""
    core, execution = importlib.import_module("nodes"), importlib.import_module("execution")
    graph = importlib.import_module("comfy_execution.graph")
    prompt = {
        "1": {"class_type": "AnyName", "inputs": {}},
        "2": {"class_type": "LinkedNode", "inputs": inputs},
    }
    core.NODE_CLASS_MAPPINGS["LinkedNode"] = class_
    try:
        cache = execution.IsChangedCache("prompt", graph.DynamicPrompt(prompt), SimpleNamespace())
        return asyncio.run(cache.get("2"))
    finally:
        del core.NODE_CLASS_MAPPINGS["LinkedNode"]


@pytest.mark.parametrize("case", NAMES)
def test_a_node_with_a_linked_name_runs_again_when_a_file_changed_and_not_otherwise(
    case: str, made: list[Path]
) -> None:
    comfy_inprocess.start()
    comfy_inprocess.pack("nodes").extension()
    module, name, linked, file = NAMES[case]
    class_ = getattr(comfy_inprocess.pack(f"nodes.{module}"), name)
    path = place_of(file)
    path.parent.mkdir(parents=True, exist_ok=True)
    made.append(path)
    Image.new("RGB", (4, 4)).save(path) if path.suffix == ".png" else path.write_bytes(b"{}")
    importlib.import_module("folder_paths").filename_list_cache.clear()
    inputs: dict[str, Any] = {one: ["1", 0] for one in linked}
    if case.endswith("variant"):
        inputs["unet"] = path.name
    before = changed_by_comfyui(class_, inputs)
    assert before == changed_by_comfyui(
        class_, inputs
    )  # NaN, which ComfyUI takes for a fault, is not equal to itself
    path.write_bytes(path.read_bytes() + b" ")
    assert changed_by_comfyui(class_, inputs) != before
