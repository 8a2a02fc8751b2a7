"""The command ``llmga convert``: a published checkpoint becomes files that other programs read."""

from __future__ import annotations

from collections.abc import Sequence


def main(arguments: Sequence[str]) -> int:
    """Convert an official LLMGA checkpoint, or with ``gill`` in front GILL's files; returns the exit status."""
    if arguments[:1] == ["gill"]:  # a folder of that name is ./gill
        from .gill.command import main as convert_gill

        return convert_gill(arguments[1:])
    from .chat.checkpoints.command import main as convert_llmga

    return convert_llmga(arguments)
