"""``python -m tools.templates``: make ``workflows/*.json`` and their thumbnails from ``workflows/api``.

The API prompts are the source. ComfyUI's own page turns each into a workflow, so that sockets, widget order and format are
the page's; what is added here is what an API prompt lacks: the places of the nodes, groups, a note, and where models come
from. A server with miniature models under the real names runs behind it, and nothing is painted: the pictures of the
thumbnails are drawn by ``miniworld``.
"""

from __future__ import annotations

import base64
import html
import io
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmga import __version__
from miniworld.world.captions import short_caption
from miniworld.world.render import render
from miniworld.world.scene import Scene, sample_scene

from . import ROOT
from .chromium import find
from .comfy_server import ComfyServer
from .frontend import chromium, new_page, visit
from .props import write_example
from .template_notes import MODELS, NOTES
from .terminal import say

if TYPE_CHECKING:
    from playwright.sync_api import Page

WORKFLOWS = ROOT / "workflows"
API = WORKFLOWS / "api"
SIDE = 512  # of a thumbnail
SHOT = 1536  # width of the graph's picture, before it is scaled down
# Left to right: a group holds columns, a column holds nodes from top to bottom, by class or by title.
GROUPS: dict[str, tuple[tuple[str, ...], ...]] = {
    "Models": (
        ("MarkdownNote",),
        (
            "LoadImage",
            "LLMGA_LoadHistory",
            "CLIPLoader",
            "LLMGA_HostLanguageModel",
            "LLMGA_ModelLoader",
            "LLMGA_Endpoint",
            "CheckpointLoaderSimple",
            "ControlNetLoader",
            "LLMGA_UNetLoader",
            "LLMGA_DiffRIRLoader",
            "LLMGA_GILLLoader",
            "LLMGA_PictureIndex",
        ),
    ),
    "Mask": (("LLMGA_PrepareMask", "ImagePadForOutpaint", "LLMGA_CropForPainting", "The UNet"),),
    "Conversation": (
        ("ImageBatch", "LLMGA Chat", "LLMGA Chat per Picture", "First turn", "Next turn"),
        ("Second turn",),
        ("LLMGA GILL Chat", "First picture", "Next picture", "Nothing to avoid"),
        ("Readout", "Retrieved", "The first picture"),
        ("Prompt", "Prompts", "Page texts", "LLMGA_SaveHistory"),
    ),
    "Conditioning": (
        ("LLMGA_LongCLIPEncode", "Tokens and chunks"),
        ("Canny", "Edges", "ControlNetApplyAdvanced"),
    ),
    "Instruction": (
        ("LLMGA Edit Instruction", "First edit"),
        ("Second edit",),
        ("Before", "After"),
    ),
    "Edit": (
        ("LLMGA_Invert", "LLMGA_PromptToPromptOptions"),
        ("LLMGA_AttentionMaps", "Where the words are"),
        ("Inversion Edit", "First Inversion Edit"),
        ("After the first edit",),
        ("Second Inversion Edit",),
        ("What was kept",),
    ),
    "Scene": (
        ("LLMGA_ScenePlan",),
        ("LLMGA_SceneAssess", "Which descriptions agree"),
        ("LLMGA_SceneSynthesis", "How it was painted"),
        ("LLMGA_ScenePreview", "Boxes, masks and attention"),
    ),
    "Picture": (
        ("InpaintModelConditioning", "EmptyLatentImage", "KSampler"),
        ("VAEDecode", "Both", "SaveImage"),
    ),
    "Restore": (
        ("LLMGA_DiffRIRRestore", "LLMGA_StitchPainting", "LLMGA_SeamReport"),
        ("What was restored", "Seam"),
        ("Difference", "Where the seam is"),
    ),
}
COLOURS = {
    "Models": "#3f5159",
    "Conversation": "#5c4a72",
    "Conditioning": "#4a6350",
    "Instruction": "#5c4a72",
    "Edit": "#4a5f63",
    "Scene": "#4a5472",
    "Picture": "#6b5a3e",
    "Mask": "#5a4a4a",
    "Restore": "#4b5a3e",
}
WIDTHS = {
    "MarkdownNote": 340,
    "LLMGA_Chat": 420,
    "LLMGA_ChatPerPicture": 420,
    "LLMGA_GILLChat": 420,
    "LLMGA_LongCLIPEncode": 400,
    "LLMGA_EditInstruction": 420,
    "LLMGA_Invert": 400,
    "LLMGA_InversionEdit": 400,
    "LLMGA_PromptToPromptOptions": 400,
    "LLMGA_ScenePlan": 420,
    "LLMGA_SceneSynthesis": 400,
    "SaveImage": 420,
}
WIDTH = 320
HEIGHTS = {
    "MarkdownNote": 480,
    "LLMGA_Chat": 900,
    "LLMGA_ChatPerPicture": 560,
    "LLMGA_GILLChat": 640,
    "LLMGA_LongCLIPEncode": 480,
    "SaveImage": 460,
    "LLMGA_EditInstruction": 560,
    "LLMGA_UNetLoader": 300,
    "LLMGA_DiffRIRLoader": 200,
    "LLMGA_DiffRIRRestore": 340,
    "LLMGA_SeamReport": 240,
    "LLMGA_PrepareMask": 260,
    "LLMGA_CropForPainting": 240,
    "LLMGA_Invert": 620,
    "LLMGA_InversionEdit": 700,
    "LLMGA_AttentionMaps": 420,
    "LLMGA_PromptToPromptOptions": 480,
    "LLMGA_ScenePlan": 900,
    "LLMGA_SceneSynthesis": 620,
    "LLMGA_ScenePreview": 240,
    "PreviewImage": 380,
    "PreviewAny": 240,
    "LoadImage": 340,
}
TITLE = 34  # of a node, above its place
GAP = 40
MARGIN = 24  # of a group around its nodes

