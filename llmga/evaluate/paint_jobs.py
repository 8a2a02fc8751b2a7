"""What a painter is asked for, one picture at a time, what a painter is, and how a configuration names one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from PIL import Image

from ..text import JoinLayout
from .cache_keys import existing


@dataclass(frozen=True)
class SceneParts:
    """Which parts of RFNet a planned scene is painted with; its ablation leaves some out."""

    assess: bool = True
    """Choose among the descriptions those that agree; else the plan's own, joined by commas, are taken."""
    guidance: bool = True
    """Guide the attention of each object's words into its box."""
    suppression: bool = True
    """Keep the attention of each object's words out of the other boxes."""


@dataclass(frozen=True)
class PainterConfig:
    """What paints, and how."""

    kind: str = "diffusers"
    """``diffusers``, ``scene`` (a planned scene on a diffusers pipeline), ``comfyui``, or ``package.module:function``,
    which gets this configuration."""
    base: str = ""
    """For diffusers: the folder of a pipeline, an inpainting one where holes are filled."""
    unet: str = ""
    """For diffusers: the folder of another UNet, such as ``llmga train stage2`` writes; empty takes the pipeline's."""
    workflow: str = ""
    """For ComfyUI: an API prompt with placeholders; see ``comfyui_servers``."""
    servers: tuple[str, ...] = ()
    """For ComfyUI: addresses such as http://127.0.0.1:8188."""
    steps: int = 50
    """Not stated in the paper; LLMGA's scripts take 50."""
    guidance: float = 7.5
    """Not stated in the paper; LLMGA's scripts take 7.5."""
    layout: JoinLayout = "llmga"
    max_chunks: int = 4
    negative: str = ""
    scene: SceneParts | None = None
    """Given for a painter of planned scenes: its prompts are plans. The kind ``scene`` takes all parts by default."""
    batch: int = 1
    """Pictures of one unit of work; those of one size and one number of chunks are painted together."""
    device: str = "cpu"
    dtype: str = "float32"

    @property
    def depends_on(self) -> tuple[Path, ...]:
        """Those of the pipeline, the UNet and the workflow that are here."""
        return existing(self.base, self.unet, self.workflow)

    @property
    def paints_plans(self) -> bool:
        """Whether a prompt must be the plan of a scene."""
        return self.kind == "scene" or self.scene is not None


@dataclass(frozen=True)
class PaintJob:
    """One picture to be painted.

    Args:
        key: decides the noise, together with ``seed``.
        picture: to be filled where ``mask`` is white, or to be edited.
        source: the prompt of the picture before an edit.
        states: text states (rows, text) in the place of the prompt's, 75 n + 2 rows.
    """

    key: str
    prompt: str
    seed: int
    width: int
    height: int
    picture: Image.Image | None = None
    mask: Image.Image | None = None
    source: str = ""
    states: torch.Tensor | None = None


class JobPainter(Protocol):
    """Paints jobs."""

    def paint(self, jobs: Sequence[PaintJob]) -> list[Image.Image]:
        """One RGB picture for each job, in their order, of their sizes."""
        ...
