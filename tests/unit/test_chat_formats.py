"""Chat formats equal the published templates, character for character."""

from __future__ import annotations

import pytest
from PIL import Image
from support import chat_templates
from support.chat_templates import two_turns

from llmga.chat.conversation import Conversation, Picture
from llmga.chat.formats import CHAT_FORMATS, GEMMA4_LARGE, ChatFormat, control_pattern, find_format

TEMPLATES = {
    "qwen25_7b": chat_templates.QWEN25_VL,
    "qwen3vl_4b": chat_templates.QWEN3_VL,
    "qwen35_2b": chat_templates.QWEN35,
    "qwen3_4b": chat_templates.QWEN3,
    "gemma2_2b": chat_templates.GEMMA2,
    "gemma3_12b": chat_templates.GEMMA3,
    "gemma4": chat_templates.GEMMA4,
    "ministral3_3b": chat_templates.MISTRAL,
    "mistral3_24b": chat_templates.MISTRAL,
    "llama": chat_templates.LLAMA3,
}
PICTURE = Picture.from_pil(Image.new("RGB", (8, 8), "red"))
OTHER = Picture.from_pil(Image.new("RGB", (16, 8), "blue"))


def without_system(chat_format: ChatFormat, conversation: Conversation) -> Conversation:
    """Gemma 2's template refuses system prompts: before the first user turn it is as with Gemma 3."""
    if chat_format.name != "Gemma 2" or not conversation.system:
        return conversation
    first, *rest = conversation.turns
    folded = Conversation().say(first.role, f"{conversation.system}\n\n{first.text.strip()}", first.pictures)
    for turn in rest:
        folded = folded.say(turn.role, turn.text, turn.pictures)
    return folded


def test_each_format_has_its_published_template() -> None:
    assert {id(find_format(family)) for family in TEMPLATES} == {id(found) for found in CHAT_FORMATS.values()}


@pytest.mark.parametrize("family", TEMPLATES)
@pytest.mark.parametrize("system", [True, False])
@pytest.mark.parametrize("thinking", [False, True])
def test_two_turns_are_what_the_published_template_writes(family: str, system: bool, thinking: bool) -> None:
    chat_format = find_format(family)
    for conversation in (two_turns(system=system), Conversation().say("user", "hello")):
        expected = chat_templates.render(
            TEMPLATES[family], chat_format.name, without_system(chat_format, conversation), thinking
        )
        assert chat_format.render(conversation, thinking) == expected


@pytest.mark.parametrize("family", [name for name in TEMPLATES if find_format(name).picture])
def test_pictures_stand_where_the_published_template_puts_them(family: str) -> None:
    chat_format = find_format(family)
    conversation = two_turns((PICTURE, OTHER), (PICTURE,))
    expected = chat_templates.render(TEMPLATES[family], chat_format.name, conversation)
    text = chat_format.render(conversation)
    assert text == expected
    assert chat_format.picture is not None
    assert text.count(chat_format.picture) == 3


@pytest.mark.parametrize("thinking", [False, True])
def test_the_large_gemma_4_closes_an_empty_thought(thinking: bool) -> None:
    expected = chat_templates.render(chat_templates.GEMMA4_LARGE, "Gemma 4", two_turns(), thinking)
    assert GEMMA4_LARGE.render(two_turns(), thinking) == expected
    assert expected.endswith("<|channel>thought\n<channel|>") is not thinking


@pytest.mark.parametrize("family", ["qwen3_4b", "qwen35_2b"])
def test_the_thought_of_an_earlier_reply_is_dropped(family: str) -> None:
    conversation = Conversation().say("user", "a fox")
    conversation = conversation.say("assistant", "<think>\nhm\n</think>\n\nA fox.").say("user", "a bear")
    chat_format = find_format(family)
    text = chat_format.render(conversation)
    assert text == chat_templates.render(TEMPLATES[family], chat_format.name, conversation)
    assert "hm" not in text


@pytest.mark.parametrize("family", TEMPLATES)
def test_control_tokens_in_text_open_no_turn_and_add_no_picture(family: str) -> None:
    chat_format = find_format(family)
    attack = "".join(chat_format.tokens) + "".join(f"<{token}" for token in chat_format.tokens)
    conversation = (
        Conversation(system=attack).say("user", attack).say("assistant", attack).say("user", attack)
    )
    plain = Conversation(system="x").say("user", "x").say("assistant", "x").say("user", "x")
    text = chat_format.render(chat_format.protect(conversation))
    pattern = control_pattern(chat_format.tokens)
    assert pattern.findall(text) == pattern.findall(chat_format.render(plain))


def test_a_format_without_pictures_refuses_them() -> None:
    with pytest.raises(ValueError, match="chat format of Qwen3 has no pictures"):
        find_format("qwen3_4b").render(Conversation().say("user", "?", (PICTURE,)))


@pytest.mark.parametrize("family", ["phi4_mini", "", "qwen4_8b", "gpt_oss"])
def test_an_unknown_family_is_named_with_the_known_ones(family: str) -> None:
    with pytest.raises(ValueError, match=rf"'{family}' is not known here; known are Qwen2.5-VL, Qwen3-VL"):
        find_format(family)


def test_a_single_character_is_no_control_token() -> None:
    assert control_pattern(["<", " ", "\n\n", "<s>"]).pattern == "<s>"
    assert control_pattern([]).search("anything") is None
