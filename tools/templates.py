"""``python -m tools.templates``: make ``workflows/*.json`` and their thumbnails from ``workflows/api``.

The API prompts are the source. ComfyUI's own page turns each into a workflow, so that sockets, widget order and format are
the page's; what is added here is what an API prompt lacks: the places of the nodes, groups, a note, and where models come
from. A server with miniature models under the real names runs behind it, and nothing is painted: the pictures of the
thumbnails are drawn by ``llmga.mini``.
"""

from __future__ import annotations

import base64
import html
import io
import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmga import __version__
from llmga.mini.captions import short_caption
from llmga.mini.render import render
from llmga.mini.world import Scene, sample_scene

from . import ROOT
from .chromium import find
from .comfy_server import ComfyServer
from .frontend import chromium, new_page, visit
from .props import write_example
from .terminal import say

if TYPE_CHECKING:
    from playwright.sync_api import Page

WORKFLOWS = ROOT / "workflows"
API = WORKFLOWS / "api"
SIDE = 512  # of a thumbnail
SHOT = 1536  # width of the graph's picture, before it is scaled down
CHECKPOINT_NOTE = (
    "**Checkpoint:** any SD1.5 or SDXL checkpoint in `models/checkpoints/`. The one named here is "
    "`v1-5-pruned-emaonly-fp16.safetensors`, from Comfy-Org/stable-diffusion-v1-5-archive on Hugging Face (2 GB)."
)
LOCAL_NOTE = (
    "**Language model:** a whole folder in `models/LLM/`. The one named here is `llava-1.5-7b-hf`, from "
    "llava-hf/llava-1.5-7b-hf on Hugging Face (14 GB, also sees pictures). Smaller Qwen-VL folders work too."
)
ENDPOINT_NOTE = (
    "**Language model:** a server that speaks the OpenAI protocol (Ollama, llama.cpp, vLLM, LM Studio, hosted). Write a "
    "record named `ollama` into `endpoints.json` in ComfyUI's `user/__llmga/` folder; the help page of LLMGA Endpoint "
    "shows how. Then press R."
)
HOST_NOTE = (
    "**Language model:** one that ComfyUI loads itself, in `models/text_encoders/`. The one named here is "
    "`qwen3vl_4b_fp8_scaled.safetensors`, from Comfy-Org/Qwen3-VL on Hugging Face."
)
NOTES = {
    "text_to_image": (
        "## A chat becomes a picture\nWrite a short idea into **LLMGA Chat** and press Run. The language model turns it "
        "into a detailed prompt, **Long CLIP Encode** reads all of it, and the sampler paints it.",
        LOCAL_NOTE,
        CHECKPOINT_NOTE,
    ),
    "similar_image": (
        "## A picture like this one\nLoad a picture. The language model looks at it and writes the prompt of one like it; "
        "the instruction says what matters to you and may stay empty.",
        LOCAL_NOTE,
        CHECKPOINT_NOTE,
    ),
    "chat_with_endpoint": (
        "## Two turns of one conversation\nThe history of the first **LLMGA Chat** goes into the second, which changes "
        "the prompt as asked. **Save History** keeps the conversation; *continue_conversation* goes on with it.",
        ENDPOINT_NOTE,
        CHECKPOINT_NOTE,
    ),
    "continue_conversation": (
        "## Go on with a saved conversation\n**Load History** brings back what *chat_with_endpoint* saved as "
        "`reading corner` (run that first, then press R). Each Run adds one turn and saves it again.",
        ENDPOINT_NOTE,
        CHECKPOINT_NOTE,
    ),
    "chat_with_host_model": (
        "## ComfyUI's own language model\nThe chat runs on a model that ComfyUI loads like any text encoder: no other "
        "files and no server. Its reply appears when it is finished, not while it is written.",
        HOST_NOTE,
        CHECKPOINT_NOTE,
    ),
}
HUGGING_FACE = "https://huggingface.co/Comfy-Org"
MODELS = {
    "v1-5-pruned-emaonly-fp16.safetensors": {
        "url": f"{HUGGING_FACE}/stable-diffusion-v1-5-archive/resolve/main/v1-5-pruned-emaonly-fp16.safetensors",
        "directory": "checkpoints",
    },
    "qwen3vl_4b_fp8_scaled.safetensors": {
        "url": f"{HUGGING_FACE}/Qwen3-VL/resolve/main/text_encoders/qwen3vl_4b_fp8_scaled.safetensors",
        "directory": "text_encoders",
    },
}

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
        ),
    ),
    "Conversation": (
        ("LLMGA Chat", "First turn", "Next turn"),
        ("Second turn",),
        ("Prompt", "LLMGA_SaveHistory"),
    ),
    "Conditioning": (("LLMGA_LongCLIPEncode", "Tokens and chunks"),),
    "Picture": (("EmptyLatentImage", "KSampler"), ("VAEDecode", "SaveImage")),
}
COLOURS = {"Models": "#3f5159", "Conversation": "#5c4a72", "Conditioning": "#4a6350", "Picture": "#6b5a3e"}
WIDTHS = {"MarkdownNote": 340, "LLMGA_Chat": 420, "LLMGA_LongCLIPEncode": 400, "SaveImage": 420}
WIDTH = 320
HEIGHTS = {
    "MarkdownNote": 480,
    "LLMGA_Chat": 620,
    "LLMGA_LongCLIPEncode": 480,
    "SaveImage": 460,
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
    "similar_image": (5, "one like this", {"backdrop": 20, "light": "left", "tone": "cool"}),
    "chat_with_endpoint": (9, "make it night", {"background": "night"}),
    "continue_conversation": (0, "now on grass", {"background": "grass"}),
    "chat_with_host_model": (7, "", {}),
}
# Where the files and records stand that the prompts name.
PLACES = {
    ("CheckpointLoaderSimple", "ckpt_name"): "models/checkpoints/{}",
    ("CLIPLoader", "clip_name"): "models/text_encoders/{}",
    ("LLMGA_ModelLoader", "model"): "models/LLM/{}/config.json",
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
    first = short_caption(scene, seed) if not words else ""
    return [(first, png(scene)), (words, png(replace(scene, **change)))] if words else [(first, png(scene))]


def png(scene: Scene) -> bytes:
    out = io.BytesIO()
    render(scene, 256).image.save(out, format="PNG")
    return out.getvalue()


def data_url(picture: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(picture).decode("ascii")


if __name__ == "__main__":
    sys.exit(main())
