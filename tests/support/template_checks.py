"""What the browser tests look at in a template: whether nodes lie over each other, how large it is shown, whether it ran."""

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
    const { scale } = app.canvas.ds;
    if (drawn) {
        const { x, y, width, height } = drawn.getBoundingClientRect();
        return [node.title, x / scale, y / scale, width / scale, height / scale];
    }
    return [node.title, node.pos[0], node.pos[1] - LiteGraph.NODE_TITLE_HEIGHT,
        node.size[0], node.size[1] + LiteGraph.NODE_TITLE_HEIGHT];
})"""
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
