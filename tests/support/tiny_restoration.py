"""DiffRIR's stages small enough to train in a test: networks of 40 000 weights, eight pictures of 40 pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from llmga.restore import Architecture, DiffRIRS1, DiffRIRS2
from llmga.train.config import build
from llmga.train.critic import VGG_LAYERS, FeatureDistance
from llmga.train.degraded_images import DegradedImages
from llmga.train.diffrir import new_net
from llmga.train.diffrir_gan import GanConfig, GanTrainer
from llmga.train.diffrir_s1 import S1Config, S1Trainer
from llmga.train.diffrir_s2 import S2Config, train_s2
from llmga.train.loop import train
from support.diffrir_weights import uniform

LOOP: dict[str, Any] = {
    "steps": 4,
    "batch": 4,
    "micro_batch": 2,
    "lr": 1e-3,
    "ema": 0.99,
    "log_every": 1,
    "save_every": 1,
    "deterministic": True,
    "cpu": True,
}
SIZES: dict[str, Any] = {
    "dim": 8,
    "num_blocks": [1, 1, 1, 0],
    "num_refinement_blocks": 1,
    "n_feats": 4,
    "n_encoder_res": 1,
}


class Clean:
    """Smooth random pictures."""

    def __len__(self) -> int:
        return 8

    def image(self, i: int) -> torch.Tensor:
        coarse = (uniform(f"picture {i}", 1, 3, 5, 5) + 1) / 2
        return torch.nn.functional.interpolate(coarse, size=(40, 36), mode="bicubic")[0].clamp(0, 1)


def config(kind: type, loop: dict[str, Any] | None = None, network: Any = None, **values: Any) -> Any:
    plain = {"crops": {"canvas": 40, "size": 32}, "samples": 2}
    return build(
        kind,
        {**plain, "loop": {**LOOP, **(loop or {})}, "network": {**SIZES, **(network or {})}, **values},
    )


def examples(settings: Any) -> DegradedImages:
    return DegradedImages(Clean(), settings.crops, settings.network.scale)


def teacher(settings: Any) -> DiffRIRS1:
    return new_net(DiffRIRS1, settings)


def distance() -> FeatureDistance:
    """VGG's layers, random and narrow, in its order of the first two levels."""
    from torch import nn

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = nn.Sequential(
            *(
                nn.Conv2d(3, 4, 3, 1, 1),
                nn.ReLU(inplace=True),
                nn.Conv2d(4, 4, 3, 1, 1),
                nn.ReLU(inplace=True),
            )
        )
    return FeatureDistance(layers, {2: VGG_LAYERS[2]})


def train_s1_tiny(output: Path, **loop: Any) -> Path:
    torch.set_num_threads(1)
    settings = config(S1Config, loop)
    return train(S1Trainer(settings, examples(settings)), settings.loop, output)


def train_s2_tiny(output: Path, **loop: Any) -> Path:
    torch.set_num_threads(1)
    settings = config(S2Config, loop, prior={**LOOP, **loop}, composite=True)
    return train_s2(settings, examples(settings), teacher(settings), output)


def train_gan_tiny(output: Path, **loop: Any) -> Path:
    torch.set_num_threads(1)
    settings = config(GanConfig, loop, critic_features=4)
    net = new_net(DiffRIRS2, settings)
    return train(
        GanTrainer(settings, examples(settings), teacher(settings), net, distance()), settings.loop, output
    )


def files(folder: Path) -> dict[str, torch.Tensor]:
    """Every tensor of a result, under its file's name."""
    from safetensors.torch import load_file

    return {
        f"{path.name}/{name}": value
        for path in sorted(folder.glob("*.safetensors"))
        for name, value in load_file(path).items()
    }


def architecture(**values: Any) -> Architecture:
    return build(Architecture, {**SIZES, **values})
