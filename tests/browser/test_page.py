"""The templates in ComfyUI's own page."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.comfy_page import PROMPT, PROMPTS, classes_and_inputs, template, with_defaults

from tools.comfy_server import ComfyServer

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.mark.parametrize("name", PROMPTS)
def test_a_template_opens_whole_and_means_its_api_prompt(
    browser: Browser, server: ComfyServer, name: str
) -> None:
    with template(browser, server, name) as (page, seen):
        found = page.evaluate(PROMPT)
        page.wait_for_timeout(300)  # a complaint about missing nodes or models comes after the graph
        dialogs = page.locator("[role=dialog]:visible").all_inner_texts()
        assert classes_and_inputs(found) == classes_and_inputs(
            with_defaults(PROMPTS[name], server.object_info())
        )
        assert page.evaluate("() => app.graph.nodes.filter((node) => node.has_errors).length") == 0
        assert (dialogs, seen.dialogs, seen.errors) == ([], [], [])


@pytest.mark.parametrize("mode", [2, 4], ids=["muted", "bypassed"])
def test_a_chat_that_is_muted_or_bypassed_hands_its_words_on(
    browser: Browser, server: ComfyServer, mode: int
) -> None:
    """In ComfyUI's own page, where the prompt is made that goes to the server."""
    with template(browser, server, "text_to_image") as (page, seen):
        instruction, prompt = page.evaluate(
            """async (mode) => {
                const chat = app.graph.nodes.find((node) => node.type === "LLMGA_Chat");
                chat.mode = mode;
                const { output } = await app.graphToPrompt();
                return [chat.widgets.find((one) => one.name === "instruction").value, output];
            }""",
            mode,
        )
        encoders = [node for node in prompt.values() if node["class_type"] == "LLMGA_LongCLIPEncode"]
        assert [node["inputs"]["text"] for node in encoders] == [instruction] and instruction
        assert "LLMGA_Chat" not in {node["class_type"] for node in prompt.values()}
        assert seen.errors == []
