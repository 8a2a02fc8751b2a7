"""Bounds on a ``tokenizer.json``: its rules may not blow a text up.

``tokenizers`` applies the rules in Rust, where neither Cancel nor a deadline reaches, so they are counted first.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

MAX_GROWTH = 64
"""How many times longer all rules together may make a text; published tokenizers stay below 4."""
MAX_RULES = 2_000
MAX_RULE_LENGTH = 10_000
_PARTS = ("normalizer", "pre_tokenizer", "post_processor", "decoder")
_TABLES = ("precompiled_charsmap",)
_ZERO_WIDTH = re.compile(r"\(\?<?[=!]|[\^$]|\\[bBAZzGK]")


def check_tokenizer(tokenizer: Mapping[str, Any], where: str) -> None:
    """Raise ``ValueError`` for a ``tokenizer.json`` whose rules are too many, too long, or make a text too long, or whose
    merges are not texts.

    Args:
        tokenizer: the file's JSON object.
    """
    model = tokenizer.get("model")
    merges = model.get("merges") if isinstance(model, Mapping) else None
    if merges is not None and not (isinstance(merges, list) and all(map(_is_merge, merges))):
        raise ValueError(
            f"{where}: the merges of its model must be a list of two tokens each; take the model's own tokenizer"
        )
    for part in _PARTS:
        growth, count = 1.0, 0
        for rule in _rules(tokenizer.get(part)):
            count += 1
            growth *= _growth(rule)
            if count > MAX_RULES:
                raise ValueError(
                    f"{where}: {part} has more than {MAX_RULES:,} rules; take the model's own tokenizer"
                )
            if growth > MAX_GROWTH:
                raise ValueError(
                    f"{where}: the rules of {part} may make a text more than {MAX_GROWTH} times longer; take the model's "
                    "own tokenizer"
                )
            for key, text in _texts(rule):
                if len(text) > MAX_RULE_LENGTH:
                    raise ValueError(
                        f"{where}: {part} has a {key} of {len(text):,} characters; {MAX_RULE_LENGTH:,} are allowed"
                    )


def _is_merge(value: Any) -> bool:
    """Two tokens in a list, or in one text with a space between them."""
    parts = value.split(" ") if isinstance(value, str) else value
    return isinstance(parts, list) and len(parts) == 2 and all(isinstance(part, str) for part in parts)


def _rules(value: Any) -> Iterator[Mapping[str, Any]]:
    """Every object at any depth, in order."""
    stack = [value]
    while stack:
        found = stack.pop()
        if isinstance(found, Mapping):
            yield found
            stack.extend(item for key, item in reversed(list(found.items())) if key not in _TABLES)
        elif isinstance(found, list):
            stack.extend(reversed(found))


def _growth(rule: Mapping[str, Any]) -> float:
    """How many times longer one rule may make a text of one character or more."""
    kind = rule.get("type")
    if kind == "Replace":
        pattern, content = rule.get("pattern"), str(rule.get("content", ""))
        plain = pattern.get("String") if isinstance(pattern, Mapping) else None
        if isinstance(plain, str):
            return max(1.0, len(content) / len(plain)) if plain else 1.0 + len(content)
        regex = str(pattern.get("Regex", "")) if isinstance(pattern, Mapping) else ""
        return max(1.0, len(content)) if _takes_a_character(regex) else 1.0 + len(content)
    if kind == "Prepend":
        return 1.0 + len(str(rule.get("prepend", "")))
    return 1.0


def _takes_a_character(regex: str) -> bool:
    """Whether each match of a pattern surely takes at least one character, so that it cannot match between all of them."""
    if len(regex) > MAX_RULE_LENGTH or _ZERO_WIDTH.search(regex):
        return False
    try:
        return re.compile(regex).match("") is None
    except (re.error, RecursionError, OverflowError):  # it is written for another library
        return False


def _texts(rule: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key, value in rule.items():
        if isinstance(value, str) and key not in _TABLES:
            yield key, value
