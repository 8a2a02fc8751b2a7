"""The form of a reply with prompts as a grammar, and the parameters by which servers of language models take one."""

from __future__ import annotations

from typing import Any

from ..dialect import Constraint

OPENING, CLOSING = "<gen_image>", "</gen_image>"
_TAG_TOKENS = 16
"""What both tags of a prompt may take: tokenizers that do not know them spell each in four to seven tokens."""
_MOST = 2400  # llama.cpp refuses repetitions from 2,000 on, and three quarters of these are a prompt's
_CHARACTERS = 2.5
"""Of a token, for the bounds: English has four, so what they leave is closed well before the room ends. Scripts with a token
for each character may still run out of it."""


def form_parameters(kind: Constraint, count: int, room: int) -> dict[str, Any]:
    """What a request holds so that the server's reply has at least ``count`` closed prompts.

    Args:
        kind: "llamacpp": ``grammar`` in GBNF. "vllm": the same in ``structured_outputs``; "vllm_guided": in
            ``guided_grammar``, as before vLLM 0.12. "structural_tag": ``response_format``, as vLLM and SGLang take it.
        room: tokens that the reply may have.

    Source: llama.cpp ``grammars/README.md``, vLLM ``docs/features/structured_outputs.md``, XGrammar's structural tags.
    """
    grammar = prompt_grammar(count, room)
    match kind:
        case "llamacpp":
            return {"grammar": grammar}
        case "vllm":
            return {"structured_outputs": {"grammar": grammar}}
        case "vllm_guided":
            return {"guided_grammar": grammar}
        case "structural_tag":
            # Tags proper would allow no word before the first, or none of them to be there.
            form = {"type": "grammar", "grammar": grammar}
            return {"response_format": {"type": "structural_tag", "format": form}}
    return {}


def prompt_grammar(count: int, room: int) -> str:
    """At least ``count`` prompts between their tags, with text before, between and behind, in GBNF.

    Outside of the tags no ``<`` is allowed, so that no tag can be spelt half. A grammar cannot see how much room is left, so
    the prompts that must be there and the text before each have bounds of characters, a quarter of them for the text.

    Args:
        room: tokens that the reply may have.
    """
    characters = min(_MOST, max(8, int(_CHARACTERS * (room / count - _TAG_TOKENS))))
    needed = " ".join(["before block"] * count)
    return (
        f"root ::= {needed} text (more text)*\n"
        f"before ::= [^<]{{0,{characters // 4}}}\n"
        f'block ::= "{OPENING}" " "? [^<> \\t\\r\\n"\'`] [^<]{{0,{characters - characters // 4}}} "{CLOSING}"\n'
        f'more ::= "{OPENING}" [^<]* "{CLOSING}"\n'
        "text ::= [^<]*\n"
    )
