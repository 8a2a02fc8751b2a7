"""GILL's two comparisons: the last picture of a VIST story, and the picture that a VisDial dialogue is about.

A picture is painted from more and more of its context, and compared with the true one: the cosine of both in CLIP ViT-L/14,
and LPIPS with AlexNet at 256 × 256 pixels. Rows that read words alone leave contexts with pictures out.

Source: kohjingyu/gill 4600b71, evals/: generate_vist_images.py, generate_visdial_images.py, compute_clip_similarity_vist.py,
lpips_2dirs.py. The scripts hold the longest contexts alone; the shorter ones are the last captions and the first rounds.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch.nn.functional as F
from PIL import Image

from ...images import read_picture
from ..cache_keys import cache_key
from ..data import DataConfig, load_scores, read_items
from ..embedders import Request, request_text
from ..estimates import Estimate, mean
from ..extractors import Distance, Extractor, load_network
from ..paper import Claim
from ..prompting import AskedConversation, paint_turn, prompts_of_row
from ..results import TableResult
from ..sources import CaptionItem, DialogItem, StoryItem, left_out
from ..stages import READING, Prepare, Row, Stages
from .text_to_image import check_rows

STORY_CONTEXTS = ("1 caption", "5 captions", "5 captions, 4 pictures")
DIALOG_CONTEXTS = ("1 round", "5 rounds", "10 rounds")
_CONTEXT = re.compile(r"(?P<texts>\d{1,3}) (?P<what>caption|round)s?(?:, (?P<pictures>\d{1,3}) pictures?)?")


@dataclass(frozen=True)
class ContextConfig:
    """Settings of GILL's comparisons on stories and on dialogues."""

    data: DataConfig
    rows: tuple[Row, ...]
    clip: str
    """GILL's is CLIP ViT-L/14, ``clip:FOLDER``."""
    distance: str
    """GILL's is ``lpips-alex:FILE``."""
    contexts: tuple[str, ...] = ()
    """Such as ``5 captions, 4 pictures`` or ``10 rounds``; by default those of GILL's tables."""
    size: int = 512
    """Sides of the painted pictures, in pixels."""
    squeezed: int = 224
    """Sides to which a story's pictures are squeezed before they are shown, as GILL's script does; 0 leaves them."""
    compared: int = 256
    """Sides to which pictures are resized for the distance; 0 leaves the painted one's."""
    seed: int = 42
    """GILL's."""
    scores: tuple[str, ...] = ()
    claims: tuple[Claim, ...] = ()
    device: str = "cpu"
    """Of the networks."""
    minutes: float = 0.0
    """Of one CPU core, for ``llmga evaluate all`` to say beforehand what it takes; 0 where nobody measured it."""


@dataclass
class _Measure:
    """What pictures are compared by."""

    config: ContextConfig
    clip: Extractor
    distance: Distance
    stages: Stages
    scores: list = field(default_factory=list)

    def __call__(
        self, items: Sequence[StoryItem | DialogItem], painted: Sequence[Path]
    ) -> dict[str, Estimate]:
        true = [_true(item) for item in items]
        seen, wanted = (self.stages.features(self.clip, paths)["features"] for paths in (painted, true))
        side = self.config.compared
        prepare = resized(side) if side else None
        found = {
            "CLIP-I": mean(F.cosine_similarity(seen, wanted)),
            "LPIPS": mean(self.stages.distances(self.distance, painted, true, side, prepare=prepare)),
        }
        shown = [CaptionItem(item.key, _text(item), path) for item, path in zip(items, true, strict=True)]
        for score in self.scores:
            found |= score(shown, painted)
        return found


