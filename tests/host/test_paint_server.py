"""The painting and restoring nodes on a real server: what is cached, what a wrong value over a link does."""

from __future__ import annotations

from typing import Any

import pytest
from support.graphs import node, preview, text_of

from tools import ROOT
from tools.comfy_client import PromptFailedError
from tools.comfy_server import ComfyServer
from tools.props import load_prompt


def ran(server: ComfyServer, prompt: dict[str, Any]) -> set[str]:
    """The classes of the nodes that ran, and were not taken from the cache."""
    seen: set[str] = set()

    def on_event(kind: str, data: Any) -> None:
        if kind == "executing" and data.get("node") in prompt:
            seen.add(prompt[data["node"]]["class_type"])

    server.run(prompt, on_event=on_event)
    return seen


def test_only_what_changed_runs_again(server: ComfyServer) -> None:
    prompt = load_prompt(ROOT / "workflows" / "api" / "inpaint.json")
    ours = {item["class_type"]: item for item in prompt.values() if item["class_type"].startswith("LLMGA_")}
    ours["LLMGA_PrepareMask"]["inputs"]["seed"] = 11  # nothing of another test
    loaders = {name for name in ours if name.endswith("Loader")}  # which another test may have run
    assert ours.keys() - loaders <= ran(server, prompt)
    assert ours.keys().isdisjoint(ran(server, prompt))
    ours["LLMGA_DiffRIRRestore"]["inputs"]["blend"] = "hard"
    again = ran(server, prompt)
    assert {"LLMGA_DiffRIRRestore", "LLMGA_StitchPainting", "SaveImage"} <= again
    assert again.isdisjoint({"LLMGA_UNetLoader", "LLMGA_Chat", "LLMGA_CropForPainting", "KSampler"})


WRONG = {
    "LLMGA_UNetLoader": ["unet", "variant", "weight_dtype", "download"],
    "LLMGA_DiffRIRLoader": ["restorer_file", "precision"],
    "LLMGA_DiffRIRRestore": ["image", "reference", "mask", "method", "seed", "blend", "restorer"],
    "LLMGA_SeamReport": ["image", "mask", "band"],
    "LLMGA_PrepareMask": ["image", "source", "grow", "seed", "mask"],
    "LLMGA_CropForPainting": ["image", "mask", "width", "height", "context", "enlarge"],
    "LLMGA_StitchPainting": ["crop", "painted", "blend"],
}


@pytest.mark.parametrize("kind", ["nan", "object"])
@pytest.mark.parametrize(
    ("name", "widget"), [(name, one) for name, widgets in WRONG.items() for one in widgets]
)
def test_a_wrong_value_over_a_link_names_the_input(
    server: ComfyServer, name: str, widget: str, kind: str
) -> None:
    workflow = (
        "inpaint"
        if name in ("LLMGA_UNetLoader", "LLMGA_CropForPainting", "LLMGA_StitchPainting")
        else "restore_only"
    )
    prompt = load_prompt(ROOT / "workflows" / "api" / f"{workflow}.json")
    (found,) = (key for key, item in prompt.items() if item["class_type"] == name)
    prompt["wrong"] = node("LLMGATest_Value", kind=kind)
    prompt[found]["inputs"][widget] = ["wrong", 0]
    if name == "LLMGA_PrepareMask" and widget == "mask":
        prompt[found]["inputs"]["source"] = "given"
    wanted = needed(prompt, found)
    wanted["shown"] = preview([found, 0])
    with pytest.raises(PromptFailedError) as caught:
        server.run(wanted)
    assert caught.value.node_type == name
    assert caught.value.exception_type == "ValueError" and widget in caught.value.exception_message
    alive = {"1": node("PrimitiveInt", value=5), "2": preview(["1", 0])}
    assert text_of(server.run(alive), "2") == "5"


def needed(prompt: dict[str, Any], target: str) -> dict[str, Any]:
    """The part of a prompt that a node needs, with a picture in place of what would be painted."""
    kept: dict[str, Any] = {}

    def keep(key: str) -> None:
        if key in kept:
            return
        item = prompt[key]
        if item["class_type"] == "LLMGA_DiffRIRRestore" and key != target:
            item = node("LoadImage", image="example.png")
        kept[key] = item
        for value in item["inputs"].values():
            if isinstance(value, list):
                keep(value[0])

    keep(target)
    return kept
