"""A family's chat template for a processor that tokenises a transcript as one text, as transformers' own do.

The training read it piece by piece, cut at its pictures: a SentencePiece tokenizer puts a space before each piece that it
would not put in one text. So the template gets the spaces with which both give the same tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .families import IMAGE, Family, chat_template

_BODY = "Like this.  狐 é"  # two spaces in a row, and letters of no vocabulary
_TALK: tuple[dict[str, Any], ...] = (
    {"role": "user", "content": [{"type": "image"}, {"type": "image"}, {"type": "text", "text": _BODY}]},
    {"role": "assistant", "content": [{"type": "text", "text": "<gen_image> A fox </gen_image>"}]},
    {"role": "user", "content": [{"type": "text", "text": "Bigger"}]},
)


def one_text_templates(family: Family, tokenizer: Any, image: str) -> Iterator[str]:
    """The family's template with and without a space after the start token and after a picture.

    Args:
        image: the tokenizer's text of the token that stands for a picture.
    """
    bos = tokenizer.bos_token
    start = bos if bos and tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id else ""
    for space in ("", " ") if start else ("",):
        for glue in ("", " "):
            yield chat_template(family, start=start + space, image=image, glue=glue)


def fitting_template(family: Family, tokenizer: Any, image: str) -> str:
    """The template whose one text becomes the tokens that the training read piece by piece.

    Raises:
        ValueError: the tokenizer has no control token that ends this family's answers, or no template fits it.
    """
    end = _end_of_answer(family)
    if not control_ids(tokenizer, end):
        raise ValueError(
            f"the family {family.name} ends an answer with {end!r}, which is not a control token of this tokenizer; "
            "choose the family that the language model was trained on"
        )
    wanted = _ids_in_pieces(tokenizer, chat_template(family))
    wanted = [tokenizer.convert_tokens_to_ids(image) if token is None else token for token in wanted]
    for template in one_text_templates(family, tokenizer, image):
        text = _rendered(tokenizer, template)
        bos = tokenizer.bos_token
        starts = bool(bos and text.startswith(bos))
        if tokenizer(text, add_special_tokens=not starts)["input_ids"] == wanted:
            return template
    raise ValueError(
        f"the tokenizer reads a transcript of the family {family.name} in one text in another way than piece by piece, "
        "as in the training"
    )


def ending_ids(family: Family, tokenizer: Any) -> tuple[int, ...]:
    """The control tokens that end an answer of this family."""
    return tuple(control_ids(tokenizer, _end_of_answer(family)))


def control_ids(tokenizer: Any, text: str) -> list[int]:
    """The control tokens in the text's tokens."""
    special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    return [i for i in ids if i in special and i != tokenizer.unk_token_id]


def _end_of_answer(family: Family) -> str:
    """What the family's Jinja writes behind an answer, ``</s>`` of ``{{ 'ASSISTANT: ' + ns.body + '</s>' }}``."""
    return family.assistant.rpartition("ns.body + '")[2].removesuffix("' }}").replace("\\n", "").strip()


def _rendered(tokenizer: Any, template: str) -> str:
    talk = list(_TALK)
    return tokenizer.apply_chat_template(
        talk, chat_template=template, tokenize=False, add_generation_prompt=True
    )


def _ids_in_pieces(tokenizer: Any, template: str) -> list[int | None]:
    """As the official code reads a transcript, None for a picture.

    Source: LLMGA 7e32eb6, llmga/llava/mm_utils.py:185-204.
    """
    ids: list[int | None] = []
    for i, piece in enumerate(_rendered(tokenizer, template).split(IMAGE)):
        tokens = tokenizer(piece)["input_ids"]
        if i:
            ids.append(None)
            tokens = tokens[1:] if tokens and tokens[0] == tokenizer.bos_token_id else tokens
        ids += tokens
    return ids
