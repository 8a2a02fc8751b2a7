"""Textual inversions that a prompt names: which of them the host leaves out, and why."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ..llmga.text import parse_weights
from . import host

MARK = "embedding:"
_AT_WORD = re.compile(rf"(?:^|(?<=[ \n])){MARK}")
_TEXTS = ("text", "prompt")
"""How the names of inputs end that are texts."""
_MOST = 100
"""Names of one prompt that are looked up."""
_SHOWN = 5
"""Embeddings of one kind that are named; further ones are counted."""
_HOST_FAULTS = (
    ArithmeticError,
    AttributeError,
    IndexError,
    KeyError,
    OSError,
    RuntimeError,
    StopIteration,
    TypeError,
    UnboundLocalError,
    ValueError,
)


def tokenize(clip: Any, name: str, text: str, **options: Any) -> dict[str, Any]:
    """The host's tokens of a text.

    Args:
        name: of the input that holds the text, for the error.

    Raises:
        ValueError: the host fails at an embedding that the text names, or at brackets in brackets.
    """
    try:
        return clip.tokenize(text, **options)
    except RecursionError as error:
        raise ValueError(
            f"{name} nests brackets deeper than ComfyUI reads them as weights; take them out, or escape them as \\("
        ) from error
    except _HOST_FAULTS as error:
        if MARK not in text:
            raise
        named = _names(text)
        if "" in named or not named:
            raise ValueError(
                f"{name} holds '{MARK}' without a name; write the name of a file in models/embeddings behind it, or take "
                "it out"
            ) from error
        raise ValueError(
            f"{name} names embeddings ({_listed(named)}) of which ComfyUI cannot read one ({type(error).__name__}: "
            f"{error}); take it out, or replace its file in models/embeddings"
        ) from error


def left_out(clip: Any, name: str, text: str, weights: bool = False) -> list[str]:
    """A line for the embeddings that a prompt names and that are not found, and one for those of another width.

    Args:
        weights: the text is read as CLIP Text Encode does. Other encoders than CLIP need that: their tokenizers read no
            weights, and fail where they are asked not to.

    Raises:
        ValueError: the host fails at one of them; see ``tokenize``.
    """
    if MARK not in text or not hasattr(clip, "tokenize"):  # what is no CLIP is refused where it is used
        return []
    tokenize(clip, name, text, **({} if weights else {"disable_weights": True}))
    pieces = _without_brackets(text) if weights else [text]
    found = [each for piece in pieces for each in _names(piece) if each]
    return _missing(clip, list(dict.fromkeys(found))[:_MOST])


def notes(clip: Any, prompts: dict[str, str], weights: bool = False) -> list[str]:
    """``left_out`` of several prompts by the names of their inputs, each line with its input."""
    return [
        f"{name}: {line}" for name, text in prompts.items() for line in left_out(clip, name, text, weights)
    ]


def fingerprint(inputs: Mapping[str, Any]) -> str:
    """Where a node's texts name embeddings, changes with their files: one that was missing may be there now.

    A text that comes by a link is None here, and may name some.
    """
    named = any(
        MARK in value if isinstance(value, str) else value is None and name.endswith(_TEXTS)
        for name, value in inputs.items()
    )
    return host.embeddings_state() if named else ""


def _missing(clip: Any, names: list[str]) -> list[str]:
    missing, wrong = [], []
    for name in names:
        found = [
            (width_of(clip, encoder), _load(tokenizer, name)) for encoder, tokenizer in _tokenizers(clip)
        ]
        if not found:
            return []
        if all(vectors is None for _, vectors in found):
            missing.append(name)
            continue
        widths = [(wanted, vectors.shape[-1]) for wanted, vectors in found if wanted and vectors is not None]
        unfit = [f"{got} numbers where {wanted} are read" for wanted, got in widths if wanted != got]
        if unfit:
            wrong.append(f"{name} ({', '.join(unfit)})")
    lines = []
    if missing:
        space = any("," in name for name in missing)
        lines.append(
            f"LEFT OUT: no embedding {_listed(missing)} in models/embeddings"
            + ("; write a space or nothing behind the name, a comma belongs to it" if space else "")
        )
    if wrong:
        lines.append(
            f"LEFT OUT: embedding {_listed(wrong)}: it is made for another kind of checkpoint (SD1.5 has 768, SDXL 768 and "
            "1280)"
        )
    return lines


def width_of(clip: Any, encoder: str) -> int | None:
    """How many numbers a token of an encoder (``clip_l``) has; None where the host does not say."""
    net = getattr(getattr(clip, "cond_stage_model", None), encoder, None)
    try:
        return int(net.transformer.get_input_embeddings().weight.shape[-1])  # type: ignore[union-attr]
    except (AttributeError, TypeError, IndexError):
        return None


def _without_brackets(text: str) -> list[str]:
    try:
        return [piece for piece, _ in parse_weights(text)]
    except ValueError:  # weights that the host takes, and the LLMGA layouts do not
        return [text]


def _names(text: str) -> list[str]:
    """What the host looks for behind each mark: the next word, which may be missing."""
    return [(behind.split() or [""])[0] for behind in _AT_WORD.split(text)[1:]]


def _tokenizers(clip: Any) -> list[tuple[str, Any]]:
    """The host's tokenizers that look for embeddings, by the names of their encoders."""
    found = vars(clip.tokenizer) if hasattr(clip, "tokenizer") else {}
    return [
        (name, each)
        for name, each in found.items()
        if hasattr(each, "_try_get_embedding") and getattr(each, "embedding_directory", None) is not None
    ]


def _load(tokenizer: Any, name: str) -> Any:
    return tokenizer._try_get_embedding(name)[0]


def _listed(names: list[str]) -> str:
    shown = ", ".join(name[:60] for name in names[:_SHOWN])
    return shown + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
