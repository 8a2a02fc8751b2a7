"""``python -m tools.blueprints``: make ``subgraphs/*.json``, parts of the shipped workflows as one node each.

ComfyUI's own page turns the nodes into a subgraph, so the format is the page's. Inputs are what comes from outside the
chosen nodes, and the words, which a text node stands in for.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import ROOT
from .chromium import find
from .comfy_server import ComfyServer
from .frontend import chromium, new_page, visit
from .small_graph import Prompt
from .templates import read_prompts, write_placeholders
from .terminal import say

if TYPE_CHECKING:
    from playwright.sync_api import Page

SUBGRAPHS = ROOT / "subgraphs"
WORDS = "words"
COLUMN = 480


@dataclass(frozen=True)
class Blueprint:
    """A part of a workflow.

    Attributes:
        workflow: the API prompt that it is cut out of.
        inside: the classes of its nodes.
        asks: the class whose *instruction* becomes an input.
        values: other values than the workflow's, by class and input.
    """

    workflow: str
    inside: tuple[str, ...]
    asks: str
    about: str
    aliases: tuple[str, ...]
    values: tuple[tuple[str, str, Any], ...] = ()


BLUEPRINTS = {
    "Refine prompt": Blueprint(
        "z_image",
        ("LLMGA_HostLanguageModel", "LLMGA_Chat"),
        "LLMGA_Chat",
        "A few words become a detailed prompt, written by a language model from Load CLIP.",
        ("prompt enhancer", "magic prompt", "expand prompt"),
    ),
    "Edit by words": Blueprint(
        "instruction_edit",
        ("LLMGA_HostLanguageModel", "LLMGA_EditInstruction", "LLMGA_Invert", "LLMGA_InversionEdit"),
        "LLMGA_EditInstruction",
        "Changes a picture as the words say and leaves the rest alone. SD1.5 and SDXL.",
        ("edit image", "instruct edit", "change object"),
    ),
    "Paint a hole": Blueprint(
        "inpaint",
        (
            "LLMGA_PrepareMask",
            "LLMGA_CropForPainting",
            "LLMGA_HostLanguageModel",
            "LLMGA_Chat",
            "LLMGA_LongCLIPEncode",
            "InpaintModelConditioning",
            "KSampler",
            "VAEDecode",
            "LLMGA_DiffRIRRestore",
            "LLMGA_StitchPainting",
        ),
        "LLMGA_Chat",
        "Fills the masked part of a picture: the language model sees the rest and writes what belongs there.",
        ("inpaint", "remove object", "fill mask"),
        (("LLMGA_PrepareMask", "source", "given"),),
    ),
}
# The outside is only there to say what the inputs and outputs are.
MAKE = """async ([prompt, name, inside, about, aliases, column]) => {
    await app.loadApiJson(prompt, name);
    const chosen = app.graph.nodes.filter((node) => inside.includes(node.type));
    chosen.forEach((node, i) => { node.pos = [(i % 3) * column, Math.floor(i / 3) * 800]; });
    const { node, subgraph } = app.graph.convertToSubgraph(new Set(chosen));
    subgraph.name = name;
    for (const [i, input] of subgraph.inputs.entries()) {
        const [link] = input.linkIds.map((id) => subgraph.links.get(id));
        const speaks = subgraph.getNodeById(link.target_id).type === "LLMGA_HostLanguageModel";
        input.label = node.inputs[i].label = speaks ? "language model" : input.name.replace(/_1$/, "");
    }
    node.title = name;
    subgraph.extra = { ...subgraph.extra, BlueprintDescription: about, BlueprintSearchAliases: aliases };
    for (const other of [...app.graph.nodes]) if (other !== node) app.graph.remove(other);
    const saved = JSON.parse(JSON.stringify(app.graph.serialize()));
    saved.extra = { BlueprintDescription: about, BlueprintSearchAliases: aliases };
    return saved;
}"""


def main() -> int:
    host, found = os.environ.get("COMFYUI_PATH", "none"), find(sys.executable)
    if host == "none" or found.path is None:
        say(f"blueprints need COMFYUI_PATH (now {host}) and a Chromium ({found.reason or 'found'})")
        return 2
    SUBGRAPHS.mkdir(exist_ok=True)
    server = ComfyServer(Path(host), arguments=("--cpu",))
    prompts = read_prompts()
    write_placeholders(server.base, prompts, "http://127.0.0.1:9/v1")
    with server, chromium(found.path) as browser, new_page(browser, server) as page:
        visit(page, server)
        for name, blueprint in BLUEPRINTS.items():
            saved = make(page, name, blueprint, part_of(prompts[blueprint.workflow], blueprint))
            text = json.dumps(saved, ensure_ascii=False, indent=1)
            (SUBGRAPHS / f"{name}.json").write_text(text + "\n", encoding="utf-8")
            (outside,) = saved["nodes"]
            say(f"{name}: {[slot['name'] for slot in outside['inputs']]}")
    return 0


def make(page: Page, name: str, blueprint: Blueprint, prompt: Prompt) -> dict[str, Any]:
    inside = [*blueprint.inside]
    return page.evaluate(MAKE, [prompt, name, inside, blueprint.about, [*blueprint.aliases], COLUMN])


def part_of(prompt: Prompt, blueprint: Blueprint) -> Prompt:
    """The workflow with a text node for the words, and without what only shows something."""
    part = {node_id: node for node_id, node in prompt.items() if node["class_type"] != "PreviewAny"}
    for class_type, name, value in blueprint.values:
        for node in part.values():
            if node["class_type"] == class_type:
                node["inputs"][name] = value
    (asked,) = (node for node in part.values() if node["class_type"] == blueprint.asks)
    part[WORDS] = {
        "class_type": "PrimitiveStringMultiline",
        "inputs": {"value": asked["inputs"]["instruction"]},
        "_meta": {"title": "Words"},
    }
    asked["inputs"]["instruction"] = [WORDS, 0]
    return part


if __name__ == "__main__":
    sys.exit(main())
