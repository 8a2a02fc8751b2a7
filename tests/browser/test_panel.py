"""The chat panel in ComfyUI's own page: what it shows, what it does to the graph, and what hostile text does to it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from support.comfy_page import (
    PANEL,
    PROMPT,
    PROMPTS,
    RENDERERS,
    bubbles,
    classes_and_inputs,
    press,
    queued,
    run,
    substitute,
    template,
    wait_done,
    watch,
    widget,
    write,
)
from support.hostile import HOST, HOSTILE
from support.openai_server import OpenAIServer
from support.replies import REPLIES, check_split

from tools.comfy_server import ComfyServer
from tools.frontend import new_page, visit

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

LONG = " ".join(f"word{i}" for i in range(80))
MAX_BUBBLE = 20_000  # web/js/chat/limits.js
FIRST = PANEL.format(2)
# Only what differs is kept, so that two entries are two texts that were on the page.
WATCH = """(panel) => {
    window.seen = [];
    setInterval(() => {
        const text = [...panel.querySelectorAll("[data-state] .llmga-text")].map((line) => line.textContent).join("|");
        const state = panel.dataset.state;
        const last = window.seen.at(-1);
        if (last?.[0] !== text || last?.[1] !== state) window.seen.push([text, state]);
    }, 20);
}"""


# Pairs of nodes that lie over each other, titles included.
OVERLAPS = """() => {
    const boxes = app.graph.nodes.map((one) => [one.title, one.pos[0], one.pos[1] - 30, one.size[0], one.size[1] + 30]);
    return boxes.flatMap(([a, x, y, w, h], i) => boxes.slice(0, i)
        .filter(([, u, v, s, t]) => x < u + s && u < x + w && y < v + t && v < y + h).map(([b]) => `${a} ${b}`));
}"""


def say(request: dict[str, Any]) -> str:
    """A reply that tells which message it answers, and how many there were."""
    said = [one["content"] for one in request["messages"] if one["role"] == "user"]
    return (
        f"Answer {len(said)} with seed {request['seed']}. <gen_image> painted {said[-1][-12:]} </gen_image>"
    )


def test_the_panel_holds_a_conversation(
    browser: Browser, server: ComfyServer, assistant: OpenAIServer
) -> None:
    """Stream, go on, regenerate, edit, branch, clear; then the page is closed and opened again."""
    with template(browser, server, "chat_with_endpoint") as (page, seen), assistant.replying(say):
        substitute(page, seed=40, task="chat")
        page.evaluate(f"() => ({WATCH})({FIRST})")

        # Stream: Enter asks this node alone, and the text grows.
        with assistant.replying(LONG, pace=0.03):
            entry = server.wait(queued(page, lambda: write(page, 2, "tell me")))
            wait_done(page, 2)
        assert entry["outputs"].keys() == {"2"}
        assert bubbles(page, 2) == [["user", "tell me"], ["assistant", LONG]]
        growing = [text for text, state in page.evaluate("window.seen") if state == "writing" and text]
        assert len(growing) >= 2, "the text was never seen to grow"
        assert all(len(later) > len(text) for text, later in zip(growing, growing[1:], strict=False))
        assert widget(page, 2, "instruction") == "tell me" and widget(page, 2, "transcript") == ""

        # Go on: what was said is settled in the widget, and the model hears all of it.
        server.wait(queued(page, lambda: write(page, 2, "and more")))
        wait_done(page, 2)
        settled = json.loads(widget(page, 2, "transcript"))
        assert [turn["text"] for turn in settled] == ["tell me", LONG]
        heard = [one["content"] for one in assistant.requests[-1].body["messages"][1:]]
        assert heard == ["tell me", LONG, "and more"]
        assert bubbles(page, 2)[-1] == ["assistant", "Answer 2 with seed 40.\n\npainted and more"]
        assert (
            page.evaluate(f"{FIRST}.querySelector('.llmga-prompt .llmga-text').textContent")
            == "painted and more"
        )

        # Regenerate: the next seed, nothing else.
        server.wait(queued(page, lambda: press(page, 2, "regenerate")))
        wait_done(page, 2)
        assert widget(page, 2, "seed") == 41 and "seed 41" in bubbles(page, 2)[-1][1]
        assert json.loads(widget(page, 2, "transcript")) == settled

        # Compare: what is new against the words that were asked.
        press(page, 2, "compare")
        marks = page.evaluate(
            f"[...{FIRST}.querySelectorAll('.llmga-compare mark')].map((one) => one.textContent)"
        )
        assert marks == ["painted"]

        # Back to the reply before, which is then used without asking; and to the new one, which is asked for.
        press(page, 2, "previous")
        assert "seed 40" in bubbles(page, 2)[-1][1] and "seed 40" in widget(page, 2, "edited_reply")
        press(page, 2, "following")
        assert "seed 41" in bubbles(page, 2)[-1][1] and widget(page, 2, "edited_reply") == ""

        # Branch from the first answer: a second node with the same engine, and the first is untouched.
        before = page.evaluate(PROMPT)["2"]
        press(page, 2, "branch", 1)
        page.wait_for_function(
            "(count) => app.graph.nodes.length === count", arg=len(PROMPTS["chat_with_endpoint"]) + 2
        )
        prompt = page.evaluate(PROMPT)
        assert prompt["2"] == before
        assert page.evaluate(OVERLAPS) == []
        (branch,) = prompt.keys() - PROMPTS["chat_with_endpoint"].keys()
        assert prompt[branch]["inputs"]["engine"] == before["inputs"]["engine"]
        assert prompt["3"]["inputs"]["history"] == [branch, 4]  # what followed the first follows the branch
        assert json.loads(prompt[branch]["inputs"]["transcript"]) == settled
        server.wait(queued(page, lambda: write(page, branch, "another way")))
        wait_done(page, branch)
        assert [text for _, text in bubbles(page, branch)][
            -1
        ] == "Answer 2 with seed 41.\n\npainted another way"
        assert bubbles(page, 2)[-2] == ["user", "and more"]

        # Edit: the message is said anew and what came after it goes.
        press(page, branch, "edit", 0)
        assert page.evaluate(f"{PANEL.format(branch)}.querySelector('textarea').value") == "tell me"
        server.wait(queued(page, lambda: write(page, branch, "tell us")))
        wait_done(page, branch)
        assert widget(page, branch, "transcript") == ""
        expected = ["tell us", "Answer 1 with seed 41.\n\npainted tell us"]
        assert [text for _, text in bubbles(page, branch)] == expected

        # Opened again, all of it is there.
        shown = {node_id: bubbles(page, node_id) for node_id in ("2", branch)}
        meant = classes_and_inputs(page.evaluate(PROMPT))
        page.wait_for_timeout(1500)  # the page saves its draft after a while
        page.reload()
        page.wait_for_function("(count) => window.app?.graph?.nodes?.length === count", arg=len(meant) + 1)
        page.wait_for_function(f"() => {FIRST}.dataset.state === 'done'")
        assert {node_id: bubbles(page, node_id) for node_id in ("2", branch)} == shown
        assert classes_and_inputs(page.evaluate(PROMPT)) == meant

        # Clear: a new conversation.
        press(page, 2, "clear")
        assert (widget(page, 2, "transcript"), widget(page, 2, "instruction"), bubbles(page, 2)) == (
            "",
            "",
            [],
        )
        assert (seen.errors, seen.dialogs) == ([], [])


def test_a_saved_picture_brings_the_conversation_back(
    browser: Browser, server: ComfyServer, assistant: OpenAIServer
) -> None:
    with template(browser, server, "chat_many_turns") as (page, _), assistant.replying(say):
        substitute(page, seed=50)
        settled = bubbles(page, 2)
        assert [role for role, _ in settled] == ["user", "assistant"] * 2
        meant = classes_and_inputs(page.evaluate(PROMPT))  # the sampler's seed is another after each run
        entry = server.wait(run(page, server))
        wait_done(page, 2)
        shown = bubbles(page, 2)
        assert shown[:4] == settled and len(shown) == 6 and shown[-1][1].startswith("Answer 3")
    (saver,) = (
        node_id for node_id, node in PROMPTS["chat_many_turns"].items() if node["class_type"] == "SaveImage"
    )
    (picture,) = entry["outputs"][saver]["images"]
    with new_page(browser, server) as page:
        seen = watch(page)
        visit(page, server)
        page.evaluate(
            """async ([filename, subfolder, type]) => {
                const answer = await fetch(`/view?${new URLSearchParams({ filename, subfolder, type })}`);
                await app.handleFile(new File([await answer.blob()], filename, { type: "image/png" }));
            }""",
            [picture["filename"], picture["subfolder"], picture["type"]],
        )
        page.wait_for_function("(count) => app.graph.nodes.length === count", arg=len(meant) + 1)
        wait_done(page, 2)
        assert bubbles(page, 2) == shown
        assert classes_and_inputs(page.evaluate(PROMPT)) == meant
        assert seen.errors == []


@pytest.mark.parametrize("renderer", RENDERERS)
def test_fifty_hostile_replies_are_text(
    browser: Browser, server: ComfyServer, assistant: OpenAIServer, renderer: str
) -> None:
    """Each is streamed, shown and then kept; in Nodes 2.0 all are kept turns of a stranger's workflow."""
    assert len(HOSTILE) == 50
    server.request("/settings", {"Comfy.VueNodes.Enabled": RENDERERS[renderer]})
    with template(browser, server, "chat_with_endpoint") as (page, seen):
        assert page.get_by_text("transcript", exact=True).count() == 0  # the panel shows it
        before = set(seen.hosts)
        seen.console.clear()
        if renderer == "classic":
            substitute(page, seed=1000, task="chat", instruction="hello")
            for payload in HOSTILE:
                with assistant.replying(payload):
                    server.wait(queued(page, lambda: press(page, 2, "regenerate")))
                wait_done(page, 2)
                assert bubbles(page, 2) == [["user", "hello"], ["assistant", payload[:MAX_BUBBLE]]]
                harmless(page)
        turns = [
            {"role": role, "text": text, "images": [text]}
            for text in HOSTILE
            for role in ("user", "assistant")
        ]
        page.evaluate(
            """([turns]) => { const node = app.graph.getNodeById(2);
                node.properties.llmga_chat = { exchange: turns.slice(0, 2), earlier: turns, omitted: "<b>" };
                const widget = node.widgets.find((one) => one.name === "transcript");
                widget.value = JSON.stringify(turns);
                app.loadGraphData(app.graph.serialize(), false, false); }""",
            [turns],
        )
        page.wait_for_function(f"() => {FIRST}.querySelectorAll('.llmga-bubble').length > 200")
        texts = [text[:MAX_BUBBLE] for text in HOSTILE for _ in range(2)]
        assert [text for _, text in bubbles(page, 2)] == [*texts, *texts, *texts[:2]]
        harmless(page)
        page.wait_for_timeout(500)
        assert (seen.dialogs, seen.errors, seen.console) == ([], [], [])
        assert seen.hosts - before <= {urlsplit(server.url).netloc}


