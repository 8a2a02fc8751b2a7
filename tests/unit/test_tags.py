import html
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.work import grows_linearly

from llmga.chat.tags import parse, without_thinking

# The promise, written down again without the parser's help.
TAG = re.compile(r"<\s*/?\s*gen_im(g|age)\s*>", re.IGNORECASE)

EXAMPLES = {
    "released code": ("<gen_image> a red fox </gen_image>", "a red fox", ("a red fox",)),
    "paper spelling": ("<gen_img>a red fox</gen_img>", "a red fox", ("a red fox",)),
    "names differ": ("<gen_img> a red fox </gen_image>", "a red fox", ("a red fox",)),
    "case and spaces": ("< Gen_Image >a red fox< / GEN_IMG\n>", "a red fox", ("a red fox",)),
    "talk around": (
        "Sure! <gen_image> a red fox </gen_image> Do you like it?",
        "Sure!\n\na red fox\n\nDo you like it?",
        ("a red fox",),
    ),
    "no tag": ("  Which colour is the fox? ", "Which colour is the fox?", ()),
    "nothing": ("", "", ()),
    "several": (
        "One. <gen_image> a fox </gen_image> Two. <gen_image> a hen </gen_image>",
        "One.\n\na fox\n\nTwo.\n\na hen",
        ("a fox", "a hen"),
    ),
    "unclosed": ("Here: <gen_image> a red fox, snow", "Here:\n\na red fox, snow", ("a red fox, snow",)),
    "unclosed before another": (
        "<gen_image> a fox <gen_image> a hen </gen_image>",
        "a fox\n\na hen",
        ("a fox", "a hen"),
    ),
    "nested": (
        "<gen_image> a fox <gen_img> a hen </gen_img> a barn </gen_image>",
        "a fox\n\na hen\n\na barn",
        ("a fox", "a hen"),
    ),
    "doubled": ("<gen_image><gen_image> a fox </gen_image></gen_image>", "a fox", ("a fox",)),
    "stray closer": ("a fox </gen_image> runs", "a fox\n\nruns", ()),
    "empty blocks": ("<gen_image></gen_image>ok<gen_image>  ```\n``` </gen_image>", "ok", ()),
    "cut in the closer": ("<gen_image> a red fox </gen_im", "a red fox", ("a red fox",)),
    "cut in the opener": ("Here you are: <gen", "Here you are:", ()),
    "less-than stays": ("<gen_image> a chart, 3 < 4 </gen_image>", "a chart, 3 < 4", ("a chart, 3 < 4",)),
    "thinking": ("<think>a <gen_image> hen </gen_image>?</think><gen_image> a fox", "a fox", ("a fox",)),
    "thinking opened by the template": ("a hen? no.\n</think>\n\n<gen_image> a fox", "a fox", ("a fox",)),
    "thinking cut off": ("<think> the user wants <gen_image> a fox </gen_image>", "", ()),
    "thinking twice": ("<Think>x</think>Hi <thinking>y</ thinking >there", "Hi there", ()),
    "thinking encoded": ("&lt;think&gt;hm&lt;/think&gt;&lt;gen_image&gt;a fox", "a fox", ("a fox",)),
    "entities": (
        "&lt;gen_image&gt; Tom &amp; Jerry&#39;s house &LT;/gen_image&#62;",
        "Tom & Jerry's house",
        ("Tom & Jerry's house",),
    ),
    "entities once": ("<gen_image> &amp;copy; </gen_image>", "&copy;", ("&copy;",)),
    "ampersand stays": (
        "<gen_image> salt & pepper, R&B </gen_image>",
        "salt & pepper, R&B",
        ("salt & pepper, R&B",),
    ),
    "fence around": (
        "Done:\n```xml\n<gen_image> a fox </gen_image>\n```\nBye",
        "Done:\n\na fox\n\nBye",
        ("a fox",),
    ),
    "fence inside": ("<gen_image>\n```text\na fox\n```\n</gen_image>", "a fox", ("a fox",)),
    "fence around an unclosed block": ("```\n<gen_image> a fox\n```", "a fox\n```", ("a fox",)),
    "bold tags": ("Here:\n**<gen_image>** a fox **</gen_image>**", "Here:\n\na fox", ("a fox",)),
    "bold around": ("**<gen_image> a fox </gen_image>**", "a fox", ("a fox",)),
    "bold inside": (
        "<gen_image>**A fox** in the **snow**</gen_image>",
        "**A fox** in the **snow**",
        ("**A fox** in the **snow**",),
    ),
    "backticks around": ("`<gen_image> a fox </gen_image>`", "a fox", ("a fox",)),
    "quoted whole": ('<gen_image> "a red fox" </gen_image>', '"a red fox"', ("a red fox",)),
    "quoted whole, curly": ("<gen_image>“a red fox”</gen_image>", "“a red fox”", ("a red fox",)),
    "quoted parts": (
        '<gen_image> "EXIT" and "ENTRY" </gen_image>',
        '"EXIT" and "ENTRY"',
        ('"EXIT" and "ENTRY"',),
    ),
    "one quote": ('<gen_image> " </gen_image>', '"', ('"',)),
    "other tags stay": ("<gen_image> an <img> tag </gen_image>", "an <img> tag", ("an <img> tag",)),
    # The released command lines cut 12 characters, look at one block, take a closer from anywhere.
    "official: no space": ("<gen_image>A cat", "A cat", ("A cat",)),
    "official: closer first": ("</gen_image> so: <gen_image> A cat </gen_image>", "so:\n\nA cat", ("A cat",)),
    "official: trailing space": ("<gen_image> A cat  </gen_image>", "A cat", ("A cat",)),
    "official: text cut as if it were an end token": (
        "<gen_image> A cat sits",
        "A cat sits",
        ("A cat sits",),
    ),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_example(name: str) -> None:
    reply, text, prompts = EXAMPLES[name]
    parsed = parse(reply)
    assert (parsed.text, parsed.prompts) == (text, prompts)
    assert parsed.prompt == (prompts[0] if prompts else "")


@pytest.mark.parametrize(
    "reply",
    [
        "<gen_image> a <<gen_image>gen_image> b",
        "<gen_image> a &amp;lt;gen_image&amp;gt; b </gen_image>",
        "<gen_image> a &amp;ltgen&amp;lowbar;image&amp;gt b </gen_image>",
        "< </gen_image> gen_image>",
        "<gen_<think>x</think>image> a fox <</gen_image>/gen_image>",
        "<gen_image> &#" + "9" * 5000 + "; </gen_image> &amp;#" + "9" * 5000,
        "&&#123456789#" + "9" * 5000,
    ],
)
def test_no_trick_spells_a_tag(reply: str) -> None:
    parsed = parse(reply)
    for text in (parsed.text, *parsed.prompts):
        assert not TAG.search(text)
        assert not TAG.search(html.unescape(re.sub("[0-9]{9,}", "", text)))


PIECES = st.sampled_from(
    "<gen_image> </gen_image> <gen_img> </gen_img> < / gen_image GEN_IMG > gen_ image im age g "
    "&lt; &gt; &LT &#60; &#x3e; &amp; &amp;lt; &lowbar; & ; # &# 9999999999 "
    "<think> </think> &lt;think> ``` ```xml ` \" “ ” ' a cat".split()
) | st.sampled_from([" ", "\n", "\t", "\0", "\x1c", "\xa0", "\u200b", "\ud800", "a red fox", "一只狐狸"])


@settings(max_examples=2000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(PIECES | st.text(max_size=8), max_size=40).map("".join))
def test_no_reply_raises_and_no_tag_gets_through(reply: str) -> None:
    parsed = parse(reply)
    for prompt in parsed.prompts:
        assert prompt and prompt == prompt.strip()
    for text in (parsed.text, *parsed.prompts):
        assert not TAG.search(text)
        assert not TAG.search(html.unescape(text))


@settings(deadline=None)
@given(st.text("ab1.,()>&;#\n 狐", max_size=60))
def test_plain_caption_survives_the_released_format(caption: str) -> None:
    assert parse(f"<gen_image> {caption.replace('&', '&amp;')} </gen_image>").prompt == caption.strip()


@pytest.mark.parametrize(
    ("reply", "kept"),
    [
        ("<think>x</think>\n<gen_image> a &amp; b </gen_image>", "<gen_image> a &amp; b </gen_image>"),
        ("no thought", "no thought"),
        ("x</think>y<think>z", "y"),
        ("a<think>b</think>c</think>d", "d"),
    ],
)
def test_history_keeps_tags_and_drops_thinking(reply: str, kept: str) -> None:
    assert without_thinking(reply) == kept


@pytest.mark.parametrize(
    "piece",
    [
        "<", "< ", " ", "`", "```", "```a ", '"', "&", "&amp;", "&lt", "&#", "&#9", "9", "<think>", "</think",
        "<gen_image>", "<gen_image", "</gen_image", "<gen_image> ", "<<gen_image>", "gen_image>",
        "```\n<gen_image>```",
    ],
)  # fmt: skip
@pytest.mark.parametrize("head", ["", "<", "<gen_image", "<gen_image>", "```", "&#", "<think"])
def test_work_is_linear(head: str, piece: str) -> None:
    assert grows_linearly(parse, lambda length: head + piece * (length // len(piece)) + "x", 100_000)
