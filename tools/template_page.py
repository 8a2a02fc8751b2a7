"""A workflow made by ComfyUI's own page from an API prompt: sockets, widgets and format are the page's."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llmga import __version__

from .miniature_values import EXAMPLE
from .template_groups import NOTE, Group, grouped, reading_order
from .template_layout import Layout, best_layout, rerouted, shown_at
from .template_links import Link, Links, Point
from .template_models import MODELS

if TYPE_CHECKING:
    from playwright.sync_api import Page

WIDTHS = {
    "MarkdownNote": 420,
    "LLMGA_Chat": 420,
    "LLMGA_ChatPerPicture": 400,
    "LLMGA_LongCLIPEncode": 380,
    "LLMGA_EditInstruction": 400,
    "LLMGA_Invert": 380,
    "LLMGA_InversionEdit": 380,
    "LLMGA_FlowEdit": 380,
    "LLMGA_Judge": 380,
    "LLMGA_PromptToPromptOptions": 380,
}
WIDTH = 290
# Of nodes whose text boxes and pictures take the room that they are given; others are as high as their rows.
HEIGHTS = {
    "MarkdownNote": 400,
    "LLMGA_Chat": 660,
    "LLMGA_ChatPerPicture": 440,
    "LLMGA_LongCLIPEncode": 380,
    "LLMGA_EditInstruction": 440,
    "LLMGA_CropEachRegion": 420,
    "SaveImage": 360,
    "PreviewImage": 300,
    "PreviewAny": 160,
    "LoadImage": 320,
    "CLIPTextEncode": 120,
    "LLMGA_ScenePlan": 840,  # Nodes 2.0 draws the box editor higher than it says
}
# The page keeps the texts of text boxes by graph, node and name, and all graphs made of prompts have one id. So a box whose
# input is linked, and which the prompt leaves alone, would have the text of the graph before; its element has its own.
LOAD = """async ([prompt, name, note]) => {
    app.clean();  // the outputs of the graph before
    await app.loadApiJson(prompt, name);
    for (const widget of app.graph.nodes.flatMap((node) => node.widgets ?? [])) {
        if (widget.element instanceof HTMLTextAreaElement) widget.value = widget.element.value;
    }
    const added = LiteGraph.createNode("MarkdownNote");
    app.graph.add(added);
    added.title = "What this needs";
    added.bgcolor = "#2b2419";  // Nodes 2.0 writes grey, which is hard to read on a note's own brown
    added.widgets[0].value = note;
    return app.graph.nodes.map((node) => ({ id: node.id, type: node.type, title: node.title }));
}"""
# Nodes that show pictures when they have run, and of how many their place has to be large enough.
PICTURES = {
    "SaveImage": 4,
    "PreviewImage": 4,
    "MaskPreview": 1,
    "LLMGA_Invert": 1,
    "LLMGA_AttentionMaps": 4,
    "LLMGA_SceneSynthesis": 1,
    "LLMGA_ScenePreview": 1,
}
# Sizes that are wished for, and the pictures of a run; what comes of them, in both renderers, is read by HEIGHTS_NOW. All
# nodes stand in one place, in sight: the canvas adds a picture's widget to those alone that it draws.
RESIZE = """([sizes, pictures, file]) => {
    for (const node of app.graph.nodes) {
        node.pos = [0, 0];
        node.setSize([sizes[node.id][0], Math.max(sizes[node.id][1], node.computeSize()[1])]);
    }
    app.canvas.ds.scale = 1;
    app.canvas.ds.offset = [100, 100];
    for (const node of app.graph.nodes) {
        const images = Array(pictures[node.type] ?? 0).fill({ filename: file, subfolder: "", type: "input" });
        const id = String(node.id);
        const detail = { node: id, display_node: id, prompt_id: "", output: { images } };
        if (images.length) app.api.dispatchCustomEvent("executed", detail);
    }
    app.canvas.setDirty(true, true);
}"""
HEIGHTS_NOW = """() => Object.fromEntries(app.graph.nodes.map((node) => {
    const drawn = document.querySelector(`[data-node-id="${node.id}"]`);
    const scale = app.canvas.ds.scale;
    return [node.id, drawn ? drawn.getBoundingClientRect().height / scale - LiteGraph.NODE_TITLE_HEIGHT : node.size[1]];
}))"""
# Where links leave and arrive, from the corner of their nodes: at a slot's element where there is one.
LINKS = """() => [...app.graph.links.values()].map((link) => {
    const { scale, offset } = app.canvas.ds;
    const place = (id, slot, isInput) => {
        const node = app.graph.getNodeById(id);
        const dot = document.querySelector(`[data-slot-key="${id}-${isInput ? "in" : "out"}-${slot}"]`);
        if (!dot) return node.getConnectionPos(isInput, slot).map((one, i) => one - node.pos[i]);
        const { x, y, width, height } = dot.getBoundingClientRect();
        return [x + width / 2, y + height / 2].map((one, i) => one / scale - offset[i] - node.pos[i]);
    };
    return [String(link.origin_id), link.origin_slot, String(link.target_id), link.target_slot,
        [place(link.origin_id, link.origin_slot, false), place(link.target_id, link.target_slot, true)]];
})"""
ARRANGE = """([places, reroutes, groups, ours, core, models, app_inputs]) => {
    for (const node of app.graph.nodes) {
        const [x, y, width, height] = places[node.id];
        node.pos = [x, y];
        node.setSize([width, height]);
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
    const links = new Map([...app.graph.links.values()].map((link) =>
        [[link.origin_id, link.origin_slot, link.target_id, link.target_slot].join(), link]));
    for (const [key, points] of reroutes) {
        for (const point of points) app.graph.createReroute(point, links.get(key.join()));
    }
    for (const { title, colour, bounds } of groups) {
        const group = new LiteGraph.LGraphGroup(title);
        group.color = colour;
        app.graph.add(group);
        group.pos = bounds.slice(0, 2);
        group.size = bounds.slice(2);
    }
    const all = (type) => app.graph.nodes.filter((node) => node.type === type).map((node) => String(node.id));
    const shown = all("SaveImage").length ? all("SaveImage") : all("PreviewAny");
    const asked = app.graph.nodes.flatMap((node) => (node.widgets ?? [])
        .filter((widget) => app_inputs[node.type]?.includes(widget.name)
            && !node.inputs.some((input) => input.widget?.name === widget.name && input.link != null))
        .map((widget) => [String(node.id), widget.name]));
    app.graph.extra.linearData = { inputs: asked, outputs: shown };
}"""
SAVE = "async () => JSON.stringify((await app.graphToPrompt()).workflow)"
# What a person sets in App mode, and nothing else: the words, the picture, another try.
APP_INPUTS = {
    "LLMGA_Chat": ["instruction", "task"],
    "LLMGA_ChatPerPicture": ["instruction"],
    "LLMGA_CaptionFolder": ["folder", "trigger_word", "exclude"],
    "LLMGA_EditInstruction": ["instruction"],
    "LLMGA_InversionEdit": ["target_prompt"],
    "LLMGA_FlowEdit": ["seed"],
    "LLMGA_Judge": ["request"],
    "LLMGA_CropEachRegion": ["instructions"],
    "LoadImage": ["image"],
    "KSampler": ["seed"],
    "RandomNoise": ["noise_seed"],
}


@dataclass(frozen=True)
class Pages:
    """The same ComfyUI twice, in its two renderers."""

    classic: Page
    nodes2: Page


def build(
    pages: Pages,
    name: str,
    prompt: dict[str, Any],
    note: str,
    version: str,
    layout: Layout | None = None,
    before: dict[str, Any] | None = None,
) -> tuple[str, Layout]:
    """The workflow as the page saves it, and where its nodes stand.

    Args:
        version: of ComfyUI, which the core's nodes then name.
        layout: of the same nodes with other values; without, the best is looked for.
        before: the workflow as it is; its nodes stay where they stand, and only its links are led anew.
    """
    if layout is None and before is not None:
        layout = standing(before)
        _, _, links = measured(
            pages, name, prompt, note, {one: box[2:] for one, box in layout.places.items()}
        )
        layout = rerouted(layout, Links(links, list(layout.places)))
    elif layout is None:
        nodes, sizes, links = measured(pages, name, prompt, note)
        (note_id,) = (str(node["id"]) for node in nodes if node["type"] == NOTE)
        layout = best_layout(grouped(nodes), note_id, sizes, links, reading_order(nodes))
    pages.classic.evaluate(LOAD, [prompt, name, note])  # without the pictures of a run
    frames = [framed(group, box) for group, box in layout.frames.items()]
    ours = {"cnr_id": "llmga", "ver": __version__}
    core = {"cnr_id": "comfy-core", "ver": version}
    models = {file: {"url": one.url, "directory": one.directory} for file, one in MODELS.items()}
    reroutes = list(layout.reroutes.items())
    pages.classic.evaluate(ARRANGE, [layout.places, reroutes, frames, ours, core, models, APP_INPUTS])
    workflow = json.loads(pages.classic.evaluate(SAVE))
    workflow["extra"].pop("ds", None)  # where this window looked; without, the page shows the whole graph
    return json.dumps(workflow, ensure_ascii=False, indent=1), layout


def standing(workflow: dict[str, Any]) -> Layout:
    """Where the nodes and groups of a workflow stand, and the ways of its links."""
    places = {str(node["id"]): (*node["pos"], *node["size"]) for node in workflow["nodes"]}
    frames = {
        Group(group["title"], group["color"], ()): tuple(group["bounding"]) for group in workflow["groups"]
    }
    return Layout(places, frames, shown_at(places.values()), 0, reroutes=ways(workflow))


def ways(workflow: dict[str, Any]) -> dict[tuple[str, int, str, int], list[Point]]:
    """The reroutes of a workflow's links from source to target, by ``Link.key``."""
    reroutes = {one["id"]: one for one in workflow["extra"].get("reroutes", [])}
    last = {one["id"]: one["parentId"] for one in workflow["extra"].get("linkExtensions", [])}
    found = {}
    for number, source, out, target, into, *_ in workflow["links"]:
        way, at = [], last.get(number)
        while at is not None:
            way.insert(0, tuple(reroutes[at]["pos"]))
            at = reroutes[at].get("parentId")
        if way:
            found[str(source), out, str(target), into] = way
    return found


def measured(
    pages: Pages,
    name: str,
    prompt: dict[str, Any],
    note: str,
    known: dict[str, tuple[float, float]] | None = None,
) -> tuple[list[dict[str, Any]], dict[str, tuple[float, float]], list[Link]]:
    """The nodes of a prompt and a note, their sizes, which are enough in both renderers, and the links at those sizes.

    Args:
        known: sizes that are not to be looked for.
    """
    both, sizes = (pages.nodes2, pages.classic), dict(known or {})
    for page in both:
        nodes = page.evaluate(LOAD, [prompt, name, note])
        for node in nodes:
            sizes.setdefault(str(node["id"]), wished(node["type"]))
        if known:
            continue
        page.evaluate(RESIZE, [sizes, PICTURES, EXAMPLE])
        page.wait_for_timeout(1000)  # pictures are loaded; Nodes 2.0 measures its rows when they are drawn
        for node_id, height in page.evaluate(HEIGHTS_NOW).items():
            width, least = sizes[node_id]
            sizes[node_id] = (width, max(least, float(round(height))))
    ends: dict[tuple[str, int, str, int], list[Any]] = {}
    for page in both:
        page.evaluate(RESIZE, [sizes, {}, EXAMPLE])
        page.wait_for_timeout(500)
        for *key, (out, into) in page.evaluate(LINKS):
            ends.setdefault(tuple(key), []).append((tuple(out), tuple(into)))
    links = [Link(a, b, (i, j), tuple(drawn)) for (a, i, b, j), drawn in ends.items()]
    return nodes, sizes, links


def wished(kind: str) -> tuple[float, float]:
    return float(WIDTHS.get(kind, WIDTH)), float(HEIGHTS.get(kind, 0))


def framed(group: Group, box: tuple[float, ...]) -> dict[str, Any]:
    return {"title": group.name, "colour": group.colour, "bounds": list(box)}
