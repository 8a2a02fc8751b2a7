"""Training: one loop, strict configurations, and the trainers of LLMGA's networks."""

from .captioned_images import CaptionedPictures, Pictures, names_a_side
from .config import build, presets, read_config, write_config
from .controlnet import ControlNetConfig, ControlNetStage
from .example_order import ExampleOrder, derive, generator
from .loop import LoopConfig, Metrics, Objective, Trainer, Weights, learning_rate, train
from .stage2 import Stage2, Stage2Config

__all__ = [
    "CaptionedPictures",
    "ControlNetConfig",
    "ControlNetStage",
    "LoopConfig",
    "Metrics",
    "Objective",
    "ExampleOrder",
    "Pictures",
    "Stage2",
    "Stage2Config",
    "Trainer",
    "Weights",
    "build",
    "derive",
    "generator",
    "learning_rate",
    "names_a_side",
    "presets",
    "read_config",
    "train",
    "write_config",
]