LOAD = """async ([prompt, name, note]) => {
    await app.loadApiJson(prompt, name);
    const added = LiteGraph.createNode("MarkdownNote");
    app.graph.add(added);
    added.title = "What this needs";
    added.widgets[0].value = note;
    return app.graph.nodes.map((node) => ({ id: node.id, type: node.type, title: node.title,
        size: [...node.computeSize()] }));
}"""
ARRANGE = """([places, groups, ours, core, models]) => {
    for (const node of app.graph.nodes) {
        const { pos, size } = places[node.id];
        node.pos = pos;
        node.setSize(size);
        const def = node.constructor.nodeData;
        if (def?.python_module) {
            Object.assign(node.properties, def.python_module.startsWith("custom_nodes.") ? ours : core);
        }
        const file = node.widgets?.map((widget) => widget.value).find((value) => models[value]);
        if (file) node.properties.models = [{ name: file, ...models[file] }];
        for (const widget of node.widgets ?? []) {
            if (widget.name === "control_after_generate") {
                widget.value = node.type === "KSampler" ? "randomize" : "fixed";
            }
        }
    }
    for (const { title, colour, bounds } of groups) {
        const group = new LiteGraph.LGraphGroup(title);
        group.color = colour;
        app.graph.add(group);
        group.pos = bounds.slice(0, 2);
        group.size = bounds.slice(2);
    }
}"""
SAVE = "async () => JSON.stringify((await app.graphToPrompt()).workflow)"
# The graph fills the window and nothing lies over it.
FIT = """async ([left, top, width, height]) => {
    await app.extensionManager.command.execute("Workspace.ToggleFocusMode");
    await app.extensionManager.setting.set("Comfy.Graph.CanvasMenu", false);
    await app.extensionManager.setting.set("LiteGraph.Canvas.MinFontSizeForLOD", 0);
    const style = document.createElement("style");
    style.textContent = "button { visibility: hidden !important }";
    document.head.append(style);
    const canvas = app.canvas;
    canvas.ds.scale = Math.min(window.innerWidth / width, window.innerHeight / height);
    canvas.ds.offset = [-left, -top];
    canvas.show_info = false;
    canvas.draw(true, true);
}"""
THUMBNAIL = """<style>
    body { margin: 0; height: 512px; display: flex; flex-direction: column; background: #17181c; overflow: hidden }
    main { flex: 1; display: flex; align-items: center; justify-content: center; gap: 12px; padding: 12px }
    p { flex: 1; margin: 0; padding: 12px 14px; border-radius: 12px 12px 12px 3px; background: #33405c; color: #f2f4f8;
        font: 17px/1.35 system-ui, sans-serif }
    p:empty { display: none }
    main img { height: 270px; border-radius: 10px }
    main:has(img + p) img { height: 192px }
    main:has(img + p) p { flex: 0 1 76px; padding: 8px; font-size: 14px; text-align: center }
    .graph { width: 100%; display: block }
</style><main>{turns}</main><img class="graph" src="{graph}">"""
# The pictures of a thumbnail: a seed of the miniature world, and words that change the picture how.
EXAMPLES: dict[str, tuple[int, str, dict[str, Any]]] = {
    "text_to_image": (10, "", {}),
    "text_to_image_as_released": (2, "", {}),
    "similar_image": (5, "one like this", {"backdrop": 20, "light": "left", "tone": "cool"}),
    "similar_images": (11, "one like each", {"backdrop": 20, "light": "left", "tone": "cool"}),
    "chat_with_endpoint": (9, "make it night", {"background": "night"}),
    "continue_conversation": (0, "now on grass", {"background": "grass"}),
    "chat_with_host_model": (7, "", {}),
    "chat_many_turns": (0, "at dusk", {"background": "night"}),
    "picture_book": (14, "next page", {"background": "water"}),
    "controlnet": (5, "in winter", {"background": "snow"}),
    "instruction_edit": (12, "put everything on snow", {"background": "snow"}),
    "instruction_edit_multi_turn": (3, "on grass, in warm light", {"background": "grass", "tone": "warm"}),
    "edit_with_mask": (14, "make this one green", {"colour": "green"}),
    "scene": (8, "a star beside a heart", {}),
    "scene_by_hand": (15, "moved by hand", {}),
    "scene_into_photo": (17, "put a star here", {"colour": "red"}),
}
EXAMPLES |= {
    "inpaint": (16, "a green thing here", {"colour": "green"}),
    "outpaint": (18, "continue it to both sides", {}),
    "inpaint_sdxl": (21, "make it blue", {"colour": "blue"}),
    "restore_only": (23, "without the seam", {}),
    "gill_story": (27, "and then, at night", {"background": "night"}),
    "gill_retrieve_or_generate": (29, "", {}),
    "language_or_embedding": (31, "", {}),
}
# Before the change: a part of the picture (left, top, right, bottom of 256) and the line that its values are put through.
DEGRADED: dict[str, tuple[Sequence[tuple[int, int, int, int]], float, int]] = {
    "outpaint": ([(0, 0, 60, 256), (196, 0, 256, 256)], 0.0, 0),
    "restore_only": ([(60, 90, 256, 256)], 0.8, 40),
}
# Where the files and records stand that the prompts name.
PLACES = {
    ("CheckpointLoaderSimple", "ckpt_name"): "models/checkpoints/{}",
    ("CLIPLoader", "clip_name"): "models/text_encoders/{}",
    ("ControlNetLoader", "control_net_name"): "models/controlnet/{}",
    ("LLMGA_ModelLoader", "model"): "models/LLM/{}/config.json",
    ("LLMGA_DiffRIRLoader", "restorer_file"): "models/diffrir/{}",
    ("LLMGA_GILLLoader", "language"): "models/LLM/{}/config.json",
    ("LLMGA_GILLLoader", "gill"): "models/gill/{}",
    ("LLMGA_GILLLoader", "vision"): "models/clip_vision/{}",
    ("LLMGA_GILLLoader", "decision"): "models/gill/{}",
    ("LLMGA_LoadHistory", "name"): "user/__llmga/histories/{}.json",
}
Prompts = dict[str, dict[str, Any]]


