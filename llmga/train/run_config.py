"""The ``config.yaml`` of a run's folder: what was trained there, against which a run that goes on is held."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from . import checkpoint
from .config import read_config, write_config

_log = logging.getLogger(__name__)

NAME = "config.yaml"

FREE = frozenset({
    "loop", "prior", "critic_milestones",  # the checkpoint's own identity holds the seed and the batches
    "weights", "loss_weight", "box_loss", "box_loss_end", "count_weight", "perceptual_weight", "gan_weight",
    "caption_dropout", "lora_dropout", "noise_offset",
    "samples", "sample_steps", "guidance",
    "cache", "cache_dtype", "cache_in_memory", "gradient_checkpointing",
    "export_dtype", "merge",
})  # fmt: skip
"""Keys that a run which goes on may change, with all below them: how it is optimized, shown, computed and exported. All
others say what is trained, on what and from what."""


def check_config(config: Any, output: Path) -> None:
    """Hold a configuration against that of what was trained in ``output`` before, if anything was.

    Nothing is written; ``write_config`` is to be called once the checkpoint is accepted too. Changed keys among ``FREE`` are
    listed in one line of the log.

    Raises:
        ValueError: other keys differ, which the message lists, or the old ``config.yaml`` cannot be read.
    """
    file = output / NAME
    trained = checkpoint.latest(output / "checkpoints") or any(
        (output / name).exists() for name in ("result", "adapter")
    )
    if not trained or not file.is_file():
        return
    way_out = f"give the old values or another output folder; where only a path's name changed, change it in {file} too"
    try:
        before = dict(_flat(read_config(type(config), file)))
    except ValueError as error:
        raise ValueError(f"{output} was trained with another configuration ({error}); {way_out}") from error
    now = dict(_flat(config))
    changed = {
        key: f"{key} {_shown(before, key)}, now {_shown(now, key)}"
        for key in {**before, **now}
        if key not in before or key not in now or before[key] != now[key]
    }
    refused = [text for key, text in changed.items() if key.partition(".")[0] not in FREE]
    if refused:
        raise ValueError(f"{output} was trained with another configuration: {'; '.join(refused)}; {way_out}")
    if changed:
        _log.warning("%s goes on with changed settings: %s", output, "; ".join(changed.values()))


def write_run_config(config: Any, output: Path) -> None:
    """Write the configuration of a run that was accepted."""
    write_config(config, output / NAME)


def _flat(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """The values of a configuration by dotted key; lists are values."""
    if not dataclasses.is_dataclass(value):
        yield key, value
        return
    for field in dataclasses.fields(value):
        yield from _flat(getattr(value, field.name), f"{key}.{field.name}" if key else field.name)


def _shown(values: dict[str, Any], key: str) -> str:
    """A value as it is written in YAML, or what it is part of."""
    if key not in values:
        return "not given"
    value = values[key]
    text = str(value) if isinstance(value, Path) else repr(value)
    return text if len(text) <= 200 else text[:200] + "…"