def run(config: ContextConfig, stages: Stages) -> list[TableResult]:
    """One result: ``CLIP-I: 5 captions`` and so on, by row.

    Raises:
        ValueError, FileNotFoundError: the configuration cannot be used; the message names what is wrong.
    """
    check_rows(config.rows, embedders=True)
    items = read_items(config.data, stages.folder / "data")
    is_story = all(isinstance(item, StoryItem) for item in items)
    if not is_story and not all(isinstance(item, DialogItem) for item in items):
        raise ValueError(f"'data' must be stories or dialogues, got {type(items[0]).__name__}")
    contexts = config.contexts or (STORY_CONTEXTS if is_story else DIALOG_CONTEXTS)
    clip, distance = (load_network(spec, config.device) for spec in (config.clip, config.distance))
    if not isinstance(clip, Extractor) or not isinstance(distance, Distance):
        raise ValueError(
            "'clip' must be an extractor of features and 'distance' a perceptual distance, got "
            f"{config.clip!r} and {config.distance!r}"
        )
    table = "story" if is_story else "dialog"
    asked = {context: _asked(items, context, config, stages) for context in contexts}
    measure = _Measure(config, clip, distance, stages, load_scores(config.scores))
    rows: dict[str, dict[str, Estimate]] = {}
    notes: dict[str, list[str]] = {}
    for row in config.rows:
        rows[row.name], notes[row.name] = {}, []
        for context in contexts:
            words_alone = not (row.embedder.kind or row.chat.engine)
            if words_alone and any(isinstance(part, Path) for part in asked[context][0].requests[0]):
                continue
            name = f"{table}, {context}"
            given, said = prompts_of_row(name, row, asked[context], "refine", config.seed, stages)
            painted = paint_turn(name, row, asked[context], given, 0, config.size, config.seed, stages)
            notes[row.name] += [f"{context}: {line}" for line in said]
            found = measure(items, painted)
            rows[row.name] |= {f"{metric}: {context}": value for metric, value in found.items()}
    conditions = {
        "pictures": len(items),
        "data": cache_key(items),
        **left_out(items),
        "size": config.size,
        "compared at": config.compared or "own size",
        **{
            network.name: f"{network.digest[:16]}, reads {network.preparation}"
            for network in (clip, distance)
        },
        "seed": config.seed,
    }
    return [TableResult(table, conditions, rows, notes)]


def request_in_context(item: StoryItem | DialogItem, context: str) -> Request:
    """What is shown of an item before its picture is asked for.

    Args:
        context: see ``ContextConfig.contexts``.

    Raises:
        ValueError: it is not of that form, asks for more than the item has, or not for what the item has.
    """
    match = _CONTEXT.fullmatch(context)
    has = "caption" if isinstance(item, StoryItem) else "round"
    if match is None or match["what"] != has or (match["pictures"] and has == "round"):
        example = STORY_CONTEXTS[-1] if has == "caption" else DIALOG_CONTEXTS[-1]
        raise ValueError(f"'contexts' of {item.key!r} must be such as {example!r}, got {context!r}")
    count, pictures = int(match["texts"]), int(match["pictures"] or 0)
    if isinstance(item, DialogItem):
        if not 1 <= count <= len(item.rounds):
            raise ValueError(
                f"'contexts': the dialogue {item.key!r} has {len(item.rounds)} rounds, got {context!r}"
            )
        return ("\n".join(f"Q: {question}?\nA: {answer}" for question, answer in item.rounds[:count]),)
    if not 1 <= count <= len(item.captions) or pictures >= count:
        raise ValueError(
            f"'contexts': the story {item.key!r} has {len(item.captions)} captions and a picture before each but the last, "
            f"got {context!r}"
        )
    parts: list[str | Path] = []
    first = len(item.captions) - count
    for i, caption in enumerate(item.captions[first:], first):
        parts.append(caption)
        if len(item.captions) - 1 - pictures <= i < len(item.captions) - 1:
            parts.append(item.pictures[i])
    return tuple(parts)


def resized(side: int) -> Prepare:
    """A function that resizes a picture to ``side`` × ``side`` pixels, whatever its shape."""

    def prepare(picture: Image.Image) -> Image.Image:
        return picture.resize((side, side), Image.Resampling.BILINEAR)

    return prepare


def _asked(
    items: Sequence[StoryItem | DialogItem], context: str, config: ContextConfig, stages: Stages
) -> list[AskedConversation]:
    """The items in a context; pictures that are shown are squeezed first."""
    found = []
    for item in items:
        request = request_in_context(item, context)
        found.append(AskedConversation(item.key, (request,), (request_text(request),)))
    shown = sorted({part for one in found for part in one.requests[0] if isinstance(part, Path)})
    if not shown or not config.squeezed:
        return found
    squeeze = resized(config.squeezed)
    keys = [f"{number:06d}" for number in range(len(shown))]
    made = stages.map_pictures(
        "pictures that are shown",
        keys,
        lambda i: squeeze(read_picture(shown[i])),
        shown,
        config.squeezed,
        READING,
    )
    small = dict(zip(shown, made, strict=True))
    return [
        AskedConversation(
            one.key,
            (tuple(small[part] if isinstance(part, Path) else part for part in one.requests[0]),),
            one.plain,
        )
        for one in found
    ]


def _true(item: StoryItem | DialogItem) -> Path:
    return item.pictures[-1] if isinstance(item, StoryItem) else item.picture


def _text(item: StoryItem | DialogItem) -> str:
    if isinstance(item, StoryItem):
        return " ".join(item.captions)
    return " ".join(f"{question}? {answer}" for question, answer in item.rounds)
