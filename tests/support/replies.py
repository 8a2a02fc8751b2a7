"""Replies that llmga/chat/tags.py and web/js/chat/tags.js must read alike."""

from __future__ import annotations

import re

from llmga.chat import parse

REPLIES = (
    "",
    "plain",
    "Here. <gen_image> a fox </gen_image> Like it?",
    "<gen_image>a</gen_image><gen_img> b </gen_img> c",
    "</gen_image> early <GEN_IMAGE> “quoted” ",
    "```html\n<gen_image> fenced </gen_image>\n``` after",
    "`<gen_image>` ticked `</gen_image>` end",
    "a <gen_image> cut off </gen_im",
    "a < b <",
    "<think> secret <gen_image> no </gen_image> </think> said <gen_image> yes",
    "secret </think> open <think> more",
    "&lt;gen_image&gt; encoded &lt;/gen_image&gt;",
    "<gen_image> </gen_image> empty <gen_image>\n\nx ```",
    "< gen_image > spaced < / gen_image >",
    'A <gen_image> "all of it in quotes" </gen_image>',
    "B <gen_image> 'two' and 'three' </gen_image>",
    "C <gen_image>「一只狐狸」</gen_image> D",
    "x <gen_image> «unequal” </gen_image>",
    "<thinking>one</thinking> two <think> three <gen_image> four",
    "a <think> b </think> c </think> d",
    "a < /gen",
    "<gen_image> one <gen_image> two </gen_image></gen_image> three",
)


def without_quotes(text: str) -> str:
    """A reply's letters: the page shows a prompt as it is painted, and the library's text keeps the quotes around it."""
    return re.sub("[\"'“”«»「」`\\s]", "", text)


def check_split(reply: str, parts: list[dict[str, str]]) -> None:
    """Assert that what ``split`` of tags.js made of a reply is what ``parse`` makes of it."""
    parsed = parse(reply)
    assert [part["text"] for part in parts if part["kind"] == "prompt"] == list(parsed.prompts), reply
    assert without_quotes("".join(part["text"] for part in parts)) == without_quotes(parsed.text), reply
