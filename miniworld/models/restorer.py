"""The miniature's restorer: DiffRIR x1, small, trained on the world's pictures, and its ablations.

As in the paper, S1 comes before S2, the prior is found in four steps, and S2 is scored by the hole alone. What differs
from the paper's numbers, and why:

- dim 12 for 64, 1-1-0-0 blocks and 1 for 13-1-1-1 and 13, a prior of 64 numbers for 256: 0.4 million weights, so that it
  learns in minutes on one core;
- crops of 32 pixels out of 48 that have a hole, of pictures of 128 (256 out of 400): many steps count more than many
  pixels, and objects are 30 pixels wide;
- ``MILD``: a painter's pictures here have gone through a small autoencoder and a shift of colours, not through cameras
  and the web; the paper's chain would leave nothing of such objects. Contrast within 8 % as in the released S2;
- most pictures are degraded by the painter itself instead, see ``Painter.repaint``. By the chain alone a net learns to
  sharpen, and draws rings along the lines that the painter leaves; by the autoencoder, whose loss of detail can't be
  undone, to blur; from what is painted, to match its colours with what was there;
- a picture is degraded once, see ``Pool``;
- a higher learning rate that falls as a cosine; no critic.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from llmga.data.degradations import Degradation, Pass, degrade, shift_colour
from llmga.paint.masks import MIXES
from llmga.restore import Architecture, DiffRIRS1, DiffRIRS2
from llmga.train import LoopConfig, derive, train
from llmga.train.degraded_images import Crops, Examples, RestorationBatch
from llmga.train.diffrir import RESULT, load_net
from llmga.train.diffrir_s1 import S1Config, S1Trainer
from llmga.train.diffrir_s2 import S2Config, train_s2

from ..world.dataset import Painted, as_images, as_pixels
from ..world.scene import Scene

SMALL = Architecture(dim=12, num_blocks=(1, 1, 0, 0), num_refinement_blocks=1, n_feats=16, n_encoder_res=1)
MILD = Degradation(
    first=Pass(
        sigma=(0.2, 1.5),
        resize_weights=(0.2, 0.5, 0.3),
        resize=(0.5, 1.2),
        noise_sigma=(0.0, 6.0),
        poisson_scale=(0.0, 0.5),
        jpeg=0.5,
        jpeg_quality=(60, 95),
    ),
    second=Pass(
        blur=0.5,
        sigma=(0.2, 0.8),
        resize_weights=(0.2, 0.3, 0.5),
        resize=(0.7, 1.1),
        noise_sigma=(0.0, 4.0),
        poisson_scale=(0.0, 0.3),
        jpeg=0.5,
        jpeg_quality=(60, 95),
    ),
    final_sinc=0.2,
    gain=0.08,
)


@dataclass(frozen=True)
class RestorerConfig:
    s1: LoopConfig
    prior: LoopConfig
    """S2's first phase, of the diffusion alone."""
    s2: LoopConfig
    pictures: int
    """How many of the painted scenes it learns from."""
    repainted: float = 0.7
    """The part of them that the painter degrades; the others, ``crops.degradation``."""
    network: Architecture = SMALL
    crops: Crops = field(default_factory=lambda: Crops(48, 32, degradation=MILD))


def variants(config: RestorerConfig) -> dict[str, RestorerConfig]:
    """The restorer and the paper's ablations: colours never shifted (its DiffRIR₁), and nothing to look at either (its
    DiffIR)."""
    still = replace(config.crops.degradation, gain=0.0, bias=0.0)
    no_colour = replace(config, crops=replace(config.crops, degradation=still))
    return {
        "restorer": config,
        "no reference": replace(no_colour, network=replace(config.network, reference=False)),
        "no colour": no_colour,
    }


class Pool:
    """Pictures (N, H, W, 3) uint8 and what has become of each.

    Degrading a picture takes longer than training on it, so each is degraded once, as a whole. (The official trainers keep a
    pool too, of 160 crops.)

    Args:
        degraded: by their numbers those that are degraded already; the others are by the degradation, its shift of colours
            aside.
    """

    def __init__(
        self, truth: np.ndarray, degradation: Degradation, seed: int, degraded: Mapping[int, np.ndarray]
    ) -> None:
        self.truth, self.degraded = truth, np.empty_like(truth)
        still = replace(degradation, gain=0.0, bias=0.0)
        for i, pixels in enumerate(truth):
            if i in degraded:
                self.degraded[i] = degraded[i]
            else:
                rng = np.random.default_rng(derive(seed, i, "pool"))
                self.degraded[i] = as_pixels(degrade(_images(pixels[None]), rng, still) * 2 - 1)[0]


