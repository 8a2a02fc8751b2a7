"""The attacks, in the order they run, each with its share of the time and whether it needs ComfyUI."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Section:
    """
    Args:
        name: of its module here, which has ``run(budget, rng) -> (findings, counts)``.
        share: of the minutes.
        host: it needs ComfyUI.
    """

    name: str
    share: float
    host: bool
    what: str


SECTIONS = (
    Section("files", 0.14, False, "hostile model folders, weight files, histories and records"),
    Section("endpoints", 0.12, False, "what a server of language models may do"),
    Section("urls", 0.02, False, "addresses of endpoints that must not be reached"),
    Section("direct", 0.17, True, "every node's execute with hostile values"),
    Section("paths", 0.08, True, "paths in every text and choice, under an audit hook"),
    Section("disk", 0.08, True, "a full or failing disk, and kill -9 while a history is saved"),
    Section("prompts", 0.15, True, "random prompts over HTTP"),
    Section("canary", 0.08, True, "an API key looked for in everything that is written or served"),
    Section("cancel", 0.05, True, "how long a cancelled prompt still runs"),
    Section("load", 0.06, True, "a full queue, and its memory beside that of a ComfyUI without the pack"),
    Section("determinism", 0.05, True, "the same prompt in other processes and cache modes; a killed server"),
)