def main() -> int:
    host, chromium_found = os.environ.get("COMFYUI_PATH", "none"), find(sys.executable)
    if host == "none" or chromium_found.path is None:
        say(f"templates need COMFYUI_PATH (now {host}) and a Chromium ({chromium_found.reason or 'found'})")
        return 2
    prompts = read_prompts()
    server = ComfyServer(Path(host), arguments=("--cpu",))
    write_placeholders(server.base, prompts, "http://127.0.0.1:9/v1")
    with server, chromium(chromium_found.path) as browser:
        version = server.get("/system_stats")["system"]["comfyui_version"]
        for name, prompt in prompts.items():
            with new_page(browser, server) as page:
                visit(page, server)
                workflow, screenshot = build(page, name, prompt, version)
            (WORKFLOWS / f"{name}.json").write_text(workflow + "\n", encoding="utf-8")
            with browser.new_page(viewport={"width": SIDE, "height": SIDE}) as page:
                size = paint(page, name, screenshot)
            say(f"{name}: thumbnail of {size / 1000:.0f} kB")
    return 0


def read_prompts() -> Prompts:
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(API.glob("*.json"))}


def write_placeholders(base: Path, prompts: Prompts, endpoint_url: str) -> None:
    """Put empty files in a server's base folder under the names that the prompts hold, and a record for each endpoint."""
    nodes = [node for prompt in prompts.values() for node in prompt.values()]
    for (class_type, widget), place in PLACES.items():
        for node in nodes:
            if node["class_type"] == class_type:
                path = base / place.format(node["inputs"][widget])
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
    names = {node["inputs"]["endpoint"] for node in nodes if node["class_type"] == "LLMGA_Endpoint"}
    path = base / "user" / "__llmga" / "endpoints.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        json.dumps({"endpoints": {name: {"url": endpoint_url, "model": "demo"} for name in names}})
    )
    write_example(base / "input" / "example.png")