class PoolCrops:
    """Crops, mirrorings, holes and colours, drawn anew every time (see ``llmga.train.degraded_images.Examples``)."""

    def __init__(self, pool: Pool, crops: Crops) -> None:
        self.pool, self.crops = pool, crops

    def __len__(self) -> int:
        return len(self.pool.truth)

    def part(
        self, indices: Sequence[int], rng: np.random.Generator, device: torch.device
    ) -> RestorationBatch:
        drawn = [self._draw(i, rng) for i in indices]
        truth, degraded, mask = (np.stack(values) for values in zip(*drawn, strict=True))
        d, shape = self.crops.degradation, (len(drawn), 1, 1, 1)
        gain = torch.from_numpy(1 + rng.uniform(-d.gain, d.gain, shape)).float()
        bias = torch.from_numpy(rng.uniform(-d.bias, d.bias, shape)).float()
        image = shift_colour(_images(degraded), gain, bias).to(device)
        whole = _images(truth).to(device)
        return RestorationBatch(image, whole, torch.from_numpy(mask)[:, None].to(device), whole)

    def _draw(self, i: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """True and degraded pixels (size, size, 3), and the hole (size, size)."""
        canvas, size = self.crops.canvas, self.crops.size
        height, width = self.pool.truth.shape[1:3]
        hole = MIXES[self.crops.masks].draw(rng, canvas, canvas)
        there, here = (_window(rng, sides, size) for sides in ((canvas, canvas), (height, width)))
        pair = (pixels[i][here] for pixels in (self.pool.truth, self.pool.degraded))
        truth, degraded = (x[:, ::-1] for x in pair) if self.crops.flip and rng.random() < 0.5 else pair
        return truth, degraded, hole[there]


def train_restorer(config: RestorerConfig, examples: Examples, folder: Path) -> Path:
    """Train S1, then S2, in folders of their own, from where they were left; returns ``restorer.safetensors`` in
    ``folder``: S2 in float16, but for its schedule."""
    from safetensors.torch import load_file, save_file

    first = S1Config(config.s1, config.network, config.crops)
    s1_file = train(S1Trainer(first, examples), config.s1, folder / "s1") / RESULT
    second = S2Config(config.s2, config.network, config.crops, prior=config.prior, composite=True)
    s1 = load_net(DiffRIRS1, first, s1_file, "s1")
    result = train_s2(second, examples, s1, folder / "s2") / RESULT
    halves = {
        name: value if name.startswith("diffusion.") else value.half()
        for name, value in load_file(result).items()
    }
    save_file(halves, folder / RESULT, metadata={"format": "pt"})
    return folder / RESULT


Repaint = Callable[[np.ndarray, Sequence[Scene]], np.ndarray]
"""From pictures (B, H, W, 3) uint8 and their scenes to the same as a painter has them."""


def train_restorers(
    config: RestorerConfig, source: Painted, folder: Path, repaint: Repaint
) -> dict[str, Path]:
    """Train all ``variants`` on one pool of degraded pictures; returns their files by name."""
    truth, seed = np.asarray(source.pictures[: config.pictures]), config.s1.seed
    drawn = np.random.default_rng(derive(seed, 0, "repainted")).random(len(truth)) < config.repainted
    chosen = [int(i) for i in np.flatnonzero(drawn)]
    degraded = repaint(truth[chosen], [source.scenes[i] for i in chosen])
    pool = Pool(truth, config.crops.degradation, seed, dict(zip(chosen, degraded, strict=True)))
    return {
        name: train_restorer(variant, PoolCrops(pool, variant.crops), folder / name.replace(" ", "-"))
        for name, variant in variants(config).items()
    }


def load_restorer(path: Path, network: Architecture = SMALL) -> DiffRIRS2:
    """The restorer of a file, in float32.

    Raises:
        FileNotFoundError: there is no such file.
    """
    from safetensors.torch import load_file

    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; `python -m miniworld build` makes it")
    net = DiffRIRS2(network)
    net.load_state_dict(load_file(path))
    return net.eval()


def _images(pixels: np.ndarray) -> torch.Tensor:
    """(B, H, W, 3) uint8 as (B, 3, H, W) in 0 .. 1."""
    return as_images(torch.from_numpy(np.ascontiguousarray(pixels))) / 2 + 0.5


def _window(rng: np.random.Generator, sides: tuple[int, int], size: int) -> tuple[slice, slice]:
    top, left = (int(rng.integers(side - size + 1)) for side in sides)
    return slice(top, top + size), slice(left, left + size)
