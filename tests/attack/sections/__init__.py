"""The attacks, in the order they run, each with its share of the time and whether it needs ComfyUI."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Section:
    """
    Args:
        name: of its module here, which has ``run(budget, rng) -> (findings, counts)``.
        share: of the minutes.
        host: it needs ComfyUI.
        goals: how many of what it should try in a run of ``WHOLE`` minutes, by the names under which it counts; a shorter
            run wants as much less.
        alike: it finds the same on every machine, whatever its speed.
    """

    name: str
    share: float
    host: bool
    what: str
    goals: Mapping[str, int] = field(default_factory=dict)
    alike: bool = False


WHOLE = 60.0
SECTIONS = (
    Section("urls", 0.01, False, "addresses of endpoints that must not be reached", {"URL payloads": 120}, True),
    Section("files", 0.08, False, "hostile model folders, weight files, histories and records", {"hostile files": 500},
            True),
    Section("endpoints", 0.06, False, "what a server of language models may do", {"endpoint faults": 400}, True),
    Section("disk", 0.05, True, "a full or failing disk, and kill -9 while a history is saved",
            {"disk faults": 100, "kills": 50}, True),
    Section("canary", 0.09, True, "an API key looked for in everything that is written or served",
            {"secret scenarios": 60}, True),
    Section("load", 0.12, True, "a full queue, and its memory beside that of a ComfyUI without the pack",
            {"queued prompts": 1000, "control prompts": 500}),
    Section("prompts", 0.29, True, "random prompts over HTTP", {"prompts": 20_000}, True),
    Section("determinism", 0.06, True, "the same prompt in other processes and cache modes; a killed server",
            {"repeats": 60}, True),
    Section("cancel", 0.06, True, "how long a cancelled prompt still runs", {"cancels": 60}),
    Section("paths", 0.06, True, "paths in every text and choice, under an audit hook", alike=True),
    Section("direct", 0.12, True, "every node's execute with hostile values", alike=True),
)  # fmt: skip
"""Those with goals come first: what they leave of their time, or need beyond it, the later ones get more or less."""
