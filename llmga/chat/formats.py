"""Chat formats: a conversation written as the one text that a model family was trained to continue.

A model folder brings its own chat template; a bare weight file does not. These are the published templates of the
families that come as bare weight files, restricted to what a conversation here holds: a system prompt, text and pictures.
A test renders each published template with jinja2 and compares it character for character.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from .conversation import Conversation, Turn

VISION_BLOCK = "<|vision_start|><|image_pad|><|vision_end|>"
NO_THOUGHT = "<think>\n\n</think>\n\n"
_TOKEN_ATTRIBUTES = ("image_token", "video_token", "audio_token", "placeholder_token")
"""Attributes of a processor that may name a control token."""
LLAMA3_DATES = "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n"


@dataclass(frozen=True)
class ChatFormat:
    """The chat format of a model family.

    Attributes:
        name: the family, as shown to a person.
        write: ``write(conversation, thinking)``, see ``render``.
        picture: the token that stands for one picture in the text; None if the format has no pictures.
        eos: each of these tokens ends the assistant's turn.
        control: every other token that the format writes or the family reads as markup.
        has_bos: the tokenizer's begin token stands before the text (the text itself does not hold it).
    """

    name: str
    write: Callable[[Conversation, bool], str]
    picture: str | None
    eos: tuple[str, ...]
    control: tuple[str, ...]
    has_bos: bool

    def render(self, conversation: Conversation, thinking: bool = False) -> str:
        """The whole conversation, ending with the opening of the assistant's turn.

        Args:
            conversation: ends with a user turn; ``picture`` occurs in the result once for each of its pictures, in order.
            thinking: False writes what the family reads as "answer without a thought", where it has such a thing.

        Raises:
            ValueError: the conversation has pictures and the format has none.
        """
        if conversation.pictures and self.picture is None:
            raise ValueError(f"the chat format of {self.name} has no pictures")
        return self.write(conversation, thinking)

    def opens_thought(self, thinking: bool) -> bool:
        """Whether the text of ``render`` ends inside a thought, so that the reply begins in one."""
        return self.render(Conversation().say("user", "?"), thinking).rstrip().endswith("<think>")

    def protect(self, conversation: Conversation, pattern: re.Pattern[str] | None = None) -> Conversation:
        """The conversation with the control tokens in its text broken, so that text opens no turn and adds no picture.

        Args:
            conversation: any.
            pattern: what counts as a control token; None is ``control_pattern`` of this format's own.
        """
        pattern = pattern or control_pattern(self.tokens)
        turns = tuple(replace(turn, text=break_control(pattern, turn.text)) for turn in conversation.turns)
        return replace(conversation, system=break_control(pattern, conversation.system), turns=turns)

    @property
    def tokens(self) -> tuple[str, ...]:
        """All control tokens of the format."""
        return (*self.eos, *self.control, *((self.picture,) if self.picture else ()))


def control_pattern(tokens: Iterable[str]) -> re.Pattern[str]:
    """Matches each of the tokens, the longest first; a single character or white space cannot be broken and is left out."""
    found = sorted({token for token in tokens if len(token.strip()) > 1}, key=len, reverse=True)
    return re.compile("|".join(re.escape(token) for token in found) or r"(?!)")


def control_tokens(processor: Any) -> re.Pattern[str]:
    """Matches what the tokenizer would read as a control token instead of text, the longest first."""
    tokenizer = getattr(processor, "tokenizer", processor)
    tokens = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    tokens |= {str(token) for token in tokenizer.all_special_tokens}
    tokens |= {str(getattr(processor, name, None) or "") for name in _TOKEN_ATTRIBUTES}
    return control_pattern(tokens)


def break_control(pattern: re.Pattern[str], text: str) -> str:
    """The text with a space after the first character of each control token: ``< |im_end|>``."""
    return pattern.sub(lambda match: f"{match[0][0]} {match[0][1:]}", text)


def find_format(family: str) -> ChatFormat:
    """The chat format of a family by the name that weight files and ComfyUI give it, such as ``qwen3_4b``.

    Raises:
        ValueError: the family is not known here.
    """
    for prefix, chat_format in CHAT_FORMATS.items():
        if family.startswith(prefix):
            return chat_format
    raise ValueError(
        f"the chat format of the model family {family!r} is not known here; known are "
        + ", ".join(chat_format.name for chat_format in CHAT_FORMATS.values())
    )


def _chatml(role: str, content: str) -> str:
    return f"<|im_start|>{role}\n{content}<|im_end|>\n"


def _qwen_content(turn: Turn) -> str:
    return VISION_BLOCK * len(turn.pictures) + turn.text


def _without_thought(text: str) -> str:
    """What an earlier reply keeps: the published templates drop its thought."""
    return text.rpartition("</think>")[2].lstrip("\n")


def _write_qwen25_vl(conversation: Conversation, thinking: bool) -> str:
    parts = [_chatml("system", conversation.system or "You are a helpful assistant.")]
    parts += [_chatml(turn.role, _qwen_content(turn)) for turn in conversation.turns]
    return "".join(parts) + "<|im_start|>assistant\n"


def _write_qwen3_vl(conversation: Conversation, thinking: bool) -> str:
    parts = [_chatml("system", conversation.system)] if conversation.system else []
    parts += [_chatml(turn.role, _qwen_content(turn)) for turn in conversation.turns]
    return "".join(parts) + "<|im_start|>assistant\n"


def _write_qwen3(conversation: Conversation, thinking: bool) -> str:
    parts = [_chatml("system", conversation.system)] if conversation.system else []
    for turn in conversation.turns:
        assistant = turn.role == "assistant"
        parts.append(_chatml(turn.role, _without_thought(turn.text) if assistant else turn.text))
    return "".join(parts) + "<|im_start|>assistant\n" + ("" if thinking else NO_THOUGHT)


def _write_qwen35(conversation: Conversation, thinking: bool) -> str:
    parts = [_chatml("system", conversation.system.strip())] if conversation.system else []
    for turn in conversation.turns:
        assistant = turn.role == "assistant"
        content = _without_thought(turn.text) if assistant else _qwen_content(turn)
        parts.append(_chatml(turn.role, content.strip()))
    return "".join(parts) + "<|im_start|>assistant\n" + ("<think>\n" if thinking else NO_THOUGHT)


def _write_gemma(conversation: Conversation, thinking: bool) -> str:
    """Gemma 2 and 3: a system prompt stands before the first user turn.

    Gemma 2's template refuses system prompts; it is given them in the way of Gemma 3.
    """
    prefix = f"{conversation.system}\n\n" if conversation.system else ""
    parts = []
    for turn in conversation.turns:
        picture = "\n\n<start_of_image><image_soft_token><end_of_image>\n\n" * len(turn.pictures)
        role = "model" if turn.role == "assistant" else "user"
        parts.append(f"<start_of_turn>{role}\n")
        if role == "user":
            parts.append(prefix)
            prefix = ""
        parts.append(f"{picture}{turn.text.strip()}<end_of_turn>\n")
    return "".join(parts) + "<start_of_turn>model\n"


def _write_gemma4(conversation: Conversation, thinking: bool) -> str:
    opening = "<|think|>\n" if thinking else ""
    parts = []
    if conversation.system or thinking:
        parts.append(f"<|turn>system\n{opening}{conversation.system.strip()}<turn|>\n")
    for turn in conversation.turns:
        picture = "<|image><|image|><image|>" * len(turn.pictures)
        role = "model" if turn.role == "assistant" else "user"
        text = _without_thought(turn.text) if role == "model" else turn.text
        parts.append(f"<|turn>{role}\n{picture}{text.strip()}<turn|>\n")
    return "".join(parts) + "<|turn>model\n"


def _write_gemma4_large(conversation: Conversation, thinking: bool) -> str:
    return _write_gemma4(conversation, thinking) + ("" if thinking else "<|channel>thought\n<channel|>")


def _write_mistral(conversation: Conversation, thinking: bool) -> str:
    """Mistral's v7 "tekken" format. The template's own default system prompt, which names a date, is left out."""
    parts = [f"[SYSTEM_PROMPT]{conversation.system}[/SYSTEM_PROMPT]"] if conversation.system else []
    for turn in conversation.turns:
        parts.append(f"[INST]{turn.text}[/INST]" if turn.role == "user" else f"{turn.text}</s>")
    return "".join(parts)


def _write_llama3(conversation: Conversation, thinking: bool) -> str:
    turns = [("system", LLAMA3_DATES + conversation.system.strip())]
    turns += [(turn.role, turn.text.strip()) for turn in conversation.turns]
    parts = [f"<|start_header_id|>{role}<|end_header_id|>\n\n{text}<|eot_id|>" for role, text in turns]
    return "".join(parts) + "<|start_header_id|>assistant<|end_header_id|>\n\n"


_QWEN_EOS = ("<|im_end|>", "<|endoftext|>")
_QWEN = ("<|im_start|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|video_pad|>")
_GEMMA_EOS = ("<end_of_turn>", "<eos>")
_GEMMA = ("<start_of_turn>", "<start_of_image>", "<end_of_image>", "<bos>", "<pad>", "<unk>")
_GEMMA4_EOS = ("<turn|>", "<eos>", "<|tool_response>")
_GEMMA4 = (
    *(
        "<|turn>",
        "<|image>",
        "<image|>",
        "<|audio>",
        "<|audio|>",
        "<audio|>",
        "<|video|>",
        "<|think|>",
        "<|channel>",
    ),
    *(
        "<channel|>",
        "<|tool>",
        "<tool|>",
        "<|tool_call>",
        "<tool_call|>",
        "<tool_response|>",
        "<bos>",
        "<pad>",
        "<unk>",
    ),
)
_MISTRAL = ("<s>", "<unk>", "<pad>", "[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]")
_MISTRAL += ("[IMG]", "[IMG_BREAK]", "[IMG_END]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_CALLS]")
_MISTRAL += (
    "[TOOL_RESULTS]",
    "[/TOOL_RESULTS]",
    "[ARGS]",
    "[THINK]",
    "[/THINK]",
    "[PREFIX]",
    "[MIDDLE]",
    "[SUFFIX]",
)
_LLAMA3_EOS = ("<|eot_id|>", "<|end_of_text|>", "<|eom_id|>")
_LLAMA3 = ("<|start_header_id|>", "<|end_header_id|>", "<|begin_of_text|>", "<|python_tag|>")

GEMMA4_LARGE = ChatFormat("Gemma 4", _write_gemma4_large, "<|image|>", _GEMMA4_EOS, _GEMMA4, True)
"""Gemma 4 12B and 31B, whose template closes an empty thought before an answer without thinking.