def harmless(page: Page) -> None:
    strange = f"img[src='x'], [src*='{HOST}'], [href*='{HOST}'], [href^='javascript:'], iframe, object, embed, marquee"
    assert page.evaluate("(strange) => document.querySelectorAll(strange).length", strange) == 0
    assert page.evaluate("window.pwned") is None
    elements = (
        f"[...{FIRST}.querySelectorAll('.llmga-text')].reduce((sum, line) => sum + line.childElementCount, 0)"
    )
    assert page.evaluate(elements) == 0


def test_stop_leaves_the_unfinished_text_marked(
    browser: Browser, server: ComfyServer, assistant: OpenAIServer
) -> None:
    with template(browser, server, "chat_with_endpoint") as (page, _):
        substitute(page, seed=21)
        assistant.behave("stall")
        run(page, server)
        try:
            page.wait_for_function(f"() => {FIRST}.querySelector('[data-state=writing] .llmga-text')")
            press(page, 2, "stop")
            wait_done(page, 2, "stopped")
        finally:
            assistant.behave("normal")
        assert bubbles(page, 2)[-1][1]
        assert page.evaluate(f"{FIRST}.getAttribute('aria-busy')") == "false"


def test_the_end_of_one_prompt_leaves_a_queued_chat_waiting(
    browser: Browser, server: ComfyServer, assistant: OpenAIServer
) -> None:
    """Two chats in the queue: when the first has its answer, the second still waits and cannot be sent twice."""
    with template(browser, server, "chat_with_endpoint") as (page, seen), assistant.replying(say):
        substitute(page, seed=30, task="chat")
        server.wait(queued(page, lambda: write(page, 2, "begin")))
        wait_done(page, 2)
        press(page, 2, "branch", 1)
        page.wait_for_function(
            "(count) => app.graph.nodes.length === count", arg=len(PROMPTS["chat_with_endpoint"]) + 2
        )
        (branch,) = page.evaluate(PROMPT).keys() - PROMPTS["chat_with_endpoint"].keys()
        page.evaluate(
            f"""() => {{ window.ends = []; app.api.addEventListener("execution_success", ({{ detail }}) =>
                window.ends.push([detail.prompt_id, {PANEL.format(branch)}.dataset.state])); }}"""
        )
        with assistant.replying(LONG, pace=0.03):
            first = queued(page, lambda: write(page, 2, "slowly"))
            second = queued(page, lambda: write(page, branch, "and then"))
            server.wait(second)
            wait_done(page, branch)
        page.wait_for_function("() => window.ends.length === 2")
        assert page.evaluate("window.ends") == [[first, "waiting"], [second, "done"]]
        assert bubbles(page, branch)[-1] == ["assistant", LONG]

        # One that is taken out of the queue waits no longer.
        with assistant.replying(LONG, pace=0.03):
            first = queued(page, lambda: write(page, 2, "slowly again"))
            second = queued(page, lambda: write(page, branch, "never"))
            page.evaluate("(id) => app.api.deleteItem('queue', id)", second)
            wait_done(page, branch, "")
            server.wait(first)
            wait_done(page, 2)
        assert seen.errors == []


