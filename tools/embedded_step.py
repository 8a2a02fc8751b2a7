"""What the nodes of the embedded engine share: where files are, what a node may use, outputs that are lists."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

Prompt = dict[str, dict[str, Any]]
OnEvent = Callable[[str, str], None]
"""``on_event(title, text)``: a node started, or has text to show."""


@dataclass
class Workspace:
    """Where the embedded engine finds what a ComfyUI would find in its folders."""

    models: Path
    endpoints: Path
    inputs: Path
    outputs: Path


@dataclass
class Step:
    workspace: Workspace
    cache: dict[str, Any]
    on_text: Callable[[str], None]


@dataclass(frozen=True)
class Conditioned:
    """A conditioning (B, rows, width) with more than text."""

    context: torch.Tensor
    beside: torch.Tensor | None = None
    """Mask and masked latent (B, 5, h, w) that an inpainting UNet sees beside its latent."""
    control: Any = None
    """A ControlNet with its edges, ``miniworld.models.sampling.Control``."""


Result = tuple[tuple[Any, ...], dict[str, Any]]


class Many(list[Any]):
    """An output that is a list in ComfyUI: what it goes to runs once for each."""


def run_each(run: Callable[..., Result], step: Step, inputs: dict[str, Any]) -> Result:
    """Run a node, once for each where an input is a list; what it shows is put together."""
    lists = [value for value in inputs.values() if isinstance(value, Many)]
    if not lists:
        return run(step, **inputs)
    rows: list[tuple[Any, ...]] = []
    together: dict[str, Any] = {}
    for i in range(max(map(len, lists))):
        one = {
            name: value[min(i, len(value) - 1)] if isinstance(value, Many) else value
            for name, value in inputs.items()
        }
        outputs, ui = run(step, **one)
        rows.append(outputs)
        for key, values in ui.items():
            together[key] = [*together.get(key, []), *values]
    return tuple(Many(column) for column in zip(*rows, strict=True)), together
