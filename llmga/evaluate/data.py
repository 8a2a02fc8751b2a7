"""Which evaluation set a task reads: a published one from its folder, or a function of your own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .estimates import Estimate
from .named import named_function
from .rfbench import load_prompts, own_prompts
from .sources import evenly, read_coco, read_magicbrush, read_masked, read_visdial, read_vist


@dataclass(frozen=True)
class DataConfig:
    """An evaluation set."""

    kind: str
    """``coco``, ``masked``, ``magicbrush``, ``vist``, ``visdial``, ``rfbench`` (the published list), ``prompts`` (our own
    prompts of RFBench's sub-categories), or ``package.module:function``, which gets this configuration and a folder of its
    own to draw in, and returns items."""
    folder: str = ""
    annotations: str = ""
    """In the folder; for coco and vist the captions, for magicbrush the descriptions (global_descriptions.json by default),
    for rfbench the CSV file, for visdial the split (val by default)."""
    images: str = ""
    """In the folder; for coco and vist."""
    count: int | None = None
    """Takes so many items, evenly spread; null takes all. For ``turns: iterative`` it takes so many whole sessions of
    MagicBrush, and else so many turns."""

    def __post_init__(self) -> None:
        if self.count is not None and self.count < 1:
            raise ValueError(f"'count' must be at least 1, or null for all, got {self.count}")


def read_items(config: DataConfig, work: Path) -> list[Any]:
    """The items of an evaluation set; see ``sources``.

    Args:
        work: where a function of your own may write pictures.

    Raises:
        FileNotFoundError, ValueError: the files are not there or not laid out as published; or the kind is unknown.
    """
    folder = Path(config.folder)
    if config.kind == "coco":
        return read_coco(folder, config.annotations, config.images, config.count)
    if config.kind == "masked":
        return read_masked(folder, config.count)
    if config.kind == "magicbrush":
        return evenly(read_magicbrush(folder, config.annotations or "global_descriptions.json"), config.count)
    if config.kind == "vist":
        return read_vist(folder, config.annotations, config.images, config.count)
    if config.kind == "visdial":
        return read_visdial(folder, config.annotations or "val", config.count)
    if config.kind == "rfbench":
        return evenly(load_prompts(folder / config.annotations), config.count)
    if config.kind == "prompts":
        return evenly(own_prompts(), config.count)
    return list(named_function(config.kind, "data.kind")(config, work))


Score = Callable[[Sequence[Any], Sequence[Path]], dict[str, Estimate]]
"""What somebody's own judge finds in pictures: from items and the pictures made of them to named estimates."""


def load_scores(names: Sequence[str]) -> list[Score]:
    """The judges that a configuration names: ``package.module:function`` is one, ``package.module:function:path`` makes one
    of a path."""
    judges = []
    for name in names:
        module, _, rest = name.partition(":")
        function, colon, path = rest.partition(":")
        judge = named_function(f"{module}:{function}" if colon else name, "scores")
        judges.append(judge(Path(path)) if colon else judge)
    return judges
