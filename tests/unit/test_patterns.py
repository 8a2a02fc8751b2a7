"""Text from outside costs linear time: every pattern is bounded, or stands here with the reason and a count of its work."""

from __future__ import annotations

import ast
import importlib
import json
import pkgutil
import re
import warnings
from collections.abc import Callable, Iterator
from re import _parser  # type: ignore[attr-defined]
from typing import Any

import pytest
from support.waiting import growth
from support.work import grows_linearly

import llmga
from llmga.chat import Conversation, read_transcript
from llmga.chat.dialect import Dialect
from llmga.chat.endpoints import _parse_url
from llmga.chat.engines.completion import CompletionReader, UnreadableReply
from llmga.chat.engines.redaction import excerpt, without_key
from llmga.chat.engines.refusals import retry_after
from llmga.chat.engines.sse import SSEDecoder
from llmga.chat.refusal import is_refusal
from llmga.chat.tags import count_closed, parse
from llmga.chat.thinking import split_reply
from llmga.data.cleaning import RULES, RejectedError, clean_caption, clean_edit
from llmga.diffusion.unet_shapes import measured
from llmga.edit.instruction import kept_share
from llmga.edit.prompt_to_prompt import read_spans, read_weights
from llmga.files.lenient_json import read_lenient
from llmga.scene.parse import parse_plan
from llmga.text.prompt import spans
from tools import ROOT

WIDEST = 10_000
UNBOUNDED = {
    "llmga.chat.refusal._SENTENCE_END": "is given 16,000 characters at most",
    "llmga.chat.tags._HUGE_REFERENCE": "one run of digits, which no other match begins in",
    "llmga.data.cleaning._WORD": "runs of one class of letters, which end where the next class begins",
    "llmga.data.cleaning._EDIT": "the caption is the rest of the reply",
    "llmga.data.schemas._TOKEN": "a text in a training file, of any length; what is not closed ends the search",
    "llmga.edit.instruction._WORD": "a run of word characters",
    "llmga.edit.phrases._UNIT": "a run of letters in a CLIP token",
    "llmga.files.lenient_json._NUMBER": "a run of digits, which is read once where it begins",
    "llmga.files.lenient_json._SPACE": "a run of white space and comments, which is read once where it begins",
    "llmga.files.lenient_json._WORD": "a run of letters, which is read once where it begins",
    "llmga.gill.language._WHITE_SPACE": "a run of white space, which is read once where it begins",
    "llmga.text.prompt._ATTENTION": "a run of what is no bracket",
    "llmga.text.prompt._SENTENCE_END": "a run of closing quotes behind a full stop, which holds none",
}
INLINE = {  # patterns that are written where they are used
    r"[,;\n]": "one character",
    r"[^\S\n]+": "is given 16,000 characters at most",
    r"^.*?vision_model\.": "a name in a weight file, searched once from its beginning",
    r'^version = "([^"]+)"': "the pack's own file",
}
CALLS = {"compile", "search", "match", "fullmatch", "split", "sub", "subn", "findall", "finditer"}


def compiled() -> Iterator[tuple[str, re.Pattern[Any]]]:
    """Every pattern of every module of the library, also those in tuples and dictionaries."""
    for info in pkgutil.walk_packages(llmga.__path__, "llmga."):
        if info.name.endswith("__main__"):
            continue
        module = importlib.import_module(info.name)
        for name, value in vars(module).items():
            values = (
                value.values()
                if isinstance(value, dict)
                else value
                if isinstance(value, (list, tuple))
                else [value]
            )
            for one in values:
                if isinstance(one, re.Pattern):
                    yield f"{info.name}.{name}", one


def written() -> Iterator[tuple[str, str]]:
    """Every literal pattern in a call of ``re``, with its place."""
    for path in sorted([*(ROOT / "llmga").rglob("*.py"), *(ROOT / "nodes").glob("*.py")]):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and isinstance(node.func.value, ast.Name)
                and node.func.value.id == "re"
                and node.func.attr in CALLS
                and node.args
                and isinstance(node.args[0], ast.Constant)
                and isinstance(node.args[0].value, str)
                and (node.func.attr != "compile" or "nodes" in path.parts)
            ):
                yield f"{path.relative_to(ROOT)}:{node.lineno}", node.args[0].value


