"""Table 2: edits by instruction on MagicBrush's test set, by L1, L2, CLIP-I, DINO and CLIP-T.

Figures are counted as MagicBrush's own script does: edited pictures are resized to the target's size, L2 is the mean squared
error, and CLIP-T compares with the description of the target. A chat engine describes the picture before and after the
edit, and the picture is inverted and edited by both prompts. The paper does not say which of MagicBrush's two protocols it
takes: every turn by itself from the true picture before it (``independent``), or turn after turn from one's own
(``iterative``), of which the script scores the last.

Source: OSU-NLP-Group/MagicBrush, evaluation/image_eval.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F

from ...images import read_picture
from ..cache_keys import cache_key
from ..data import DataConfig, load_scores, read_items
from ..estimates import Estimate, mean
from ..extractors import Extractor, load_network
from ..paint_jobs import PaintJob
from ..paper import Claim
from ..results import TableResult
from ..sources import EditItem, left_out, whole_sessions
from ..stages import READING, Row, Stages, faults
from ..writers import Writer, WrittenPrompt
from .text_to_image import check_rows

Turns = Literal["independent", "iterative"]


@dataclass(frozen=True)
class EditConfig:
    """Settings of Table 2."""

    data: DataConfig
    rows: tuple[Row, ...]
    clip: str
    """The official script's is CLIP ViT-B/32, ``clip:FOLDER``."""
    dino: str
    """The official script's is DINO ViT-S/16, ``dino:FOLDER``."""
    turns: Turns = "independent"
    size: int = 512
    """Sides at which pictures are edited, in pixels."""
    seed: int = 0
    scores: tuple[str, ...] = ()
    claims: tuple[Claim, ...] = ()
    device: str = "cpu"
    minutes: float = 0.0
    """Of one CPU core, for ``llmga evaluate all`` to say beforehand what it takes; 0 where nobody measured it."""


def run(config: EditConfig, stages: Stages) -> list[TableResult]:
    """Table 2 as one result.

    Raises:
        ValueError, FileNotFoundError: the configuration cannot be used; the message names what is wrong.
    """
    check_rows(config.rows)
    items = _items(config, stages.folder / "data")
    clip, dino = (load_network(spec, config.device) for spec in (config.clip, config.dino))
    if not isinstance(clip, Extractor) or clip.texts is None:
        raise ValueError(f"'clip' must be a network that reads pictures and texts, got {config.clip!r}")
    if not isinstance(dino, Extractor):
        raise ValueError(f"'dino' must be an extractor of features, got {config.dino!r}")
    data = cache_key(items)
    scored = last_turns(items) if config.turns == "iterative" else list(range(len(items)))
    rows, notes = {}, {}
    for row in config.rows:
        edited, notes[row.name] = _edited(row, items, config, stages, data)
        chosen, pictures = [items[i] for i in scored], [edited[i] for i in scored]
        rows[row.name] = score(chosen, pictures, clip, dino, stages)
        for judge in load_scores(config.scores):
            rows[row.name] |= judge(chosen, pictures)
    conditions = {
        "pictures": len(scored),
        "data": data,
        **left_out(items),
        "turns": config.turns,
        "size": config.size,
        **{network.name: f"{network.digest[:16]}, reads {network.preparation}" for network in (clip, dino)},
        "seed": config.seed,
    }
    return [TableResult("edit", conditions, rows, notes)]


def score(
    items: Sequence[EditItem], pictures: Sequence[Path], clip: Extractor, dino: Extractor, stages: Stages
) -> dict[str, Estimate]:
    """The five figures of Table 2, each a mean over pictures."""
    targets = [item.target for item in items]
    if clip.texts is None:
        raise ValueError(f"{clip.name} reads no texts")
    distances = torch.tensor([pixel_distances(*pair) for pair in zip(pictures, targets, strict=True)])
    seen, true = (stages.features(clip, paths)["features"] for paths in (pictures, targets))
    texts = torch.cat([clip.texts([item.caption]) for item in items]).double()
    looks, wanted = (stages.features(dino, paths)["features"] for paths in (pictures, targets))
    return {
        "L1": mean(distances[:, 0]),
        "L2": mean(distances[:, 1]),
        "CLIP-I": mean(F.cosine_similarity(seen, true)),
        "DINO": mean(F.cosine_similarity(looks, wanted)),
        "CLIP-T": mean(F.cosine_similarity(seen, texts)),
    }


def pixel_distances(picture: Path, target: Path) -> tuple[float, float]:
    """Mean absolute and mean squared difference in 0 .. 1, the picture resized to the target's size by Pillow."""
    truth = read_picture(target)
    made = read_picture(picture).resize(truth.size)
    difference = (np.asarray(made, np.float64) - np.asarray(truth, np.float64)) / 255
    return float(np.abs(difference).mean()), float(np.square(difference).mean())


def last_turns(items: Sequence[EditItem]) -> list[int]:
    """The number of the last turn of each session."""
    last: dict[str, int] = {}
    for i, item in enumerate(items):
        if item.session not in last or item.turn > items[last[item.session]].turn:
            last[item.session] = i
    return sorted(last.values())


def _items(config: EditConfig, work: Path) -> list[EditItem]:
    """The turns of the set; a count of turns would take first ones for the last of their sessions."""
    if config.turns == "independent" or config.data.kind != "magicbrush":
        return read_items(config.data, work)
    return whole_sessions(read_items(replace(config.data, count=None), work), config.data.count)


def _edited(
    row: Row, items: Sequence[EditItem], config: EditConfig, stages: Stages, data: str
) -> tuple[list[Path], list[str]]:
    """The edited pictures of all turns, and what must be said of them.

    Iterative turns go in waves: all first turns, then all second ones from the pictures of the first.
    """
    made: dict[int, Path] = {}
    said: list[str] = []
    waves = sorted({item.turn for item in items}) if config.turns == "iterative" else [0]
    for wave in waves:
        chosen = [i for i, item in enumerate(items) if wave in (0, item.turn)]
        sources = [_source(i, items, made, config.turns) for i in chosen]
        painted, notes = _wave(row, [items[i] for i in chosen], sources, config, stages, (data, wave))
        made |= dict(zip(chosen, painted, strict=True))
        said += notes
    return [made[i] for i in range(len(items))], said


def _wave(
    row: Row,
    items: Sequence[EditItem],
    sources: Sequence[Path],
    config: EditConfig,
    stages: Stages,
    of: tuple[object, ...],
) -> tuple[list[Path], list[str]]:
    """Edits that do not depend on each other."""
    keys = [item.key for item in items]
    of = (READING, *of, [*sources], config.seed)

    def write(writer: Writer, i: int) -> WrittenPrompt:
        return writer.edit(read_picture(sources[i]), items[i].instruction, config.seed + i)

    written = stages.write(f"{row.name}: prompts", keys, row.chat, write, *of)

    def job(i: int) -> PaintJob:
        prompts = written[i]
        return PaintJob(
            keys[i],
            prompts.prompt,
            config.seed,
            config.size,
            config.size,
            read_picture(sources[i]),
            source=prompts.source,
        )

    prompts = cache_key([(one.prompt, one.source) for one in written])
    painted = stages.paint(f"{row.name}: pictures", keys, row.painter, job, None, *of, prompts, config.size)
    return painted, faults(written)


def _source(number: int, items: Sequence[EditItem], made: dict[int, Path], turns: Turns) -> Path:
    item = items[number]
    before = [i for i, other in enumerate(items) if other.session == item.session and other.turn < item.turn]
    if turns == "independent" or not before:
        return item.source
    return made[max(before, key=lambda i: items[i].turn)]
