"""The widgets of LLMGA Scene Synthesis, checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, get_args

from ..llmga.diffusion.denoiser import CELL
from ..llmga.scene import SceneSettings
from ..llmga.scene.attention import PhraseAttention, SceneLayers
from ..llmga.scene.settings import AlonePlace
from . import check
from .edit_inputs import MOST_STEPS
from .prompt_encoder import LAYOUTS

SMALLEST_SIDE = 64
LARGEST_SIDE = 4096


@dataclass(frozen=True)
class SynthesisInputs:
    """The widgets of the node but its seed, checked.

    Raises:
        ValueError: a value is of another kind or out of range.
    """

    steps: Any
    cfg: Any
    width: Any
    height: Any
    guidance: Any
    replaced: Any
    suppression: Any
    keep_attention: Any
    threshold: Any
    margin: Any
    layout: Any
    alone_at: Any
    alone_negative: Any
    layers: Any
    phrase: Any

    def __post_init__(self) -> None:
        check.integer("steps", self.steps, 1, MOST_STEPS)
        check.integer("margin", self.margin, 0, 64)
        for name in ("width", "height"):
            check.integer(name, getattr(self, name), SMALLEST_SIDE, LARGEST_SIDE)
        limits = {
            "cfg": (1, 30),
            "guidance": (0, 50),
            "replaced": (0, 1),
            "suppression": (0, 100),
            "keep_attention": (0, 100),
            "threshold": (0, 1),
        }
        for name, (low, high) in limits.items():
            check.number(name, getattr(self, name), low, high)
        check.choice("layout", self.layout, LAYOUTS)
        check.choice("alone_at", self.alone_at, get_args(AlonePlace))
        check.choice("layers", self.layers, get_args(SceneLayers))
        check.choice("phrase", self.phrase, get_args(PhraseAttention))
        check.text("alone_negative", self.alone_negative)

    @property
    def size(self) -> tuple[int, int]:
        """(h, w) of the latent."""
        return self.height // CELL, self.width // CELL

    @property
    def note(self) -> str:
        """What is cut of the size: a latent has whole cells."""
        height, width = (cells * CELL for cells in self.size)
        cut = (height, width) != (self.height, self.width)
        return (
            f"{self.width}×{self.height} was cut to {width}×{height}: sides are multiples of {CELL}"
            if cut
            else ""
        )

    @property
    def settings(self) -> SceneSettings:
        return SceneSettings.guided_alike(
            float(self.guidance),
            float(self.suppression),
            float(self.keep_attention),
            steps=self.steps,
            cfg=float(self.cfg),
            replaced=float(self.replaced),
            threshold=float(self.threshold),
            margin=self.margin,
            layers=self.layers,
            alone_at=self.alone_at,
            alone_negative=self.alone_negative,
            phrase=self.phrase,
        )
