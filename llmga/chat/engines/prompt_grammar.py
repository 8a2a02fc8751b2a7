"""The form of a reply with prompts as a grammar, and the parameters by which servers of language models take one."""

from __future__ import annotations

from typing import Any

from ..dialect import Constraint

OPENING, CLOSING = "<gen_image>", "</gen_image>"


def form_parameters(kind: Constraint, count: int) -> dict[str, Any]:
    """What a request holds so that the server's reply has at least ``count`` closed prompts.

    Args:
        kind: "llamacpp": ``grammar`` in GBNF. "vllm": the same in ``structured_outputs``; "vllm_guided": in
            ``guided_grammar``, as before vLLM 0.12. "structural_tag": ``response_format``, as vLLM and SGLang take it.

    Source: llama.cpp ``grammars/README.md``, vLLM ``docs/features/structured_outputs.md``, XGrammar's structural tags.
    """
    match kind:
        case "llamacpp":
            return {"grammar": prompt_grammar(count)}
        case "vllm":
            return {"structured_outputs": {"grammar": prompt_grammar(count)}}
        case "vllm_guided":
            return {"guided_grammar": prompt_grammar(count)}
        case "structural_tag":
            # Tags proper would allow no word before the first, or none of them to be there.
            form = {"type": "grammar", "grammar": prompt_grammar(count)}
            return {"response_format": {"type": "structural_tag", "format": form}}
    return {}


def prompt_grammar(count: int) -> str:
    """At least ``count`` prompts between their tags, with text before, between and behind, in GBNF.

    Outside of the tags no ``<`` is allowed, so that no tag can be spelt half.
    """
    blocks = " ".join(["block text"] * count)
    return (
        f"root ::= text {blocks} (block text)*\n"
        f'block ::= "{OPENING}" prompt "{CLOSING}"\n'
        'prompt ::= " "? [^<> \\t\\r\\n"\'`] [^<]*\n'
        "text ::= [^<]*\n"
    )
