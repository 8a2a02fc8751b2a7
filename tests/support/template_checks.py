"""What the browser tests look at in a template: whether nodes lie over each other or over links, whether it ran."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tools.comfy_server import ComfyServer

if TYPE_CHECKING:
    from playwright.sync_api import Page

SCREEN = {"width": 1920, "height": 1080}
# Every node as it is drawn, in the graph's own units: its element where there is one, else the canvas's box with its title.
BOXES = """() => app.graph.nodes.map((node) => {
    const drawn = document.querySelector(`[data-node-id="${node.id}"]`);
    const { scale, offset } = app.canvas.ds;
    if (drawn) {
        const { x, y, width, height } = drawn.getBoundingClientRect();
        return [node.title, x / scale - offset[0], y / scale - offset[1], width / scale, height / scale];
    }
    return [node.title, node.pos[0], node.pos[1] - LiteGraph.NODE_TITLE_HEIGHT,
        node.size[0], node.size[1] + LiteGraph.NODE_TITLE_HEIGHT];
})"""
# The name of every group as it is drawn, in the graph's own units.
NAMES = """() => app.graph.groups.map(({ title, pos: [x, y], font_size: size }) => {
    const pen = new OffscreenCanvas(1, 1).getContext("2d");
    pen.font = `${size}px ${LiteGraph.GROUP_FONT}`;
    const { width, actualBoundingBoxAscent: above, actualBoundingBoxDescent: below } = pen.measureText(title);
    return [title, x + 4, y + size - above, width, above + below];
})"""
# Each link is drawn once more, with the paths that the page drew it with, and it crosses a box where that has colour. The
# sides where a link's own nodes have their slots lie inside of them.
CROSSED = f"""(names) => {{
    const inside = names ? 0 : 6, slot = 24, size = 0.5;
    const nodes = ({BOXES})(), boxes = names ? ({NAMES})() : nodes;
    const all = [...nodes, ...boxes];
    const left = Math.min(...all.map((box) => box[1])), top = Math.min(...all.map((box) => box[2]));
    const right = Math.max(...all.map((box) => box[1] + box[3]));
    const bottom = Math.max(...all.map((box) => box[2] + box[4]));
    const pen = new OffscreenCanvas(Math.ceil((right - left) * size), Math.ceil((bottom - top) * size))
        .getContext("2d", {{ willReadFrequently: true }});
    const found = [];
    for (const link of app.graph.links.values()) {{
        const way = [...app.graph.reroutes.values()].filter((reroute) => reroute.linkIds.has(link.id));
        pen.reset();
        pen.setTransform(size, 0, 0, size, -left * size, -top * size);
        for (const {{ path }} of [link, ...way]) {{
            if (!path) throw new Error(`link ${{link.id}} is not drawn`);
            pen.stroke(path);
        }}
        if (names) {{
            for (const {{ pos: [x, y], constructor: {{ radius }} }} of way) {{
                pen.beginPath();
                pen.arc(x, y, radius, 0, 2 * Math.PI);
                pen.fill();
            }}
        }}
        const [source, target] = [link.origin_id, link.target_id]
            .map((id) => app.graph.nodes.findIndex((node) => node.id === id));
        boxes.forEach(([title, x, y, width, height], i) => {{
            const near = !names && i === target ? slot : inside, far = !names && i === source ? slot : inside;
            const {{ data }} = pen.getImageData((x - left + near) * size, (y - top + inside) * size,
                (width - near - far) * size, (height - 2 * inside) * size);
            const how = names ? "over the name" : "behind";
            if (data.some((one) => one)) found.push(`${{nodes[source][0]}} to ${{nodes[target][0]}} ${{how}} ${{title}}`);
        }});
    }}
    return found;
}}"""
SLACK = 1.0  # of a pixel: boxes of the page are rounded


def overlaps(page: Page) -> list[str]:
    """Pairs of nodes that lie over each other, with by how much."""
    boxes: list[list[Any]] = page.evaluate(BOXES)
    found = []
    for i, (name, x, y, w, h) in enumerate(boxes):
        for other, u, v, s, t in boxes[:i]:
            across = min(x + w, u + s) - max(x, u)
            down = min(y + h, v + t) - max(y, v)
            if across > SLACK and down > SLACK:
                found.append(f"{name} and {other}: {across:.0f} x {down:.0f}")
    return found


def links_behind(page: Page) -> list[str]:
    """Links that pass behind a node, their own among them, as the page draws both."""
    return page.evaluate(CROSSED, False)


def links_over_names(page: Page) -> list[str]:
    """Links that pass over a group's name, with a line or a reroute, as the page draws them."""
    return page.evaluate(CROSSED, True)


def drawn_by_page(page: Page) -> int:
    """How many nodes are elements of the page, as Nodes 2.0 draws them."""
    return page.locator("[data-node-id]").count()


def wait_for_history(page: Page, server: ComfyServer, prompt_id: str, seconds: float) -> dict[str, Any]:
    """The history entry of a queued prompt, once it has ended."""
    for _ in range(int(seconds * 2)):
        found = server.get(f"/history/{prompt_id}")
        if prompt_id in found:
            return found[prompt_id]
        page.wait_for_timeout(500)
    raise AssertionError(f"prompt {prompt_id} did not end within {seconds:g} s")


def screenshot(page: Page, name: str) -> None:
    """Keep what the page shows, for a person to look at, where ``LLMGA_SCREENSHOTS`` names a folder."""
    if folder := os.environ.get("LLMGA_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"{name}.png")
