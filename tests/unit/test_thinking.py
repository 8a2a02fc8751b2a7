"""What a model thinks is told from what it answers, in every spelling in use."""

from __future__ import annotations

import re

import pytest

from llmga.chat import thinking
from llmga.chat.engines.base import Said, end_of_shown
from llmga.chat.tags import count_closed, parse
from llmga.chat.thinking import split_reply

DRAFT = "Hm: <gen_image>first try</gen_image> no."
ANSWER = "Here: <gen_image>a red fox</gen_image>"
SPELLINGS = {
    "think": ("<think>", "</think>"),
    "thinking": ("<thinking>", "</thinking>"),
    "capitals": ("<THINK>", "</THINK>"),
    "spaces": ("< think >", "< / think >"),
    "encoded": ("&lt;think&gt;", "&lt;/think&gt;"),
    "thought": ("<thought>", "</thought>"),
    "thoughts": ("<thoughts>", "</thoughts>"),
    "reasoning": ("<reasoning>", "</reasoning>"),
    "with a prefix": ("<seed:think>", "</seed:think>"),
    "with another prefix": ("<longcat_think>", "</longcat_think>"),
    "with an ending": ("<think:opensource>", "</think:opensource>"),
    "granite": ("<think>", "</think><response>"),
    "apertus": ("<|inner_prefix|>", "<|inner_suffix|>"),
    "muse": (" to=self<|message|>", "<|eom|><|start|>assistant to=user<|message|>"),
    "solar": ("<|think|>", "<|end|><|begin|>assistant<|content|>"),
    "apriel": ("<|begin_assistant|>\nHere are my reasoning steps:\n", "[BEGIN FINAL RESPONSE]\n"),
    "mistral": ("[THINK]", "[/THINK]"),
    "kimi": ("◁think▷", "◁/think▷"),
    "words": ("<|begin_of_thought|>", "<|end_of_thought|>"),
    "cohere": ("<|START_THINKING|>", "<|END_THINKING|><|START_RESPONSE|>"),
    "gemma": ("<|channel>thought\n", "<channel|>"),
    "gpt-oss": ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
    "gpt-oss, closed by the next channel": ("<|channel|>analysis<|message|>", "<|channel|>final<|message|>"),
}


@pytest.mark.parametrize(("opener", "closer"), SPELLINGS.values(), ids=SPELLINGS)
def test_a_thought_is_told_from_the_answer(opener: str, closer: str) -> None:
    reply = f"{opener}{DRAFT}{closer}{ANSWER}"
    split = split_reply(reply)
    assert split.thought.startswith("Hm:") and split.answer == ANSWER and not split.unfinished
    assert parse(reply).prompts == ("a red fox",)
    assert "Hm" not in parse(reply).text and count_closed(reply) == 1


@pytest.mark.parametrize(("opener", "closer"), SPELLINGS.values(), ids=SPELLINGS)
def test_an_unfinished_thought_paints_nothing(opener: str, closer: str) -> None:
    for reply in (
        opener + DRAFT,
        "Let me see. " + opener + DRAFT,
        opener,
        f"{opener}a{closer}{opener}{DRAFT}",
    ):
        split = split_reply(reply)
        assert split.unfinished and "<gen_image>" not in split.answer
        assert parse(reply).prompts == () and count_closed(reply) == 0


@pytest.mark.parametrize(("opener", "closer"), SPELLINGS.values(), ids=SPELLINGS)
def test_a_thought_that_the_request_opened_ends_at_its_closer(opener: str, closer: str) -> None:
    split = split_reply(f"{DRAFT}{closer}{ANSWER}")
    assert split.answer == ANSWER and "first try" in split.thought


def test_the_first_line_of_a_thought_opens_it_and_the_end_of_an_answer_closes_the_reply() -> None:
    opener = "Here are my reasoning steps:\n"
    assert split_reply(opener + DRAFT) == (DRAFT, "", True)
    split = split_reply(f"{opener}{DRAFT}\n[BEGIN FINAL RESPONSE]\n{ANSWER}\n[END FINAL RESPONSE]\n<|end|>")
    assert split == (DRAFT, ANSWER, False)
    assert split_reply(f"It says: {opener}a, b").answer == f"It says: {opener}a, b"
    assert split_reply(f"<think>a</think><response>{ANSWER}</response>").answer == ANSWER


@pytest.mark.parametrize("reply", ["", DRAFT, "the prompt", "<gen_image>a fox</gen_image>"])
def test_a_reply_that_begins_in_a_thought_has_no_answer_before_its_end(reply: str) -> None:
    split = split_reply(reply, thinking=True)
    assert split == (reply, "", True)
    assert split_reply(f"{reply}</think>{ANSWER}", thinking=True).answer == ANSWER


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        (f"analysisThe user wants a fox. {DRAFT}assistantfinal{ANSWER}", ANSWER),
        (f"assistantanalysisWe need tags. {DRAFT}assistantfinal{ANSWER}", ANSWER),
        (f"analysisThe user wants a fox. {DRAFT}", ""),
        ("Analysis of the picture: a fox", "Analysis of the picture: a fox"),
        ("analysis is not wanted", "analysis is not wanted"),
    ],
)
def test_channels_whose_marks_vanished_in_decoding(reply: str, answer: str) -> None:
    assert split_reply(reply).answer == answer


