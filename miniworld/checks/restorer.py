"""Does the miniature's restorer restore: held-out pictures, spoilt, restored, and compared with the truth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from llmga.data.degradations import Degradation, degrade, shift_colour
from llmga.images import to_pil
from llmga.paint.masks import MIXES
from llmga.restore import DiffRIRS2, restore
from llmga.train import derive

from ..models.autoencoder import reconstruct
from ..models.restorer import MILD
from ..world.dataset import as_images
from ..world.render import render
from ..world.scene import sample_scene
from .painter import Rate, mean


@dataclass(frozen=True)
class RestorerCheck:
    pictures: int = 128
    seed: int = 7
    degradation: Degradation = MILD
    """What spoils the pictures; with an autoencoder, of this the shift of colours alone."""


def check_restorers(
    nets: Mapping[str, DiffRIRS2],
    config: RestorerCheck,
    autoencoder: Any = None,
    pictures: Path | None = None,
) -> dict[str, dict[str, Rate]]:
    """How near to the truth restorers bring the holes of held-out pictures of 128 pixels.

    The conditions are ``input`` (pasted in as it is), ``colour match`` (one gain and bias, those that fit the preserved
    part), the names of ``nets``, and ``A − B``, the first net against each condition, picture by picture. The measures
    are of the hole: ``psnr`` in dB; ``brightness``, how far its mean is off, and ``seam``, how far on average a value
    beside the preserved part is off, both in 1/255.

    Args:
        autoencoder: spoil pictures by it and a shift of colours, as a painter does.
        pictures: a folder for a contact sheet.
    """
    truth, spoilt, mask = _spoilt(config, autoencoder)
    made = {"input": spoilt, "colour match": _colour_match(spoilt, truth, mask)}
    made |= {name: restore(net, spoilt, truth, mask) for name, net in nets.items()}
    measures = {name: _measures(image, truth, mask) for name, image in made.items()}
    first = next(iter(nets))
    for name in [name for name in measures if name != first]:
        measures[f"{first} − {name}"] = {
            key: measures[first][key] - values for key, values in measures[name].items()
        }
    if pictures:
        pictures.mkdir(parents=True, exist_ok=True)
        pasted = [torch.where(mask > 0, image, truth) for image in made.values()]
        rows = [torch.cat(list(row[:8]), 2) for row in (truth * (1 - mask), *pasted, truth)]
        to_pil(torch.cat(rows, 1).permute(1, 2, 0)[None])[0].save(pictures / "restored.png")
    return {name: {key: mean(values) for key, values in of.items()} for name, of in measures.items()}


def restorer_table(results: Mapping[str, Mapping[str, Rate]]) -> str:
    """The measures as text, a line for each condition."""
    names = list(next(iter(results.values())))
    lines = [f"{'':34}" + "".join(f"{name:>16}" for name in names)]
    lines += [
        f"{name:34}" + "".join(f"{rates[key]!s:>16}" for key in names) for name, rates in results.items()
    ]
    return "\n".join(lines)


def _spoilt(config: RestorerCheck, autoencoder: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """True pictures (B, 3, 128, 128), 0 .. 1, what a painter might make of them, and holes (B, 1, 128, 128)."""
    scenes = [
        sample_scene(config.seed * 40_000_000 + i, (1, 8), "validation") for i in range(config.pictures)
    ]
    images = as_images(torch.from_numpy(np.stack([np.asarray(render(scene).image) for scene in scenes])))
    truth, d, spoilt, masks = images / 2 + 0.5, config.degradation, [], []
    for i, image in enumerate(truth):
        rng = np.random.default_rng(derive(config.seed, i, "restore"))
        masks.append(torch.from_numpy(MIXES["diffrir"].draw(rng, *image.shape[1:]))[None])
        if autoencoder is None:
            spoilt.append(degrade(image[None], rng, d))
        else:
            painted = reconstruct(autoencoder, images[i : i + 1]).cpu() / 2 + 0.5
            gain, bias = 1 + rng.uniform(-d.gain, d.gain), rng.uniform(-d.bias, d.bias)
            spoilt.append(shift_colour(painted, gain, bias))
    return truth, torch.cat(spoilt), torch.stack(masks)


def _colour_match(spoilt: torch.Tensor, truth: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Least squares over the preserved values of each picture."""
    kept = (1 - mask).expand_as(truth)

    def mean(values: torch.Tensor) -> torch.Tensor:
        return (values * kept).sum((1, 2, 3), True) / kept.sum((1, 2, 3), True).clamp(min=1)

    x, y = spoilt - mean(spoilt), truth - mean(truth)
    gain = mean(x * y) / mean(x * x).clamp(min=1e-6)
    return (gain * x + mean(truth)).clamp(0, 1)


def _measures(made: torch.Tensor, truth: torch.Tensor, mask: torch.Tensor) -> dict[str, torch.Tensor]:
    """Each (B,)."""
    off, beside = made - truth, F.max_pool2d(1 - mask, 3, 1, 1) * mask

    def mean(values: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
        return (values * where).sum((1, 2, 3)) / (where.sum((1, 2, 3)) * 3).clamp(min=1)

    return {
        "psnr": -10 * mean(off.square(), mask).clamp(min=1e-8).log10(),
        "brightness": 255 * mean(off, mask).abs(),
        "seam": 255 * mean(off.abs(), beside),
    }
