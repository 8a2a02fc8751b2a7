"""The templates in ComfyUI's own page."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.comfy_page import PROMPT, PROMPTS, classes_and_inputs, template

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
        assert classes_and_inputs(found) == classes_and_inputs(PROMPTS[name])
        assert page.evaluate("() => app.graph.nodes.filter((node) => node.has_errors).length") == 0
        assert (dialogs, seen.dialogs, seen.errors) == ([], [], [])
