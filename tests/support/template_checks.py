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
# Each link is drawn once more, with the paths that the page drew it with, and a node covers it where its box has colour.
# The sides where a link's own nodes have their slots lie inside of them.
BEHIND = f"""() => {{
    const inside = 6, slot = 24, size = 0.5;
    const boxes = ({BOXES})();
    const left = Math.min(...boxes.map((box) => box[1])), top = Math.min(...boxes.map((box) => box[2]));
    const right = Math.max(...boxes.map((box) => box[1] + box[3]));
    const bottom = Math.max(...boxes.map((box) => box[2] + box[4]));
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
        const ends = [link.origin_id, link.target_id].map((id) => app.graph.nodes.findIndex((node) => node.id === id));
        boxes.forEach(([title, x, y, width, height], i) => {{
            const near = i === ends[1] ? slot : inside, far = i === ends[0] ? slot : inside;
            const {{ data }} = pen.getImageData((x - left + near) * size, (y - top + inside) * size,
                (width - near - far) * size, (height - 2 * inside) * size);
            if (data.some((one) => one)) found.push(`${{boxes[ends[0]][0]}} to ${{boxes[ends[1]][0]}} behind ${{title}}`);
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
    return page.evaluate(BEHIND)


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
