"""The panel of LLMGA GILL Chat in ComfyUI's own page: words and pictures in their order, from a GILL with random weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from support.comfy_page import NODE, RENDERERS, run, substitute, template
from support.template_checks import screenshot

from tools.comfy_server import ComfyServer

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

PANEL = NODE + ".widgets.find((one) => one.name === 'llmga_panel').element"
# Of each bubble, in order: its words as text, its pictures as the folder that they are in.
ORDER = """(panel) => [...panel.querySelectorAll(".llmga-bubble")].map((bubble) => [bubble.dataset.role,
    [...bubble.querySelectorAll(".llmga-text, img, span.llmga-picture")].map((one) => one.tagName === "IMG"
        ? new URL(one.src).searchParams.get("type") : one.className === "llmga-text" ? one.textContent : "gap")])"""
SET = """([id, values]) => {
    for (const [name, value] of Object.entries(values)) {
        app.graph.getNodeById(id).widgets.find((one) => one.name === name).value = value;
    }
}"""


def order(page: Page, node_id: int) -> list[Any]:
    return page.evaluate(f"() => ({ORDER})({PANEL.format(node_id)})")


def chats(page: Page) -> list[int]:
    return page.evaluate(
        "() => app.graph.nodes.filter((one) => one.type === 'LLMGA_GILLChat').map((one) => one.id)"
    )


@pytest.mark.parametrize("renderer", RENDERERS)
def test_pictures_stand_between_the_words(browser: Browser, server: ComfyServer, renderer: str) -> None:
    """A story in two nodes: the second shows what the first said, with the picture that was painted of it."""
    server.request("/settings", {"Comfy.VueNodes.Enabled": RENDERERS[renderer]})
    with template(browser, server, "gill_story") as (page, seen):
        substitute(page)
        first, second = sorted(chats(page))
        for one in (first, second):
            page.evaluate(SET, [one, {"picture": "auto", "picture_scale": 100000.0, "min_tokens": 5}])
        assert order(page, second) == []
        entry = server.wait(run(page, server))
        page.wait_for_function(
            f"() => {PANEL.format(second)}.querySelectorAll('img.llmga-painted').length === 2"
        )
        screenshot(page, f"GILL story, {renderer}")
        said = [
            entry["outputs"][str(one)]["llmga_gill"][0]["pieces"][0]["text"].strip()
            for one in (first, second)
        ]
        bubbles = order(page, second)
        assert [role for role, _ in bubbles] == ["user", "assistant"] * 2
        assert [parts for role, parts in bubbles if role == "assistant"] == [
            [said[0], "temp"],
            [said[1], "output"],
        ]
        assert bubbles[2][1][0] == "temp", "the picture that the second message shows"
        assert order(page, first) == bubbles[:2]
        assert seen.errors == []
        # A picture of the next run replaces that of this one; the words stay where they are.
        page.evaluate(SET, [9, {"seed": 7}])
        server.wait(run(page, server))
        page.wait_for_timeout(500)
        assert [role for role, _ in order(page, second)] == ["user", "assistant"] * 2
        assert [parts[1:] for role, parts in order(page, second) if role == "assistant"] == [
            ["temp"],
            ["output"],
        ]


def test_a_gap_stays_where_nothing_is_painted(browser: Browser, server: ComfyServer) -> None:
    """Events as they come, of words and records that nobody should trust."""
    with template(browser, server, "gill_story") as (page, seen):
        one = sorted(chats(page))[0]
        told = {
            "asked": {"text": "<img src=x onerror=alert(1)>", "images": ["../../secret", "f" * 64]},
            "pieces": [
                {"text": "before"},
                {"source": "generate", "probability": 0.87, "images": []},
                {"text": "after"},
                {"source": "elsewhere", "probability": 1, "images": []},
                {"source": "retrieve", "probability": "1", "images": ["x"]},
                7,
            ],
            "remarks": ["found a.png, score 0.5"],
            "notes": ["a note", {}],
        }
        send = """([id, kind, detail]) => {
            const about = { node: String(id), display_node: String(id), prompt_id: "p" };
            app.api.dispatchCustomEvent(kind, { ...about, ...detail });
        }"""
        page.evaluate(send, [one, "llmga.text", {"text": "once upon [IMG0][IMG1] a time"}])
        assert order(page, one)[-1] == ["assistant", ["once upon … a time"]]
        page.evaluate(send, [one, "executed", {"output": {"llmga_gill": [told]}}])
        (asked, answered) = order(page, one)
        assert answered == ["assistant", ["before", "gap", "after"]]
        assert told["asked"]["text"] in asked[1]
        shown = page.evaluate(f"() => {PANEL.format(one)}.textContent")
        assert "87 %" in shown and "found a.png, score 0.5" in shown and "a note" in shown
        assert (seen.dialogs, seen.errors) == ([], [])