def build(page: Page, name: str, prompt: dict[str, Any], version: str) -> tuple[str, bytes]:
    """The workflow as the page saves it, and a PNG of its graph."""
    nodes = page.evaluate(LOAD, [prompt, name, "\n\n".join(NOTES[name])])
    places, groups, bounds = arrange(nodes)
    ours = {"cnr_id": "llmga", "ver": __version__}
    page.evaluate(ARRANGE, [places, groups, ours, {"cnr_id": "comfy-core", "ver": version}, MODELS])
    workflow = json.loads(page.evaluate(SAVE))
    workflow["extra"].pop("ds", None)  # where this window looked; without, the page shows the whole graph
    page.set_viewport_size({"width": SHOT, "height": round(SHOT * bounds[3] / bounds[2])})
    page.evaluate(FIT, bounds)
    page.wait_for_timeout(1500)  # pictures in the nodes, and the widgets' own way to their new places
    return json.dumps(workflow, ensure_ascii=False, indent=1), page.screenshot()


def arrange(nodes: list[dict[str, Any]]) -> tuple[dict[str, Any], list[dict[str, Any]], list[float]]:
    """Columns from left to right.

    Returns:
        Place and size for each node id, the groups, and [left, top, width, height] of the whole.
    """
    places: dict[str, Any] = {}
    groups = []
    left = float(MARGIN)
    for title, columns in GROUPS.items():
        if not any(
            key in (node["title"], node["type"]) for column in columns for key in column for node in nodes
        ):
            continue
        start, bottom = left, 0.0
        for column in columns:
            chosen = [node for key in column for node in nodes if key in (node["title"], node["type"])]
            top = float(TITLE)
            for node in chosen:
                width = WIDTHS.get(node["type"], WIDTH)
                height = float(HEIGHTS.get(node["type"]) or node["size"][1])
                places[str(node["id"])] = {"pos": [left, top], "size": [width, height]}
                top += height + TITLE + GAP / 2
            bottom = max(bottom, top - TITLE)
            left += max([GAP + places[str(node["id"])]["size"][0] for node in chosen], default=0)
        if left == start:  # nothing of this group occurs
            continue
        bounds = [start - MARGIN, -MARGIN - TITLE, left - GAP - start + 2 * MARGIN, bottom + TITLE + MARGIN]
        groups.append({"title": title, "colour": COLOURS[title], "bounds": bounds})
        left += 2 * MARGIN
    height = max(group["bounds"][3] for group in groups)
    for group in groups:
        group["bounds"][3] = height
    lost = [node["title"] for node in nodes if str(node["id"]) not in places]
    if lost:
        raise ValueError(f"GROUPS has no place for {', '.join(lost)}")
    return places, groups, [-GAP, -MARGIN - TITLE - GAP, left - MARGIN + GAP, height + 2 * GAP]


def paint(page: Page, name: str, screenshot: bytes) -> int:
    """Write a template's thumbnail: what is said, what comes of it, and the graph. Returns its size in bytes."""
    turns = "".join(
        f'<p>{html.escape(words)}</p><img src="{data_url(picture)}">' for words, picture in example(name)
    )
    page.set_content(THUMBNAIL.replace("{turns}", turns).replace("{graph}", data_url(screenshot)))
    path = WORKFLOWS / f"{name}.jpg"
    page.screenshot(path=path, type="jpeg", quality=85)
    return path.stat().st_size


def example(name: str) -> list[tuple[str, bytes]]:
    """One or two pictures, each after the words that ask for it, from the miniature world."""
    seed, words, change = EXAMPLES[name]
    scene = sample_scene(seed, objects=(3, 6))
    if not words:
        return [(short_caption(scene, seed), png(scene))]
    colour = change.get("colour")
    if colour:  # of the last object, which nothing hides
        changed = replace(scene, objects=(*scene.objects[:-1], replace(scene.objects[-1], colour=colour)))
    else:
        changed = replace(scene, **change)
    return [("", png(scene, *DEGRADED.get(name, ((), 1.0, 0)))), (words, png(changed))]


def png(
    scene: Scene, boxes: Sequence[tuple[int, int, int, int]] = (), gain: float = 1.0, bias: int = 0
) -> bytes:
    out = io.BytesIO()
    picture = render(scene, 256).image
    for box in boxes:
        picture.paste(picture.crop(box).point(lambda value: int(gain * value + bias)), box)
    picture.save(out, format="PNG")
    return out.getvalue()


def data_url(picture: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(picture).decode("ascii")


if __name__ == "__main__":
    sys.exit(main())