@pytest.mark.parametrize(
    "reply",
    [
        "a thought crossed my mind",
        "[thinking] of a fox",
        "I think > you < thinker",
        "<thinker>a fox</thinker>",
        "<b>reasoning</b>",
        "a statue of The Thinker [Think]",
    ],
)
def test_words_are_no_marks(reply: str) -> None:
    assert split_reply(reply) == ("", reply, False)


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ("a fox<|im_end|>", "a fox"),
        ("a fox<|im_end|>\n<|im_start|>user\nand a hare", "a fox"),
        ("<|begin_of_box|>a fox<|end_of_box|>", "a fox"),
        ("a fox<end_of_turn>\n", "a fox"),
        ("a fox</s>", "a fox"),
        ("<|im_end|><|im_start|>a fox", "a fox"),
        ("a fox<｜end▁of▁sentence｜>", "a fox"),
        ("<|turn>a fox<turn|>more", "a fox"),
    ],
)
def test_marks_of_the_chat_format_are_no_words(reply: str, answer: str) -> None:
    assert split_reply(reply).answer == answer


@pytest.mark.parametrize(
    "mark", ["</s>", "<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<eos>", "<|im_start|>"]
)
@pytest.mark.parametrize("quotes", ["``", '""', "''", "“”", "「」"])
def test_a_quoted_mark_of_the_chat_format_ends_no_answer(mark: str, quotes: str) -> None:
    quoted = mark.join(quotes)
    reply = f"Each answer ends with {quoted}. <gen_image> a sign that says {quoted}, neon </gen_image>"
    assert split_reply(f"{reply}{mark}") == ("", reply, False)
    assert parse(f"{reply}{mark} more").prompt == f"a sign that says {quoted}, neon"
    assert Said.of(f"<think>It ends with {quoted}.</think>{reply}").thought == f"It ends with {quoted}."


def test_a_quoted_mark_of_thinking_neither_begins_nor_ends_a_thought() -> None:
    thought = "I close with `</think>` and write <gen_image> a cat </gen_image> behind it."
    answer = 'It thinks in "<think>" tags. <gen_image> a fox </gen_image>'
    assert split_reply(f"<think>{thought}</think>{answer}") == (thought, answer, False)
    assert split_reply(f"{thought}</think>{answer}", thinking=True) == (thought, answer, False)
    assert parse(f"<think>{thought}</think>{answer}").prompts == ("a fox",)
    assert split_reply(answer) == ("", answer, False)


@pytest.mark.parametrize("reply", ['a "fox"</s>', '"</s>', "`a fox</s>`", "'<think>a</think>'b'</s>"])
def test_a_mark_at_the_edge_of_a_quotation_is_a_mark(reply: str) -> None:
    assert "</s>" not in split_reply(reply).answer and "<think>" not in split_reply(reply).answer


HOSTILE = (
    "<", "&lt;", "< ", "<|", "<|channel|>", "<|channel|>a", "<think>", "</think>", "<|im_end|>", "analysis", "[THINK]",
    "<|channel|>" + "a" * 30, "◁", "<a:", "<|end_", "\n<|im_start|>", "<|message|>", "<channel|>",
)  # fmt: skip


def pattern_width(pattern: re.Pattern[str]) -> int:
    width = re._parser.parse(pattern.pattern, pattern.flags).getwidth()[1]  # type: ignore[attr-defined]
    return int(width)


@pytest.mark.skipif(not hasattr(re, "_parser"), reason="re._parser came with Python 3.11")
@pytest.mark.parametrize("name", ["_MARK", "_BARE_ANALYSIS", "_TURN_END", "_OTHER_MARKS"])
def test_no_pattern_reads_more_than_a_few_hundred_characters_from_a_start(name: str) -> None:
    """So that a search takes time in proportion to the text, whatever the text is."""
    assert pattern_width(getattr(thinking, name)) <= 500


@pytest.mark.parametrize("unit", HOSTILE)
def test_hostile_text_is_split_whole(unit: str) -> None:
    text = unit * (200_000 // len(unit))
    split = split_reply(text)
    assert len(split.thought) + len(split.answer) <= len(text)


@pytest.mark.parametrize("count", range(1, 60))
def test_the_end_of_what_is_shown_takes_no_thought_for_the_answer(count: int) -> None:
    """Wherever it is cut, also inside a mark: what is read of it is an end of the thought and an end of the answer."""
    for said in (
        Said("<gen_image>fox</gen_image>", "a long thought"),
        Said("", "a long thought", unfinished=True),
    ):
        end = end_of_shown(said.shown, count)
        assert len(end) <= count + len("<think>")
        split = split_reply(end)
        assert said.thought.endswith(split.thought) and said.answer.endswith(split.answer)
    assert end_of_shown("<think>a</think>" + "b" * count, count) == "b" * count
    assert end_of_shown("a fox", count).startswith("a fox"[-count:])