def width(pattern: Any, flags: int = 0) -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return int(_parser.parse(pattern, flags).getwidth()[1])


def test_every_compiled_pattern_is_bounded_or_listed() -> None:
    found = {name for name, one in compiled() if width(one.pattern, one.flags) > WIDEST}
    unlisted, gone = found - UNBOUNDED.keys(), UNBOUNDED.keys() - found
    assert not unlisted, (
        f"bound these, or list them with a reason and a test of their work: {sorted(unlisted)}"
    )
    assert not gone, f"bounded by now: {sorted(gone)}"
    assert len({name for name, _ in compiled()}) > 30


def test_every_pattern_in_a_call_is_bounded_or_listed() -> None:
    found = list(written())
    wide = {pattern: place for place, pattern in found if width(pattern) > WIDEST and pattern not in INLINE}
    assert not wide, wide
    assert len(found) > 8


@pytest.mark.parametrize(("pattern", "bounded"), [(r"a*", False), (r"(?:ab){0,9}", True), (r".{3,}", False)])
def test_the_check_above_sees(pattern: str, bounded: bool) -> None:
    assert (width(pattern) <= WIDEST) is bounded


# Heads and pieces that have made patterns of this kind slow: white space, digits, half a mark, a mark again and again.
HEADS = [
    "",
    "<",
    "```",
    "&#",
    ":",
    "(a:",
    "instruction:",
    "\n",
    "a",
    "i'm sorry, but ",
    "http://a/",
    "*",
    '"',
    ".",
]
PIECES = [" ", "\n", "\t ", "1", "a", "<", "&", "&#x", "/", "`", "*", "#", "- ", "(", ")", "[", ":", "ly ", "\\", "。”",
          "'", "a, ", "<think>", "instruction:", "target caption", "sk-abcdefgh", "i can't ", "word ", "\\(", "1.",
          "= ", "{", "Objects:\n", "[IMG0]"]  # fmt: skip


def rejects(call: Callable[[str], object]) -> Callable[[str], None]:
    def run(text: str) -> None:
        try:
            call(text)
        except (ValueError, RejectedError):
            pass

    return run


def feed_bytes(make: Callable[[], Any]) -> Callable[[str], None]:
    """A body that comes a byte at a time, as a server may cut it."""

    def run(text: str) -> None:
        reader = make()
        for byte in text.encode():
            reader.feed(bytes((byte,)))

    return rejects(run)


READERS: dict[str, tuple[Callable[[str], object], int]] = {
    "parse": (parse, 20_000),
    "count_closed": (count_closed, 20_000),
    "split_reply": (split_reply, 20_000),
    "is_refusal": (is_refusal, 20_000),
    "clean_caption": (rejects(lambda text: clean_caption(text, RULES["en"])), 20_000),
    "clean_edit": (rejects(lambda text: clean_edit(text, "a red fox in the snow", "en")), 10_000),
    "spans": (rejects(lambda text: spans(text, weights=True, break_at="sentence")), 20_000),
    "word_weights": (rejects(read_weights), 20_000),
    "word_steps": (rejects(read_spans), 20_000),
    "kept_share": (lambda text: kept_share(text, text + " fox"), 40_000),
    "excerpt": (lambda text: excerpt(text, "sk-abcdefgh"), 10_000),
    "without_key": (lambda text: without_key(text, "sk-abcdefgh"), 20_000),
    "retry_after": (retry_after, 20_000),
    "a refusal's words": (lambda text: Dialect().adapted(text, ""), 4096),
    "a record's url": (rejects(_parse_url), 20_000),
    "transcript": (rejects(lambda text: read_transcript(text, lambda _: None)), 50_000),  # type: ignore[arg-type, return-value]
    "history": (rejects(Conversation.from_json), 20_000),
    "lenient JSON": (rejects(read_lenient), 20_000),
    "a scene plan": (rejects(parse_plan), 20_000),
    "a stream by bytes": (feed_bytes(SSEDecoder), 3_000),
    "a body by bytes": (feed_bytes(CompletionReader), 6_000),
}

