"""What a local model's folder tells of its thinking: the switch in its chat template, and its marks among the tokens."""

from __future__ import annotations

import os
import re
from typing import Any

from ..thinking import is_mark_token, split_reply

_THINKING_TEMPLATE = re.compile(r"think|reasoning|\[THINK\]|<\|channel", re.IGNORECASE)


class ThoughtReader:
    """Decodes a reply so that the marks of thinking stay visible.

    Many tokenizers hold these marks as special tokens (Magistral's ``[THINK]``, gpt-oss's ``<|channel|>``, Gemma 4's
    ``<|channel>``), which usual decoding drops: then nothing tells the thought from the answer. Here all special tokens are
    dropped but those.

    Attributes:
        template: the text of the chat template.
        may_think: the template or the vocabulary has marks of thinking.
    """

    def __init__(self, processor: Any) -> None:
        self._tokenizer = getattr(processor, "tokenizer", processor)
        self.template = _template_text(processor)
        added = self._tokenizer.added_tokens_decoder
        marks = {token_id for token_id, token in added.items() if is_mark_token(token.content)}
        special = {token_id for token_id, token in added.items() if token.special}
        special |= set(self._tokenizer.all_special_ids)
        self._dropped = special - marks
        self._has_special_marks = bool(special & marks)
        # Phi-3 has <|end|>, which alone marks no thought.
        opens = any(
            re.search("think|thought|reasoning|channel", added[token_id].content, re.I) for token_id in marks
        )
        self.may_think = opens or _THINKING_TEMPLATE.search(self.template) is not None

    def decode(self, ids: list[int]) -> str:
        """The text of a reply's tokens."""
        if not self._has_special_marks:
            return self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        kept = [token_id for token_id in ids if token_id not in self._dropped]
        return self._tokenizer.decode(kept, skip_special_tokens=False, clean_up_tokenization_spaces=False)


def template_variables(template: str, thinking: bool) -> dict[str, Any]:
    """The variables by which a chat template switches thinking, as far as it reads them.

    ``enable_thinking``: Qwen3, Gemma 4, GLM-4.5, SmolLM3. ``thinking``: DeepSeek-V3.1, Granite, Kimi. ``reasoning``:
    Cohere. ``thinking_budget``: Seed-OSS. ``reasoning_effort``: gpt-oss, which always thinks, and newer Mistral and
    Hunyuan models, where "none" or "no_think" is no thinking. ``reasoning_strength``: Muse, which always thinks.
    """
    variables: dict[str, Any] = {
        name: thinking for name in ("enable_thinking", "thinking", "reasoning") if _reads(template, name)
    }
    if not thinking and _reads(template, "thinking_budget"):
        variables["thinking_budget"] = 0
    for name in ("reasoning_effort", "reasoning_strength"):
        if _reads(template, name):
            off = re.search(r"""["'](none|no_think)["']""", template)
            if not thinking:
                variables[name] = off[1] if off else "low"
            elif off:
                variables[name] = "high"
    return variables


def opens_thought(conversation: str, request: str) -> bool:
    """Whether the opening of a reply, by which ``request`` is longer than ``conversation``, ends inside a thought.

    Only the opening counts: a user's own words may hold a mark.
    """
    start = len(os.path.commonprefix([conversation, request]))
    return split_reply(request[start:]).unfinished


def _reads(template: str, name: str) -> bool:
    """Whether a template has a variable of that name; ``message.thinking`` and ``message['thinking']`` are none."""
    return re.search(rf"(?<![\w.'\"]){name}(?![\w'\"])", template) is not None


def _template_text(processor: Any) -> str:
    template = getattr(processor, "chat_template", None) or getattr(
        getattr(processor, "tokenizer", None), "chat_template", None
    )
    if isinstance(template, dict):
        template = template.get("default") or "\n".join(map(str, template.values()))
    return template if isinstance(template, str) else ""
