"""The shipped workflows on a server whose nodes hand pictures on as float16 (``--fp16-intermediates``)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.graphs import node, preview, text_of
from support.host import ENVIRONMENT, PROBES

from tools import ROOT
from tools.comfy_server import ComfyServer
from tools.miniature import PACK as MINIATURE_PACK
from tools.props import RESTORER, load_prompt


@pytest.fixture(scope="module")
def half_server(comfyui: Path, fill_base: Callable[[Path], None]) -> Iterator[ComfyServer]:
    if "--fp16-intermediates" not in (comfyui / "comfy" / "cli_args.py").read_text(encoding="utf-8"):
        pytest.skip("this ComfyUI has no --fp16-intermediates")
    device = ("--cpu",) if sys.platform == "darwin" else ()
    server = ComfyServer(
        comfyui,
        arguments=("--fp16-intermediates", *device),
        extra_packs=(PROBES, MINIATURE_PACK),
        env=ENVIRONMENT,
    )
    fill_base(server.base)
    with server:
        yield server


def test_the_pictures_are_half(half_server: ComfyServer) -> None:
    prompt = {
        "1": node("LoadImage", image="example.png"),
        "2": node("LLMGATest_Dtype", image=["1", 0]),
        "3": preview(["2", 0]),
    }
    assert text_of(half_server.run(prompt), "3") == "torch.float16"


@pytest.mark.parametrize("name", ["inpaint", "inpaint_sdxl", "outpaint", "restore_only", "edit_with_mask"])
def test_a_template_runs(half_server: ComfyServer, name: str) -> None:
    prompt = load_prompt(ROOT / "workflows" / "api" / f"{name}.json")
    outputs = half_server.run(prompt)["outputs"]
    saved = [key for key, item in prompt.items() if item["class_type"] == "SaveImage"]
    assert saved and all(outputs[key]["images"] for key in saved)


@pytest.mark.parametrize("method", ["DiffRIR", "colour correction"])
def test_crop_stitch_and_restore_in_one_graph(half_server: ComfyServer, method: str) -> None:
    prompt = {
        "1": node("LoadImage", image="example.png"),
        "2": node(
            "LLMGA_PrepareMask", image=["1", 0], source="narrow", grow=0, seed=1
        ),
        "3": node(
            "LLMGA_CropForPainting",
            image=["1", 0], mask=["2", 0], width=128, height=96, context=1.5, enlarge=False,
        ),
        "4": node("ImageInvert", image=["3", 0]),
        "5": node("LLMGA_StitchPainting", crop=["3", 2], painted=["4", 0], blend=4),
        "6": node("LLMGA_DiffRIRLoader", restorer_file=RESTORER, precision="float32"),
        "7": node(
            "LLMGA_DiffRIRRestore",
            image=["5", 0], reference=["1", 0], mask=["2", 0], method=method, seed=0, blend="soft", restorer=["6", 0],
        ),
        "8": node("SaveImage", images=["7", 0], filename_prefix="half"),
    }  # fmt: skip
    assert half_server.run(prompt)["outputs"]["8"]["images"]
