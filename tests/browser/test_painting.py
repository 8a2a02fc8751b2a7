"""The chat panel paints: pictures under the turn that made them, drafts, edited prompts; its width beside a side panel."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from support.comfy_page import (
    NODE,
    PANEL,
    PROMPTS,
    RENDERERS,
    draft,
    press,
    queued,
    run,
    substitute,
    template,
    widget,
)

from tools.comfy_server import ComfyServer

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

SHAPE = """([panel, node]) => ({ panel: Math.round(panel.getBoundingClientRect().width / app.canvas.ds.scale),
    node: Math.round(node.size[0]),
    listed: [...document.querySelectorAll("[data-testid=properties-panel] *")].some((one) =>
        one.childElementCount === 0 && one.checkVisibility() && (one.textContent.includes("llmga_")
            || one.textContent === node.widgets.find(({ name }) => name === "llmga_panel").label)),
    side: document.querySelector("[data-testid=properties-panel]") !== null })"""


@pytest.mark.parametrize("renderer", RENDERERS)
def test_the_panel_paints(browser: Browser, server: ComfyServer, renderer: str) -> None:
    """Send and paint, a draft that Run takes along, an edited prompt, and the width beside the side panel."""
    closed = {"Comfy.RightSidePanel.IsOpen": False}
    server.request("/settings", {"Comfy.VueNodes.Enabled": RENDERERS[renderer], **closed})
    with template(browser, server, "text_to_image") as (page, seen):
        substitute(page, seed=3, max_new_tokens=16)
        (chat,) = [
            one for one, node in PROMPTS["text_to_image"].items() if node["class_type"] == "LLMGA_Chat"
        ]
        panel = PANEL.format(chat)
        painted = f"[...{panel}.querySelectorAll('[data-turn]')].map((one) => one.querySelectorAll('.llmga-painted').length)"
        instruction = widget(page, chat, "instruction")
        assert page.evaluate(f"{panel}.querySelector('textarea').value") == instruction

        server.wait(queued(page, lambda: press(page, chat, "paint")))
        page.wait_for_function(f"() => {painted}.join() === '0,1'")

        # The same once more: every result is cached, and comes before the page knows the prompt's id.
        press(page, chat, "clear")
        draft(page, chat, instruction)
        server.wait(queued(page, lambda: press(page, chat, "paint")))
        page.wait_for_function(f"() => {painted}.join() === '0,1'")
        assert widget(page, chat, "instruction") == instruction and widget(page, chat, "transcript") == ""

        draft(page, chat, "at night")
        server.wait(run(page, server))
        page.wait_for_function(f"() => {painted}.join() === '0,1,0,1'")
        assert widget(page, chat, "instruction") == "at night" and widget(page, chat, "task") == "change"
        assert [turn["role"] for turn in json.loads(widget(page, chat, "transcript"))] == [
            "user",
            "assistant",
        ]

        press(page, chat, "editPrompt")
        page.evaluate(f"{panel}.querySelector('.llmga-rewrite').value = 'a blue fox'")
        press(page, chat, "usePrompt")
        entry = server.wait(queued(page, lambda: press(page, chat, "paint")))
        assert entry["outputs"][chat]["llmga_chat"][0]["prompts"] == ["a blue fox"]
        page.wait_for_function(f"() => {painted}.join() === '0,1,0,1'")  # of the edited reply
        press(page, chat, "previous")
        page.wait_for_function(f"() => {painted}.join() === '0,1,0,1'")  # of the model's own

        # It keeps the width of its node beside the side panel, which does not list it.
        show_whole(page, chat)
        shape = f"() => ({SHAPE})([{panel}, {NODE.format(chat)}])"
        before = page.evaluate(shape)
        assert not before["listed"] and not before["side"]
        assert before["node"] - 40 <= before["panel"] <= before["node"]
        page.evaluate(f"() => app.canvas.selectNode({NODE.format(chat)})")
        page.get_by_label("Toggle properties panel").first.click()
        page.get_by_test_id("properties-panel").wait_for()
        page.wait_for_timeout(500)  # it draws what it lists
        assert page.evaluate(shape) == {**before, "side": True}
        assert page.get_by_test_id("properties-panel").get_by_text("task", exact=True).count()
        assert seen.errors == []


def test_the_sidebar_shows_the_conversation_and_chooses_its_task(
    browser: Browser, server: ComfyServer
) -> None:
    with template(browser, server, "chat_with_endpoint") as (page, seen):
        page.evaluate("() => app.extensionManager.sidebarTab.toggleSidebarTab('llmga')")
        sidebar = page.locator(".llmga-sidebar")
        sidebar.wait_for()
        which, task = sidebar.get_by_label("Conversation of"), sidebar.get_by_label("Task")
        assert which.locator("option").all_inner_texts() == ["First turn #2", "Second turn #3"]
        which.select_option("0")
        assert task.input_value() == widget(page, 2, "task") == "refine"
        task.select_option("poster")
        assert (widget(page, 2, "task"), widget(page, 3, "task")) == ("poster", "change")
        assert seen.errors == []


def show_whole(page: Page, node_id: str) -> None:
    page.evaluate(
        f"""() => {{
            const [node, canvas] = [{NODE.format(node_id)}, app.canvas];
            canvas.ds.scale = 0.8;
            canvas.ds.offset = [200 - node.pos[0], 120 - node.pos[1]];
            canvas.setDirty(true, true);
        }}"""
    )
    page.wait_for_timeout(500)
