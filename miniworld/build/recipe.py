"""What a miniature is made of: the settings of each stage, and the files that stages write."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, is_dataclass, replace
from pathlib import Path
from typing import Any

from ..train import Stage2Config
from .autoencoder import AutoencoderConfig
from .check import CheckConfig
from .dataset import Mix, Painted, Scenes, painted
from .language import LanguageConfig
from .reader import ReaderConfig
from .restorer import RestorerConfig
from .words import WordsConfig

# What is only needed on the way:
COLOURS, SHAPES, AUTOENCODER, WORDS, BASE = (
    f"parts/{name}.safetensors" for name in ("colours", "shapes", "autoencoder", "words", "base")
)
# What is there to be used, in folders as ComfyUI's:
CHECKPOINT = "checkpoints/llmga-mini.safetensors"
UNETS = {
    "stage2": "diffusion_models/llmga-mini-t2i/unet",
    "inpainting": "diffusion_models/llmga-mini-inpainting-base/unet",
    "stage2_inpainting": "diffusion_models/llmga-mini-inpainting/unet",
}
WEIGHTS = "diffusion_pytorch_model.safetensors"
LANGUAGE = "LLM/llmga-mini"
RESTORERS = {
    name: f"diffrir/llmga-mini-x1{name.replace('restorer', '').replace('no ', '-no-')}.safetensors"
    for name in ("restorer", "no reference", "no colour")
}
READER = "reader.safetensors"
CHECK = "check.json"
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class PainterConfig:
    """How a UNet is trained."""

    training: Stage2Config
    scenes: int
    """How many of the painted scenes it learns from."""
    captions: Mix = field(default_factory=Mix)


@dataclass(frozen=True)
class Minutes:
    """Training time of each stage; 0 takes ``loop.steps`` as given. The steps that fit are measured once, then kept."""

    colours: float = 0.0
    shapes: float = 0.0
    whole: float = 0.0
    words: float = 0.0
    reader: float = 0.0
    base: float = 0.0
    stage2: float = 0.0
    inpainting: float = 0.0
    stage2_inpainting: float = 0.0


@dataclass(frozen=True)
class Recipe:
    scenes: Scenes
    colours: AutoencoderConfig
    """The autoencoder's first run."""
    shapes: AutoencoderConfig
    """Its second, from where the first ended."""
    whole: AutoencoderConfig
    """Its last, on whole pictures: one that saw crops alone paints ghosts where no border is near."""
    words: WordsConfig
    reader: ReaderConfig
    base: PainterConfig
    stage2: PainterConfig
    inpainting: PainterConfig
    stage2_inpainting: PainterConfig
    restorers: RestorerConfig
    language: LanguageConfig
    check: CheckConfig = field(default_factory=CheckConfig)
    minutes: Minutes = field(default_factory=Minutes)
    workers: int = 0
    """Processes that paint scenes; 0 takes one per core."""


@dataclass(frozen=True)
class Workshop:
    """A recipe, where its results go, and where its stages may leave what only they need."""

    recipe: Recipe
    out: Path
    work: Path

    def painted(self, count: int) -> Painted:
        """The first ``count`` painted scenes."""
        source = painted(self.recipe.scenes, self.work / "cache", self.recipe.workers)
        scenes = replace(self.recipe.scenes, count=count)
        return Painted(scenes, source.pictures[:count], source.labels[:count])


def plain(value: Any) -> Any:
    """Only what JSON knows."""
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
