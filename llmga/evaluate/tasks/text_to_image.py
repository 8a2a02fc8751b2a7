"""Table 1: pictures from captions, by FID and Inception Score.

A short caption is painted as it is, or refined by a chat engine first. The paper does not say which split and how many
pictures of COCO it takes, nor how real pictures are cropped; here both are settings, and stand in the result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from ..cache_keys import cache_key
from ..data import DataConfig, load_scores, read_items
from ..estimates import Estimate, draws, resampled
from ..extractors import Extractor, load_network
from ..metrics import frechet_distance, inception_parts, inception_score
from ..paper import Claim
from ..prompting import AskedConversation, paint_turn, prompts_of_row
from ..results import TableResult
from ..sources import CaptionItem, left_out
from ..stages import Row, Stages, centre_square


@dataclass(frozen=True)
class TextToImageConfig:
    """Settings of Table 1."""

    data: DataConfig
    rows: tuple[Row, ...]
    network: str
    """Of FID and IS; see ``llmga evaluate --help``. The paper's is ``inception:FILE``."""
    size: int = 512
    """Sides of the painted pictures, in pixels."""
    splits: int = 10
    """Of the Inception Score, which is left out of fewer than twice as many pictures; the result then says so."""
    bootstrap: int = 20
    """Samples for the error of the FID; 0 leaves it out."""
    seed: int = 0
    scores: tuple[str, ...] = ()
    """Judges of your own, ``package.module:function`` each."""
    claims: tuple[Claim, ...] = ()
    device: str = "cpu"
    """Of the network."""
    minutes: float = 0.0
    """Of one CPU core, for ``llmga evaluate all`` to say beforehand what it takes; 0 where nobody measured it."""


def run(config: TextToImageConfig, stages: Stages) -> list[TableResult]:
    """Table 1 as one result.

    Raises:
        ValueError, FileNotFoundError: the configuration cannot be used; the message names what is wrong.
    """
    check_rows(config.rows, embedders=True)
    if config.splits < 1:
        raise ValueError(f"'splits' must be at least 1, got {config.splits}")
    items: list[CaptionItem] = read_items(config.data, stages.folder / "data")
    check_enough(items, "data.count")
    network = load_network(config.network, config.device)
    if not isinstance(network, Extractor):
        raise ValueError(f"'network' must be an extractor of features, got {config.network!r}")
    scores = load_scores(config.scores)
    data = cache_key(items)
    square = centre_square(config.size)
    real = stages.features(network, [item.picture for item in items], config.size, prepare=square)["features"]
    rows, notes = {}, {}
    for row in config.rows:
        painted, notes[row.name] = _painted(row, items, config, stages)
        found = stages.features(network, painted)
        rows[row.name] = {"FID": frechet_estimate(found["features"], real, config.bootstrap)}
        if "logits" in found:
            if len(items) >= 2 * config.splits:
                rows[row.name]["IS"] = inception_estimate(found["logits"], config.splits)
            notes[row.name] += inception_notes(len(items), config.splits)
        for score in scores:
            rows[row.name] |= score(items, painted)
    return [TableResult("t2i", conditions(config, network, data, items), rows, notes)]


def _painted(
    row: Row, items: Sequence[CaptionItem], config: TextToImageConfig, stages: Stages
) -> tuple[list[Path], list[str]]:
    """The pictures of a row, and what must be said of its prompts."""
    asked = [AskedConversation(item.key, ((item.caption,),), (item.caption,)) for item in items]
    given, said = prompts_of_row("t2i", row, asked, "refine", config.seed, stages)
    return paint_turn("t2i", row, asked, given, 0, config.size, config.seed, stages), said


def check_rows(rows: Sequence[Row], embedders: bool = False) -> None:
    """Raise unless there are rows, each has a name of its own, and none embeds where words alone are taken.

    Args:
        embedders: whether the table takes text states in the place of a prompt.
    """
    names = [row.name for row in rows]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"'rows' must hold rows with different names, got {names}")
    if embedding := [row.name for row in rows if row.embedder.kind and not embedders]:
        raise ValueError(f"the row {embedding[0]!r} names an 'embedder', and this table takes words alone")


def check_enough(items: Sequence[object], key: str) -> None:
    """Raise unless there are two items, which a FID needs; ``key`` is what says how many are taken."""
    if len(items) < 2:
        raise ValueError(
            f"a FID needs at least 2 pictures, got {len(items)}; raise {key!r}, or add to the set"
        )


def conditions(
    config: TextToImageConfig, network: Extractor, data: str, items: Sequence[CaptionItem]
) -> dict[str, object]:
    """What the figures of a result depend on."""
    return {
        "pictures": len(items),
        "data": data,
        **left_out(items),
        "size": config.size,
        "real pictures": f"largest square in the middle, resized to {config.size}",
        "network": f"{network.name} ({network.digest[:16]})",
        "network reads": network.preparation,
        "splits": config.splits,
        "seed": config.seed,
    }


def frechet_estimate(features: torch.Tensor, real: torch.Tensor, samples: int) -> Estimate:
    """The Fréchet distance of two sets of features, and its error over bootstrap samples of the items (NaN for none).

    A sample draws an item's painted and its real picture together: sets that show the same items lie nearer to each other
    than sets that do not.

    Args:
        features, real: (N, C) each, of the same items in the same order.
    """
    value = frechet_distance(features, real)
    if samples < 2:
        return Estimate(value, float("nan"), len(features))
    if len(features) != len(real):
        raise ValueError(f"each picture must have its real one, got {len(features)} and {len(real)}")
    found = [frechet_distance(features[pick], real[pick]) for pick in draws(len(features), samples)]
    return resampled(value, found, len(features))


def inception_estimate(logits: torch.Tensor, splits: int) -> Estimate:
    """The Inception Score of logits (N, classes): mean over splits, and the standard error of that mean.

    Raises:
        ValueError: see ``inception_score``.
    """
    value, spread = inception_score(logits, nn.Identity(), splits)
    return Estimate(value, spread / inception_parts(len(logits), splits) ** 0.5, len(logits))


def inception_notes(count: int, splits: int) -> list[str]:
    """What a table must say of the Inception Score of so many pictures; nothing where they divide into the splits."""
    if count < 2 * splits:
        return [
            f"no IS, because {count} pictures are fewer than twice 'splits' ({splits}): raise 'data.count' or lower 'splits'"
        ]
    parts = inception_parts(count, splits)
    return (
        [f"IS of {parts} parts, for {count} pictures give no {splits} parts of one size"]
        if parts < splits
        else []
    )