WORDS_ALONE = {"kept_share"}
"""Readers that compare words, which no mark before them changes; each call compares as many as it may, so it is long."""


@pytest.mark.parametrize("name", READERS)
def test_work_is_linear(name: str) -> None:
    read, length = READERS[name]
    slow = [
        (head, piece)
        for head in (HEADS[:1] if name in WORDS_ALONE else HEADS)
        for piece in PIECES
        if not grows_linearly(read, lambda size, h=head, p=piece: h + p * (size // len(p)) + "x", length)
    ]
    assert not slow


@pytest.mark.parametrize("depth", [900, 5_000, 100_000])
@pytest.mark.parametrize(
    "text", ["[", '{"a":', '{"choices":[{"message":{"content":[{"type":"thinking","thinking":[', '{"error":[']
)
def test_json_of_any_depth_is_an_ordinary_error(text: str, depth: int) -> None:
    body = text * depth
    closed = body + "".join({"[": "]", "{": "}"}[char] for char in reversed(body) if char in "[{")
    for whole in (body, closed.replace(":}", ":1}").replace(":]", ":1]")):
        reader = CompletionReader()
        with pytest.raises(UnreadableReply):
            reader.feed(whole.encode())
            reader.close()
        for read in (Conversation.from_json, lambda said: read_transcript(said, lambda _: None)):  # type: ignore[arg-type, return-value]
            with pytest.raises(ValueError):
                read(whole)
        assert len(excerpt(whole, "key")) <= 200


@pytest.mark.parametrize("number", ["1" * 5_000, "-" + "9" * 100_000, "1e99999", "[" + "7" * 5_000 + "]"])
def test_a_number_of_any_length_is_an_ordinary_error(number: str) -> None:
    for document in (number, f'{{"choices": {number}}}', f'{{"error": {number}}}'):
        reader = CompletionReader()
        with pytest.raises(UnreadableReply):
            reader.feed(document.encode() if document[0] in "{[" else f"data: {document}\n\n".encode())
            reader.close()
        with pytest.raises(ValueError, match="JSON|conversation"):
            Conversation.from_json(document)
        with pytest.raises(ValueError, match="'transcript'"):
            read_transcript(document, lambda _: None)  # type: ignore[arg-type, return-value]
    assert parse(f"&#{number}; &#x{number}; <gen_image> &#{'1' * 5_000};fox </gen_image>").prompt


def test_a_layer_of_any_number_takes_no_memory() -> None:
    """A number in a weight's name once became the length of a list."""
    found = {f"down_blocks.{'9' * digits}.resnets.0.conv2.weight": (4, 4, 3, 3) for digits in (3, 12, 6_000)}
    assert measured({**found, "conv_in.weight": (4, 4, 3, 3), "a.attn2.to_k.weight": (4, 4)}) is None


def test_a_reply_longer_than_a_turn_is_refused_while_it_comes() -> None:
    reader = CompletionReader()
    event = "data: " + json.dumps({"choices": [{"delta": {"content": "x" * 1000}}]}) + "\n\n"
    with pytest.raises(UnreadableReply, match="more than 200,000 characters"):
        for _ in range(300):
            reader.feed(event.encode())
    assert len(reader.text) == 201_000


def test_a_line_that_does_not_end_is_refused() -> None:
    for pieces in ([b"data: " + b"x" * 1_000_001], [b"x"] * 1_000_001, [b"\n", b"x" * 999_999, b"xx\n"]):
        decoder = SSEDecoder()
        with pytest.raises(ValueError, match="a line of more than 1000000 bytes"):
            for piece in pieces:
                decoder.feed(piece)


def test_a_header_with_a_key_twice_is_refused_in_linear_time() -> None:
    from pathlib import Path

    from llmga.files.header import _parse
    from llmga.files.kinds import WrongFileError

    def read(count: int) -> None:
        keys = [f'"{i}": 1' for i in range(count)]
        with pytest.raises(WrongFileError, match="stands there twice"):
            _parse(Path("a.safetensors"), ("{" + ", ".join([*keys, f'"{count - 1}": 1']) + "}").encode())

    assert growth(lambda: read(2_000), lambda: read(16_000), 32) < 32