Source: chat_template.jinja of google/gemma-4-31B-it.
"""

CHAT_FORMATS = {
    # Source: chat_template.json of Qwen/Qwen2.5-VL-7B-Instruct.
    "qwen25": ChatFormat("Qwen2.5-VL", _write_qwen25_vl, "<|image_pad|>", _QWEN_EOS, _QWEN, False),
    # Source: chat_template.json of Qwen/Qwen3-VL-8B-Instruct.
    "qwen3vl": ChatFormat("Qwen3-VL", _write_qwen3_vl, "<|image_pad|>", _QWEN_EOS, _QWEN, False),
    # Source: chat_template.jinja of Qwen/Qwen3.5-9B.
    "qwen35": ChatFormat("Qwen3.5", _write_qwen35, "<|image_pad|>", _QWEN_EOS, _QWEN, False),
    # Source: tokenizer_config.json of Qwen/Qwen3-4B.
    "qwen3_": ChatFormat("Qwen3", _write_qwen3, None, _QWEN_EOS, (*_QWEN, "<|image_pad|>"), False),
    # Source: tokenizer_config.json of google/gemma-2-2b-it.
    "gemma2": ChatFormat("Gemma 2", _write_gemma, None, _GEMMA_EOS, _GEMMA, True),
    # Source: chat_template.json and processing_gemma3.py of google/gemma-3-12b-it.
    "gemma3": ChatFormat("Gemma 3", _write_gemma, "<image_soft_token>", _GEMMA_EOS, _GEMMA, True),
    # Source: chat_template.jinja and processing_gemma4.py of google/gemma-4-E4B-it.
    "gemma4": ChatFormat("Gemma 4", _write_gemma4, "<|image|>", _GEMMA4_EOS, _GEMMA4, True),
    # Source: chat_template.jinja of mistralai/Ministral-3-3B-Instruct-2512.
    "ministral3": ChatFormat("Ministral 3", _write_mistral, None, ("</s>",), _MISTRAL, True),
    # Source: chat_template.jinja of mistralai/Mistral-Small-3.2-24B-Instruct-2506.
    "mistral3": ChatFormat("Mistral Small 3", _write_mistral, None, ("</s>",), _MISTRAL, True),
    # Source: tokenizer_config.json of meta-llama/Llama-3.1-8B-Instruct.
    "llama": ChatFormat("Llama 3", _write_llama3, None, _LLAMA3_EOS, _LLAMA3, True),
}
"""Each known format by the beginning of its families' names."""
