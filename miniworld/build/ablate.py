"""The chats of the paper's Table 6: one taught everything, and one for each data set of which it saw only a tenth."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from ..files import LANGUAGE
from ..models.language import LanguageConfig, take_vision_and_words, train_language
from ..world.dialogues import DATA_SETS

ALL = "all"
CUTS = (ALL, *DATA_SETS)


def ablate(
    config: LanguageConfig, out: Path, work: Path, cuts: Sequence[str], vision_from: Path | None = None
) -> list[Path]:
    """Train the chats, or go on where it was left. What comes before anything is cut is learned once for all of them.

    Args:
        out: gets a folder of models for each, named as what was cut.
        work: for caches and checkpoints; of one process until the first chat has begun its own lesson.
        cuts: of ``CUTS``.
        vision_from: a finished chat, whose vision tower and vocabulary are taken; None trains them.

    Returns:
        The folders of the chats.

    Raises:
        ValueError: a cut is unknown, or ``work`` was begun with another vision tower or vocabulary.
    """
    if unknown := [cut for cut in cuts if cut not in CUTS]:
        raise ValueError(f"cut must name some of {', '.join(CUTS)}; got {', '.join(unknown)}")
    common = work / "common"
    if vision_from is not None:
        take_vision_and_words(vision_from, common)
    made = []
    for cut in cuts:
        result = train_language(
            work / f"cut-{cut}", config, work / "cache", "" if cut == ALL else cut, common
        )
        made.append(out / cut / LANGUAGE)
        shutil.copytree(result, made[-1], dirs_exist_ok=True)
    return made
