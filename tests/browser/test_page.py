"""The templates and the live text in ComfyUI's own page."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from support.openai_server import OpenAIServer

from tools.comfy_server import PACK_FOLDER, ComfyServer
from tools.frontend import new_page, visit
from tools.props import SUBSTITUTES
from tools.templates import read_prompts

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Dialog, Page

PROMPTS = read_prompts()
# The page takes the template out of its address when it has opened it.
OPENED = "(count) => !location.search && app.graph.nodes.length === count"
PROMPT = "async () => (await app.graphToPrompt()).output"
BOX = "app.graph.getNodeById({}).widgets.find((one) => one.name === 'llmga_reply').element"
SUBSTITUTE = """(values) => {
    for (const node of app.graph.nodes) {
        for (const widget of node.widgets ?? []) {
            const value = values[`${node.type} ${widget.name}`];
            if (value !== undefined) widget.value = value;
        }
    }
}"""
# Only what differs is kept, so that two entries are two texts that were on the page.
WATCH = """(box) => {
    window.seen = [];
    const look = () => {
        const last = window.seen.at(-1);
        if (last?.[0] !== box.value || last?.[1] !== box.dataset.state) {
            window.seen.push([box.value, box.dataset.state]);
        }
    };
    setInterval(look, 20);
}"""
HOSTILE = (
    '<img src=x onerror="window.pwned=1"><script>window.pwned=2</script> '
    '<a href="javascript:window.pwned=3">click</a> <iframe src="http://hostile.example/"></iframe> '
    "[link](http://hostile.example/) ![picture](http://hostile.example/pixel.png) "
    "\u202egnirts desrever\u202c \x07\x1b[31m <gen_image> a </textarea><b>fox</b> "
    "<img src='http://hostile.example/a.png'> </gen_image> &lt;script&gt; done"
)
LONG = " ".join(f"word{i}" for i in range(80))
RENDERERS = {"classic": False, "Nodes 2.0": True}


@dataclass
class Seen:
    """What a page did besides showing itself."""

    errors: list[str] = field(default_factory=list)
    dialogs: list[str] = field(default_factory=list)
    hosts: set[str] = field(default_factory=set)


@contextmanager
def template(browser: Browser, server: ComfyServer, name: str) -> Iterator[tuple[Page, Seen]]:
    """The page with a template opened by its address, as a link to it does."""
    seen = Seen()
    with new_page(browser, server) as page:
        page.on("pageerror", lambda error: seen.errors.append(str(error)))
        page.on("console", lambda said: seen.errors.append(said.text) if of_the_pack(said) else None)
        page.on("dialog", lambda dialog: answer_dialog(dialog, seen))
        page.on("request", lambda request: seen.hosts.add(urlsplit(request.url).netloc))
        go(page, server, name)
        yield page, seen


def answer_dialog(dialog: Dialog, seen: Seen) -> None:
    """The page may ask before it leaves a changed workflow; any other dialog is somebody's script."""
    if dialog.type != "beforeunload":
        seen.dialogs.append(dialog.message)
    dialog.accept()


def of_the_pack(said: Any) -> bool:
    """A complaint that the extension wrote, or one about its files."""
    return said.type in ("error", "warning") and PACK_FOLDER in f"{said.text} {said.location}"


def go(page: Page, server: ComfyServer, name: str) -> None:
    visit(page, server, name)
    # The note is in the graph alone.
    page.wait_for_function(OPENED, arg=len(PROMPTS[name]) + 1)


def substitute(page: Page, **more: Any) -> None:
    """Small models and pictures in place of what the template names."""
    values = {" ".join(key): value for key, value in SUBSTITUTES.items() if key[0] != "LLMGA_Endpoint"}
    values["KSampler steps"] = 1  # the picture is not what these tests look at
    page.evaluate(SUBSTITUTE, values | {f"LLMGA_Chat {name}": value for name, value in more.items()})


def run(page: Page, server: ComfyServer) -> str:
    """Press Run; the prompt's id."""
    with page.expect_response(lambda response: response.url.endswith("/prompt")) as response:
        page.get_by_test_id("queue-button").click()
    answer = response.value.json()
    assert not answer.get("node_errors"), answer
    return answer["prompt_id"]


