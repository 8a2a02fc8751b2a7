"""Base of the DiffRIR trainers: configuration, inputs, sample grids and exported weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ..images import to_pil
from ..restore import Architecture, DiffRIRS1, DiffRIRS2, join_inputs
from ..restore.prior import SLOPE, PriorDenoiser, PriorEncoder, Residual
from .config import check_samples
from .degraded_images import Crops, DegradedImages, Examples, PictureList, RestorationBatch
from .example_order import generator as seeded
from .loop import LoopConfig, Weights

RESULT = "restorer.safetensors"
Net = TypeVar("Net", DiffRIRS1, DiffRIRS2)


@dataclass(frozen=True)
class ListConfig:
    """See ``PictureList``."""

    paths: Path
    root: Path


@dataclass(frozen=True)
class RestorerConfig:
    """Configuration that all stages of DiffRIR share."""

    loop: LoopConfig
    network: Architecture = field(default_factory=Architecture)
    crops: Crops = field(default_factory=Crops)
    """Unused where examples are passed in, as is ``pictures``."""
    pictures: ListConfig | None = None
    samples: int = 4
    """Examples in a sample grid."""

    def __post_init__(self) -> None:
        check_samples(self)


class RestorerTrainer:
    """Base class of a trainer (see ``loop.Trainer``); subclasses add ``loss`` and ``restored``."""

    def __init__(
        self, config: RestorerConfig, examples: Examples, net: DiffRIRS1 | DiffRIRS2, *frozen: nn.Module
    ) -> None:
        self.config, self.examples, self.net, self._frozen = config, examples, net, frozen
        for module in frozen:
            module.requires_grad_(False).eval()

    def __len__(self) -> int:
        return len(self.examples)

    def modules(self) -> Mapping[str, nn.Module]:
        """The net's parts that have weights to train."""
        return {
            name: part for name, part in self.net.named_children() if any(True for _ in part.parameters())
        }

    def prepare(self, device: torch.device, rank: int, world: int, barrier: Callable[[], None]) -> None:
        self.device = device
        for module in (self.net, *self._frozen):
            module.to(device)

    def batch(self, indices: torch.Tensor, generator: torch.Generator) -> RestorationBatch:
        rng = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
        return self.examples.part(indices.tolist(), rng, self.device)

    def inputs(self, part: RestorationBatch) -> torch.Tensor:
        """What the networks take."""
        joined = join_inputs(part.image, part.truth, part.mask, self.config.network)
        return joined.contiguous(memory_format=torch.channels_last)

    def noise(self, part: RestorationBatch, generator: torch.Generator) -> torch.Tensor:
        shape = (len(part.image), self.config.network.prior)
        return torch.randn(shape, generator=generator).to(self.device)

    def restored(self, part: RestorationBatch, generator: torch.Generator) -> torch.Tensor:
        """(B, 3, H, W), as after training."""
        raise NotImplementedError

    def sample(self, step: int, folder: Path) -> None:
        """A PNG grid; its rows: degraded, reference, restored, the restored in the reference's hole, the truth."""
        count, seed = min(self.config.samples, len(self)), self.config.loop.seed
        part = self.batch(torch.arange(count), seeded(seed, "sample"))
        made = self.restored(part, seeded(seed, "sample noise")).float()
        kept = part.truth * (1 - part.mask)
        large = F.interpolate(part.image, scale_factor=self.config.network.scale)
        rows = (large, kept, made, kept + made * part.mask, part.truth)
        grid = torch.cat([torch.cat(list(row), 2) for row in rows], 1)
        to_pil(grid.permute(1, 2, 0)[None])[0].save(folder / f"step-{step:08d}.png")

    def export(self, folder: Path, weights: Weights) -> None:
        """``restorer.safetensors``, all of the net under its own names."""
        from safetensors.torch import save_file

        trained = {
            f"{module}.{name}": value for module in self.modules() for name, value in weights[module].items()
        }
        state = {name: value.detach().cpu().contiguous() for name, value in self.net.state_dict().items()}
        save_file({**state, **trained}, folder / RESULT, metadata={"format": "pt"})


def l1_and_psnr(made: torch.Tensor, truth: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The mean absolute difference, and the peak signal-to-noise ratio in dB of values in 0 .. 1."""
    return F.l1_loss(made, truth), -10 * F.mse_loss(made.detach(), truth).log10()


def new_net(kind: type[Net], config: RestorerConfig) -> Net:
    """Random weights, decided by the seed.

    Deviation: what makes the prior begins with He's weights. With PyTorch's own, from which the official trainers start,
    every layer fades what comes in: at the miniature's size the priors of two pictures differed by 0.0004, and nothing
    was learned for the first 600 steps at least, now for 450.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.loop.seed)
        net = kind(config.network)
        for module in net.modules():
            if isinstance(module, (PriorEncoder, PriorDenoiser)):
                module.apply(_he_init)
    return net


@torch.no_grad()
def _he_init(module: nn.Module) -> None:
    if isinstance(module, (nn.Conv2d, nn.Linear)):
        nn.init.kaiming_normal_(module.weight, a=SLOPE)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, Residual):
        nn.init.zeros_(list(module.body.parameters())[-2])  # many of them in a row are to begin as none


def load_net(kind: type[Net], config: RestorerConfig, path: Path | None, key: str) -> Net:
    """The result of another stage.

    Raises:
        ValueError: ``path`` is missing, or its weights are those of another network.
        FileNotFoundError: there is no such file.
    """
    from safetensors.torch import load_file

    if path is None:
        raise ValueError(f"{key} is needed: the {RESULT} of that stage")
    if not path.is_file():
        raise FileNotFoundError(f"{key}: {path} does not exist")
    net = new_net(kind, config)
    try:
        net.load_state_dict(load_file(path))
    except RuntimeError as error:
        raise ValueError(f"{key}: {path} does not fit network {config.network}: {error}") from error
    return net


def degraded_images_of(config: RestorerConfig) -> DegradedImages:
    """The examples that a configuration describes.

    Raises:
        ValueError: it names no pictures.
        FileNotFoundError: some of them are missing; the message names the list and the first ones.
    """
    if config.pictures is None:
        raise ValueError("pictures (paths, root) are needed")
    pictures = PictureList(config.pictures.paths, config.pictures.root)
    pictures.check()
    return DegradedImages(pictures, config.crops, config.network.scale)
