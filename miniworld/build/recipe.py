"""Recipe of a miniature: the settings of each stage."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from llmga.train import Stage2Config
from llmga.train.controlnet import ControlNetConfig

from ..checks.painter import CheckConfig
from ..models.architecture import PICTURE
from ..models.autoencoder import AutoencoderConfig
from ..models.embedding import MiniatureEmbedding
from ..models.gill import MiniatureGILL
from ..models.language import LanguageConfig
from ..models.reader import ReaderConfig
from ..models.restorer import RestorerConfig
from ..models.text_encoder import WordsConfig
from ..world.dataset import Mix, Painted, Scenes, painted

RECIPES = Path(__file__).with_name("recipes")
"""The folder of the recipes that can be named."""


@dataclass(frozen=True)
class PainterConfig:
    """How a UNet is trained."""

    training: Stage2Config
    scenes: int
    """How many of the painted scenes it learns from."""
    captions: Mix = field(default_factory=Mix)


@dataclass(frozen=True)
class ControlledPainterConfig(PainterConfig):
    """How a ControlNet is trained."""

    training: ControlNetConfig


@dataclass(frozen=True)
class TimeBudget:
    """Training time of each stage; 0 takes ``loop.steps`` as given. The steps that fit are measured once, then kept."""

    encoder: float = 0.0
    decoder: float = 0.0
    words: float = 0.0
    reader: float = 0.0
    base: float = 0.0
    stage2: float = 0.0
    inpainting: float = 0.0
    stage2_inpainting: float = 0.0
    controlnet: float = 0.0


@dataclass(frozen=True)
class Recipe:
    scenes: Scenes
    encoder: AutoencoderConfig
    """The autoencoder's first run, of both halves."""
    decoder: AutoencoderConfig
    """Its second, of the decoder alone, on larger crops: one that saw small ones alone paints ghosts where no border is
    near. What needs the encoder's latents alone need not wait for it."""
    words: WordsConfig
    reader: ReaderConfig
    base: PainterConfig
    stage2: PainterConfig
    inpainting: PainterConfig
    stage2_inpainting: PainterConfig
    controlnet: ControlledPainterConfig
    restorers: RestorerConfig
    language: LanguageConfig
    gill: MiniatureGILL
    embedding: MiniatureEmbedding
    check: CheckConfig = field(default_factory=CheckConfig)
    minutes: TimeBudget = field(default_factory=TimeBudget)
    workers: int = 0
    """Processes that paint scenes; 0 takes one per core."""


@dataclass(frozen=True)
class BuildContext:
    """A recipe, where its results go, and where its stages may leave what only they need."""

    recipe: Recipe
    out: Path
    work: Path

    def painted(self, count: int) -> Painted:
        """The first ``count`` painted scenes."""
        source = painted(self.recipe.scenes, self.work / "cache", self.recipe.workers, PICTURE)
        scenes = replace(self.recipe.scenes, count=count)
        return Painted(scenes, source.pictures[:count], source.labels[:count])
