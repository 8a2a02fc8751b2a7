"""Check of the restorer: held-out pictures, degraded, restored, and compared with the truth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from llmga.data.degradations import Degradation, degrade, shift_colour
from llmga.evaluate import Estimate, contact_sheet, mean, psnr
from llmga.paint.masks import MIXES
from llmga.restore import DiffRIRS2, restore
from llmga.restore.colour import match_colour
from llmga.train import derive

from ..models.autoencoder import reconstruct
from ..models.restorer import MILD
from ..world.dataset import as_images
from ..world.render import render
from ..world.scene import UNIT, sample_scene


@dataclass(frozen=True)
class RestorerCheck:
    pictures: int = 128
    size: int = UNIT
    """Pixels of a picture's side."""
    seed: int = 7
    degradation: Degradation = MILD
    """How pictures are degraded; with an autoencoder, only its shift of colours is used."""


def check_restorers(
    nets: Mapping[str, DiffRIRS2],
    config: RestorerCheck,
    autoencoder: Any = None,
    pictures: Path | None = None,
) -> dict[str, dict[str, Estimate]]:
    """How near to the truth restorers bring the holes of held-out pictures of ``config.size`` pixels.

    The conditions are ``input`` (pasted in as it is), ``colour match`` (``match_colour``: a gain and a bias per channel,
    fitted around the hole), the names of ``nets``, and ``A − B``, the first net against each condition, picture by picture.
    The measures are of the hole: ``psnr`` in dB; ``brightness``, how far its mean is off, and ``border``, how far on average
    a value beside the preserved part is off, both in 1/255.

    Args:
        autoencoder: degrade pictures by encoding, decoding and a shift of colours, as a painter does.
        pictures: a folder for a contact sheet.
    """
    truth, degraded, mask = _degraded(config, autoencoder)
    made = {"input": degraded, "colour match": match_colour(degraded, truth, mask).image}
    made |= {name: restore(net, degraded, truth, mask) for name, net in nets.items()}
    measures = {name: _measures(image, truth, mask) for name, image in made.items()}
    first = next(iter(nets))
    for name in [name for name in measures if name != first]:
        measures[f"{first} − {name}"] = {
            key: measures[first][key] - values for key, values in measures[name].items()
        }
    if pictures:
        pasted = [torch.where(mask > 0, image, truth) for image in made.values()]
        contact_sheet([truth * (1 - mask), *pasted, truth], pictures / "restored.png")
    return {name: {key: mean(values) for key, values in of.items()} for name, of in measures.items()}


def _degraded(config: RestorerCheck, autoencoder: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """True pictures (B, 3, S, S), 0 .. 1, what a painter might make of them, and holes (B, 1, S, S)."""
    scenes = [
        sample_scene(config.seed * 40_000_000 + i, (1, 8), "validation") for i in range(config.pictures)
    ]
    images = as_images(
        torch.from_numpy(np.stack([np.asarray(render(scene, config.size).image) for scene in scenes]))
    )
    truth, d, degraded, masks = images / 2 + 0.5, config.degradation, [], []
    for i, image in enumerate(truth):
        rng = np.random.default_rng(derive(config.seed, i, "restore"))
        masks.append(torch.from_numpy(MIXES["diffrir"].draw(rng, *image.shape[1:]))[None])
        if autoencoder is None:
            degraded.append(degrade(image[None], rng, d))
        else:
            painted = reconstruct(autoencoder, images[i : i + 1]).cpu() / 2 + 0.5
            gain, bias = 1 + rng.uniform(-d.gain, d.gain), rng.uniform(-d.bias, d.bias)
            degraded.append(shift_colour(painted, gain, bias))
    return truth, torch.cat(degraded), torch.stack(masks)


def _measures(made: torch.Tensor, truth: torch.Tensor, mask: torch.Tensor) -> dict[str, torch.Tensor]:
    """Each (B,)."""
    off, beside = made - truth, F.max_pool2d(1 - mask, 3, 1, 1) * mask

    def average(values: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
        return (values * where).sum((1, 2, 3)) / (where.sum((1, 2, 3)) * 3).clamp(min=1)

    return {
        "psnr": psnr(made, truth, mask, most=80),
        "brightness": 255 * average(off, mask).abs(),
        "border": 255 * average(off.abs(), beside),
    }
