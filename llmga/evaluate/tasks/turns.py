"""Figure 5: the quality of pictures turn by turn in a conversation, from words and from embeddings.

The paper asks for "the same prompts in multiple times in conversation form", on COCO, and prints a plot without figures.
Here a conversation asks for one caption again at each turn (``order: same``), or for another one each time
(``order: shifted``); either way every caption is asked for once at every turn, so the turns are measured on equal sets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..cache_keys import cache_key
from ..data import DataConfig, load_scores, read_items
from ..estimates import Estimate
from ..extractors import Extractor, load_network
from ..paper import Claim
from ..prompting import AskedConversation, paint_turn, prompts_of_row
from ..results import TableResult
from ..sources import CaptionItem, TurnsItem, left_out
from ..stages import Row, Stages, centre_square
from .text_to_image import check_enough, check_rows, frechet_estimate


@dataclass(frozen=True)
class TurnsConfig:
    """Settings of Figure 5."""

    data: DataConfig
    rows: tuple[Row, ...]
    network: str
    """Of the FID; the paper's is ``inception:FILE``."""
    turns: int = 8
    """Of each conversation."""
    order: Literal["same", "shifted"] = "same"
    """Of captions: one again and again, or the next one at each turn. Conversations of your own stay as they are."""
    task: str = "refine"
    """What a chat engine is asked at each turn; ``chat`` says the requests as they are."""
    size: int = 512
    """Sides of the painted pictures, in pixels."""
    bootstrap: int = 20
    """Samples for the error of the FID; 0 leaves it out."""
    seed: int = 0
    scores: tuple[str, ...] = ()
    """Judges of your own, ``package.module:function`` each; they are asked turn by turn."""
    claims: tuple[Claim, ...] = ()
    device: str = "cpu"
    """Of the network."""
    minutes: float = 0.0
    """Of one CPU core, for ``llmga evaluate all`` to say beforehand what it takes; 0 where nobody measured it."""


def run(config: TurnsConfig, stages: Stages) -> list[TableResult]:
    """Figure 5 as one result: ``FID: turn 1`` and so on, and each judge's figures by turn.

    Raises:
        ValueError, FileNotFoundError: the configuration cannot be used; the message names what is wrong.
    """
    check_rows(config.rows, embedders=True)
    read = read_items(config.data, stages.folder / "data")
    items = conversations(read, config.turns, config.order)
    check_enough(items, "data.count")
    network = load_network(config.network, config.device)
    if not isinstance(network, Extractor):
        raise ValueError(f"'network' must be an extractor of features, got {config.network!r}")
    scores = load_scores(config.scores)
    square = centre_square(config.size)
    asked = [
        AskedConversation(item.key, tuple((text,) for text in item.requests), item.requests) for item in items
    ]
    rows: dict[str, dict[str, Estimate]] = {}
    notes = {}
    for row in config.rows:
        given, notes[row.name] = prompts_of_row("turns", row, asked, config.task, config.seed, stages)
        by_metric: dict[str, dict[str, Estimate]] = {}
        for turn in range(config.turns):
            painted = paint_turn("turns", row, asked, given, turn, config.size, config.seed, stages)
            true = [item.pictures[turn] for item in items]
            real = stages.features(network, true, config.size, prepare=square)["features"]
            found = {
                "FID": frechet_estimate(
                    stages.features(network, painted)["features"], real, config.bootstrap
                ),
                **_judged(scores, items, turn, painted),
            }
            for metric, estimate in found.items():
                by_metric.setdefault(metric, {})[f"{metric}: turn {turn + 1}"] = estimate
        rows[row.name] = {name: value for turns in by_metric.values() for name, value in turns.items()}
    conditions = {
        "pictures": len(items),
        "data": cache_key(items),
        **left_out(read),
        "turns": config.turns,
        "order": config.order,
        "size": config.size,
        "real pictures": f"largest square in the middle, resized to {config.size}",
        "network": f"{network.name} ({network.digest[:16]})",
        "network reads": network.preparation,
        "seed": config.seed,
    }
    return [TableResult("turns", conditions, rows, notes)]


def conversations(items: Sequence[Any], turns: int, order: Literal["same", "shifted"]) -> list[TurnsItem]:
    """Conversations of so many turns: of captions, or those of a set of one's own, cut to them.

    Raises:
        ValueError: ``turns`` is below 1, a conversation has fewer, or items are of another kind.
    """
    if turns < 1:
        raise ValueError(f"'turns' must be at least 1, got {turns}")
    if all(isinstance(item, TurnsItem) for item in items):
        short = [item.key for item in items if len(item.requests) < turns]
        if short:
            raise ValueError(f"'turns' is {turns}, and the conversation {short[0]!r} has fewer")
        return [
            TurnsItem(item.key, item.requests[:turns], item.captions[:turns], item.pictures[:turns])
            for item in items
        ]
    if not all(isinstance(item, CaptionItem) for item in items):
        raise ValueError(f"'data' must be captions or conversations, got {type(items[0]).__name__}")
    found = []
    for number, item in enumerate(items):
        step = 0 if order == "same" else 1
        chosen = [items[(number + step * turn) % len(items)] for turn in range(turns)]
        texts = tuple(one.caption for one in chosen)
        found.append(TurnsItem(item.key, texts, texts, tuple(one.picture for one in chosen)))
    return found


def _judged(
    scores: Sequence[Any], items: Sequence[TurnsItem], turn: int, painted: Sequence[Path]
) -> dict[str, Estimate]:
    shown = [CaptionItem(item.key, item.captions[turn], item.pictures[turn]) for item in items]
    found: dict[str, Estimate] = {}
    for score in scores:
        found |= score(shown, painted)
    return found