def classes_and_inputs(prompt: dict[str, Any]) -> dict[str, Any]:
    return {node_id: (node["class_type"], node["inputs"]) for node_id, node in prompt.items()}


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


def test_the_page_shows_the_reply_while_it_is_written_and_keeps_it(
    browser: Browser, server: ComfyServer, assistant: OpenAIServer
) -> None:
    with template(browser, server, "chat_with_endpoint") as (page, seen):
        box = BOX.format(2)
        substitute(page, seed=31)
        page.evaluate(f"() => ({WATCH})({box})")
        with assistant.replying(LONG, pace=0.02):  # a model here may be done before the page has looked twice
            entry = server.wait(run(page, server))
        reply = entry["outputs"]["2"]["text"][0]
        page.wait_for_function(f"() => {box}.dataset.state === 'done'")
        growing = [text for text, state in page.evaluate("window.seen") if state == "writing" and text]
        assert len(growing) >= 2, "the text was never seen to grow"
        assert all(len(later) > len(text) for text, later in zip(growing, growing[1:], strict=False))
        assert page.evaluate(f"{box}.value") == reply
        assert (
            page.evaluate(PROMPT)["2"]["inputs"].keys() == PROMPTS["chat_with_endpoint"]["2"]["inputs"].keys()
        )

        page.evaluate("() => app.loadGraphData(app.graph.serialize(), false, false)")  # as undo does
        assert page.evaluate(f"{box}.value") == reply

        go(page, server, "chat_with_endpoint")
        assert page.evaluate(f"[{box}.value, {box}.dataset.state ?? '']") == ["", ""]
        assert classes_and_inputs(page.evaluate(PROMPT)) == classes_and_inputs(PROMPTS["chat_with_endpoint"])
        assert seen.errors == []


@pytest.mark.parametrize("renderer", RENDERERS)
def test_a_hostile_reply_is_text(
    browser: Browser, server: ComfyServer, assistant: OpenAIServer, renderer: str
) -> None:
    server.request("/settings", {"Comfy.VueNodes.Enabled": RENDERERS[renderer]})
    with template(browser, server, "chat_with_endpoint") as (page, seen):
        substitute(page, seed=7 + RENDERERS[renderer])
        before = set(seen.hosts)
        with assistant.replying(HOSTILE, pace=0.01):
            entry = server.wait(run(page, server))
        for node_id in ("2", "3"):
            box = BOX.format(node_id)
            page.wait_for_function(f"() => {box}.dataset.state === 'done'")
            shown = page.evaluate(f"{box}.value")
            assert shown == entry["outputs"][node_id]["text"][0]
            assert "<img src=x onerror" in shown and "\u202e" in shown and "javascript:" in shown
            assert page.evaluate(f"{box}.childElementCount") == 0
            assert page.evaluate(f"{box}.isConnected")
        page.wait_for_timeout(500)
        strange = "img[src='x'], img[src*='hostile'], iframe, a[href^='javascript:'], a[href*='hostile']"
        assert page.locator(strange).count() == 0
        assert page.evaluate("window.pwned") is None
        assert (seen.dialogs, seen.errors) == ([], [])
        assert seen.hosts - before <= {urlsplit(server.url).netloc}


def test_an_error_leaves_the_unfinished_text_marked(
    browser: Browser, server: ComfyServer, assistant: OpenAIServer
) -> None:
    with template(browser, server, "chat_with_endpoint") as (page, _):
        box = BOX.format(2)
        substitute(page, seed=21)
        assistant.behave("stall")
        run(page, server)
        try:
            page.wait_for_function(f"() => {box}.dataset.state === 'writing' && {box}.value")
            server.interrupt()
            page.wait_for_function(f"() => {box}.dataset.state === 'stopped'")
        finally:
            assistant.behave("normal")
        assert page.evaluate(f"{box}.value")
        assert page.evaluate(f"{box}.getAttribute('aria-busy')") == "false"


def test_a_workflow_is_saved_without_the_reply(browser: Browser, server: ComfyServer) -> None:
    with template(browser, server, "text_to_image") as (page, _):
        page.evaluate(f"() => {{ {BOX.format(2)}.value = 'a secret word' }}")
        saved = page.evaluate("async () => (await app.graphToPrompt()).workflow")
        assert "a secret word" not in json.dumps(saved)