def test_long_texts_are_shown_in_part(browser: Browser, server: ComfyServer) -> None:
    """Bounded by the elements that are made, not by a clock."""
    with template(browser, server, "chat_with_endpoint") as (page, seen):
        for text in (
            "<div>" * 20_000,
            "word " * 20_000,
            "<gen_image>a" * 10_000,
            "<gen_image>fox</gen_image>" * 5_000,
        ):
            page.evaluate(
                """([id, text]) => { const node = app.graph.getNodeById(id);
                    const widget = node.widgets.find((one) => one.name === "transcript");
                    widget.value = JSON.stringify([{ role: "user", text, images: [] },
                        { role: "assistant", text: `${text} <gen_image>${text}</gen_image>`, images: [] }]);
                    widget.callback?.(widget.value); }""",
                [2, text],
            )
            press(page, 2, "compare")
            assert page.evaluate(f"{FIRST}.querySelectorAll('*').length") < 2500
            assert "Shown in part" in page.evaluate(f"{FIRST}.textContent")
            press(page, 2, "compare")
        assert (seen.errors, seen.dialogs) == ([], [])


def test_the_page_reads_replies_as_the_library_does_and_speaks_both_languages(
    browser: Browser, server: ComfyServer
) -> None:
    with new_page(browser, server) as page:
        visit(page, server)
        module = "'/extensions/ComfyUI-LLMGA/js/chat/{}.js'"
        read = (
            f"async (replies) => {{ const {{ split }} = await import({module.format('tags')});"
            " return replies.map(split) }"
        )
        for reply, parts in zip(REPLIES, page.evaluate(read, REPLIES), strict=True):
            check_split(reply, parts)
        words = page.evaluate(f"async () => (await import({module.format('words')})).WORDS")
        assert words["en"].keys() == words["zh"].keys()
        assert all(any("\u4e00" <= letter <= "\u9fff" for letter in text) for text in words["zh"].values())
