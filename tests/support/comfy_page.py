"""ComfyUI's page for the browser tests: a template opened in it, a run started, the panel of a chat node read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tools.comfy_server import PACK_FOLDER, ComfyServer
from tools.frontend import new_page, visit
from tools.props import SUBSTITUTES
from tools.template_list import TEMPLATES
from tools.templates import read_prompts

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Dialog, Page

PROMPTS = read_prompts()
RENDERERS = {"classic": False, "Nodes 2.0": True}
# The page takes the template out of its address when it has opened it.
OPENED = "(count) => !location.search && app.graph.nodes.length === count"
PROMPT = "async () => (await app.graphToPrompt()).output"
# The page's answer to a test that waits for its graph.
ASKED_TOO_EARLY = "ComfyApp graph accessed before initialization"
# By the text of its id: newer frontends give new nodes ids that are no plain numbers.
NODE = "app.graph.nodes.find((node) => String(node.id) === '{}')"
PANEL = NODE + ".widgets.find((one) => one.name === 'llmga_panel').element"
SUBSTITUTE = """(values) => {
    for (const node of app.graph.nodes) {
        for (const widget of node.widgets ?? []) {
            const value = values[`${node.type} ${widget.name}`];
            if (value !== undefined) widget.value = value;
        }
    }
}"""
# What each bubble says, without the labels and buttons around it.
BUBBLES = """(panel) => [...panel.querySelectorAll(".llmga-bubble")].map((bubble) => [bubble.dataset.role,
    [...bubble.querySelectorAll(".llmga-said .llmga-text")].map((line) => line.textContent).join("\\n\\n")])"""


@dataclass
class Seen:
    """What a page did besides showing itself."""

    errors: list[str] = field(default_factory=list)
    """What the pack is to blame for."""
    console: list[str] = field(default_factory=list)
    """Every error that the console shows, but for files that are not there."""
    dialogs: list[str] = field(default_factory=list)
    hosts: set[str] = field(default_factory=set)


@contextmanager
def template(browser: Browser, server: ComfyServer, name: str) -> Iterator[tuple[Page, Seen]]:
    """The page with a template opened by its address, as a link to it does."""
    with new_page(browser, server) as page:
        seen = watch(page)
        go(page, server, name)
        yield page, seen


def watch(page: Page) -> Seen:
    seen = Seen()
    page.on("pageerror", lambda error: seen.errors.append(str(error)))
    page.on("console", lambda said: hear(said, seen))
    page.on("dialog", lambda dialog: answer_dialog(dialog, seen))
    page.on("request", lambda request: seen.hosts.add(urlsplit(request.url).netloc))
    return seen


def hear(said: Any, seen: Seen) -> None:
    if said.type in ("error", "warning") and PACK_FOLDER in f"{said.text} {said.location}":
        seen.errors.append(said.text)
    if said.type == "error" and not said.text.startswith(("Failed to load resource", ASKED_TOO_EARLY)):
        seen.console.append(said.text)


def answer_dialog(dialog: Dialog, seen: Seen) -> None:
    """The page may ask before it leaves a changed workflow; any other dialog is somebody's script."""
    if dialog.type != "beforeunload":
        seen.dialogs.append(dialog.message)
    dialog.accept()


def go(page: Page, server: ComfyServer, name: str) -> None:
    visit(page, server, TEMPLATES[name].title)
    # The note is in the graph alone.
    page.wait_for_function(OPENED, arg=len(PROMPTS[name]) + 1)


def substitute(page: Page, **more: Any) -> None:
    """Small models and pictures in place of what the template names."""
    values = {" ".join(key): value for key, value in SUBSTITUTES.items() if key[0] != "LLMGA_Endpoint"}
    values["KSampler steps"] = 1  # the picture is not what these tests look at
    page.evaluate(SUBSTITUTE, values | {f"LLMGA_Chat {name}": value for name, value in more.items()})


def run(page: Page, server: ComfyServer) -> str:
    """Press Run; the prompt's id."""
    return queued(page, lambda: page.get_by_test_id("queue-button").click())


def queued(page: Page, action: Any) -> str:
    """The id of the prompt that an action queues."""
    with page.expect_response(lambda response: response.url.endswith("/prompt")) as response:
        action()
    answer = response.value.json()
    assert not answer.get("node_errors"), answer
    return answer["prompt_id"]


def bubbles(page: Page, node_id: int | str) -> list[list[str]]:
    """[role, text] of each bubble."""
    return page.evaluate(f"() => ({BUBBLES})({PANEL.format(node_id)})")


def press(page: Page, node_id: int | str, action: str, which: int = -1) -> None:
    """Press a button of a panel, the last one of its kind unless told."""
    buttons = f"[...{PANEL.format(node_id)}.querySelectorAll('[data-action={action}]')]"
    page.evaluate(f"() => {buttons}.at({which}).click()")


def write(page: Page, node_id: int | str, text: str) -> None:
    """Write a message into a panel and press Enter."""
    page.evaluate(  # a node that is out of sight cannot have the focus
        f"""(text) => {{
            const box = {PANEL.format(node_id)}.querySelector("textarea");
            box.value = text;
            box.dispatchEvent(new KeyboardEvent("keydown", {{ key: "Enter", bubbles: true, cancelable: true }}));
        }}""",
        text,
    )


def wait_done(page: Page, node_id: int | str, state: str = "done") -> None:
    page.wait_for_function(f"() => {PANEL.format(node_id)}.dataset.state === '{state}'")


def widget(page: Page, node_id: int | str, name: str) -> Any:
    return page.evaluate(
        "([id, name]) => app.graph.getNodeById(id).widgets.find((one) => one.name === name).value",
        [node_id, name],
    )


def draft(page: Page, node_id: int | str, text: str) -> None:
    """Write into a panel and leave it there."""
    page.evaluate(
        f"""(text) => {{
            const box = {PANEL.format(node_id)}.querySelector("textarea");
            box.value = text;
            box.dispatchEvent(new Event("input", {{ bubbles: true }}));
        }}""",
        text,
    )


def with_defaults(prompt: dict[str, Any], infos: dict[str, Any]) -> dict[str, Any]:
    """An API prompt with the values that it may leave out, as the page writes them."""
    filled = {}
    for node_id, node in prompt.items():
        optional = infos[node["class_type"]]["input"].get("optional", {})
        usual = {
            name: spec[1]["default"]
            for name, spec in optional.items()
            if "default" in (spec[1] if len(spec) > 1 else {})
        }
        filled[node_id] = {**node, "inputs": {**usual, **node["inputs"]}}
    return filled


def classes_and_inputs(prompt: dict[str, Any]) -> dict[str, Any]:
    return {node_id: (node["class_type"], node["inputs"]) for node_id, node in prompt.items()}
