"""The chat panel while the page does other things: a run that is refused, another workflow, Undo, a lost connection."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from support.comfy_page import (
    PANEL,
    bubbles,
    draft,
    press,
    queued,
    substitute,
    template,
    wait_done,
    widget,
    write,
)
from support.openai_server import OpenAIServer

from tools.comfy_server import PACK_FOLDER, ComfyServer
from tools.frontend import OPEN
from tools.template_list import TEMPLATES

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

NAME = "chat_with_endpoint"
FIRST = PANEL.format(2)
LONG = " ".join(f"word{i}" for i in range(80))
WRITTEN = [["user", "slowly"], ["assistant", LONG]]
OTHER_TAB = "(which) => app.extensionManager.command.execute(`Workspace.${which}OpenedWorkflow`)"


def say(request: dict[str, Any]) -> str:
    said = [one["content"] for one in request["messages"] if one["role"] == "user"]
    return f"Answer {len(said)} with seed {request['seed']}. <gen_image> painted {said[-1]} </gen_image>"


def ask(page: Page, server: ComfyServer, text: str) -> None:
    server.wait(queued(page, lambda: write(page, 2, text)))
    wait_done(page, 2)


@contextmanager
def slow_reply(page: Page, assistant: OpenAIServer, seed: int) -> Iterator[str]:
    """The chat writes a reply of some seconds meanwhile; gives the id of its prompt."""
    substitute(page, seed=seed, task="chat")
    with assistant.replying(LONG, pace=0.05):
        prompt_id = queued(page, lambda: write(page, 2, "slowly"))
        page.wait_for_function(f"() => {FIRST}.dataset.state === 'writing'")
        yield prompt_id


def test_a_run_that_is_refused_leaves_no_chat_waiting(
    browser: Browser, server: ComfyServer, assistant: OpenAIServer
) -> None:
    with template(browser, server, NAME) as (page, seen), assistant.replying(say):
        substitute(page, seed=60, task="chat")
        ask(page, server, "begin")
        draft(page, 2, "go on")
        page.evaluate("() => app.graph.remove(app.graph.getNodeById(1))")  # the endpoint of all chats
        with page.expect_response(lambda response: response.url.endswith("/prompt")) as response:
            page.get_by_test_id("queue-button").click()
        assert response.value.status == 400
        wait_done(page, 2, "")
        assert widget(page, 2, "instruction") == "go on"
        assert bubbles(page, 2) == [
            ["user", "begin"],
            ["assistant", "Answer 1 with seed 60.\n\npainted begin"],
        ]
        assert seen.errors == []


def test_a_reply_belongs_to_the_workflow_that_asked_for_it(
    browser: Browser, server: ComfyServer, assistant: OpenAIServer
) -> None:
    """Two workflows of one template have nodes of the same numbers."""
    with template(browser, server, NAME) as (page, seen):
        with slow_reply(page, assistant, seed=61) as prompt_id:
            open_again(page, server)
            page.evaluate(
                f"() => {{ window.states = new Set(); setInterval(() => window.states.add({FIRST}.dataset.state), 20); }}"
            )
            server.wait(prompt_id)
        page.wait_for_timeout(500)
        assert bubbles(page, 2) == [] and page.evaluate("[...window.states]") == [""]
        page.evaluate(OTHER_TAB, "Previous")
        page.wait_for_function(f"() => {FIRST}?.dataset.state === 'done'")
        assert bubbles(page, 2) == WRITTEN
        assert seen.errors == []


def test_an_edited_prompt_survives_another_tab_and_undo(
    browser: Browser, server: ComfyServer, assistant: OpenAIServer
) -> None:
    """ComfyUI gives the nodes their outputs back, and with them the reply that was there before."""
    with template(browser, server, NAME) as (page, seen), assistant.replying(say):
        substitute(page, seed=62, task="chat")
        ask(page, server, "begin")
        press(page, 2, "editPrompt")
        page.evaluate(f"{FIRST}.querySelector('.llmga-rewrite').value = 'a blue fox'")
        press(page, 2, "usePrompt")
        edited = [["user", "begin"], ["assistant", "Answer 1 with seed 62.\n\na blue fox"]]
        assert bubbles(page, 2) == edited
        open_again(page, server)
        page.evaluate(OTHER_TAB, "Previous")
        page.wait_for_function(f"() => {FIRST}?.dataset.state === 'done'")
        page.wait_for_timeout(500)
        assert bubbles(page, 2) == edited and "a blue fox" in widget(page, 2, "edited_reply")
        press(page, 2, "clear")
        keep = "() => app.extensionManager.workflow.activeWorkflow.changeTracker.captureCanvasState()"
        page.evaluate(keep)  # a step of its own, where the frontend has not taken it as one yet
        page.evaluate("() => { app.graph.getNodeById(3).pos[0] += 50; }")
        page.evaluate(keep)
        page.evaluate("() => app.extensionManager.workflow.activeWorkflow.changeTracker.undo()")
        page.wait_for_timeout(500)
        assert bubbles(page, 2) == [], "what was cleared stays cleared"
        assert seen.errors == []


def test_a_branch_in_a_subgraph_has_what_the_first_has(browser: Browser, server: ComfyServer) -> None:
    with template(browser, server, NAME) as (page, seen):
        before, after = page.evaluate(
            """async () => {
                const chat = app.graph.getNodeById(2);
                const settled = [{ role: "user", text: "a", images: [] }, { role: "assistant", text: "b", images: [] }];
                chat.widgets.find((one) => one.name === "transcript").value = JSON.stringify(settled);
                const { subgraph } = app.graph.convertToSubgraph(new Set([chat]));
                app.canvas.setGraph(subgraph);
                const named = (slots, isWired) => slots.filter((_, slot) => isWired(slot)).map(({ name }) => name);
                const wires = (node) => [named(node.inputs, (slot) => node.isInputConnected(slot)),
                    named(node.outputs, (slot) => node.isOutputConnected(slot))];
                const [first] = subgraph.nodes;
                const before = wires(first);
                const panel = first.widgets.find((one) => one.name === "llmga_panel").element;
                [...panel.querySelectorAll("[data-action=branch]")].at(-1).click();
                while (subgraph.nodes.length < 2) await new Promise((resolve) => setTimeout(resolve, 50));
                return [before, [wires(first), wires(subgraph.nodes[1])]];
            }"""
        )
        assert before[0] and before[1]
        assert after == [[before[0], []], before]
        assert seen.errors == []


def test_a_reply_that_ended_without_a_connection_is_fetched(
    browser: Browser, server: ComfyServer, assistant: OpenAIServer
) -> None:
    with template(browser, server, NAME) as (page, seen):
        with slow_reply(page, assistant, seed=63) as prompt_id:
            page.evaluate(
                """() => { window.WebSocket = class extends WebSocket {
                    constructor(...values) { super(...(window.cut ? ["ws://127.0.0.1:9"] : values)); } };
                    window.cut = true;
                    app.api.socket.close(); }"""
            )
            wait_done(page, 2, "stopped")
            server.wait(prompt_id)
        page.evaluate("() => (window.cut = false)")
        wait_done(page, 2)
        assert bubbles(page, 2) == WRITTEN
        assert seen.errors == []


def open_again(page: Page, server: ComfyServer) -> None:
    """The same template in another tab of the page."""
    title = TEMPLATES[NAME].title
    page.evaluate(OPEN, [f"/api/workflow_templates/{PACK_FOLDER}/{quote(title)}.json", title])
    page.wait_for_function("() => app.extensionManager.workflow.openWorkflows.length > 1")
