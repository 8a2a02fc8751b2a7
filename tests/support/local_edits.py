"""Made edits of real photographs: a true local change, then what an instruction editor does to the whole picture.

The changed picture is shifted and zoomed, cast, blurred and compressed, all drawn from a seed, so that what was changed and
what should come back are known exactly. Pictures are (1, 3, H, W), 0 .. 1.
"""

from __future__ import annotations

import importlib.util
import io
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from llmga.paint.registration import Registration, apply_registration, blur
from llmga.windows import greatest_around, sum_around

KINDS = ("pasted", "recoloured", "removed")
VISIBLE = 8 / 255
"""A pixel is part of the true change if some channel changed by this within two pixels, before any disturbance."""
PACKAGES = {
    "skimage": ("data", ("astronaut.png", "coffee.png", "chelsea.png", "rocket.jpg", "motorcycle_left.png",
                         "retina.jpg", "ihc.png", "hubble_deep_field.jpg")),
    "sklearn": ("datasets/images", ("china.jpg", "flower.jpg")),
}  # fmt: skip
"""The colour photographs that come with scikit-image and scikit-learn, and the folder of the package they are in."""


@dataclass(frozen=True)
class Edit:
    """One made edit and its truth."""

    kind: str
    original: torch.Tensor
    edited: torch.Tensor
    ideal: torch.Tensor
    """The original with the local change and nothing else."""
    region: torch.Tensor
    """(1, 1, H, W) bool: where the local change can be seen."""
    moved: Registration


def photographs(*packages: str, longest: int = 640) -> dict[str, torch.Tensor]:
    """The photographs of these packages, or of all, as far as they are installed, by file name."""
    found = {}
    for package in packages or PACKAGES:
        folder, names = PACKAGES[package]
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            continue
        for name in names:
            path = Path(spec.origin).parent / folder / name
            if path.is_file():
                with Image.open(path) as picture:
                    rgb = picture.convert("RGB")
                rgb.thumbnail((longest, longest), Image.Resampling.LANCZOS)
                found[name] = torch.from_numpy(np.array(rgb)).float().div(255).movedim(-1, 0)[None]
    return found


def make_edit(photos: dict[str, torch.Tensor], seed: int, kind: str) -> Edit:
    """Draw one edit; regions whose change could hardly be seen are drawn again."""
    rng = np.random.default_rng([seed, KINDS.index(kind)])
    names = list(photos)
    while True:
        first, second = rng.choice(len(names), 2, replace=False)
        original = _crop(rng, photos[names[first]], int(rng.integers(256, 385)), int(rng.integers(256, 385)))
        height, width = original.shape[-2:]
        blob = _blob(rng, height, width)
        ideal = _changed(rng, kind, original, blob, photos[names[second]])
        change = (ideal - original).abs().amax(1, keepdim=True)
        region = (greatest_around((change > VISIBLE).float(), 2) > 0) & (blob > 0.5)
        if region.sum() > 0.9 * (blob > 0.5).sum() and change[blob > 0.5].mean() > 0.08:
            break
    moved = Registration(
        (zoom := float(rng.uniform(0.98, 1.02)), zoom), (float(rng.uniform(-6, 6)), float(rng.uniform(-6, 6)))
    )
    return Edit(kind, original, _disturbed(rng, ideal, moved), ideal, region, moved)


def _crop(rng: np.random.Generator, photo: torch.Tensor, height: int, width: int) -> torch.Tensor:
    height, width = min(height, photo.shape[-2]), min(width, photo.shape[-1])
    top, left = (
        int(rng.integers(0, a - b + 1)) for a, b in zip(photo.shape[-2:], (height, width), strict=True)
    )
    return photo[..., top : top + height, left : left + width].clone()


def _blob(rng: np.random.Generator, height: int, width: int) -> torch.Tensor:
    """A round shape with a wavy border and one pixel of antialiasing, 3 to 15 % of the picture, (1, 1, H, W)."""
    radius = math.sqrt(float(rng.uniform(0.03, 0.15)) * height * width / math.pi)
    stretch = float(rng.uniform(0.7, 1.4))
    rx, ry = radius * stretch, radius / stretch
    reach_x, reach_y = min(1.25 * rx + 14, width / 2), min(1.25 * ry + 14, height / 2)
    x0, y0 = float(rng.uniform(reach_x, width - reach_x)), float(rng.uniform(reach_y, height - reach_y))
    y, x = np.mgrid[:height, :width] + 0.5
    angle, distance = np.arctan2((y - y0) / ry, (x - x0) / rx), np.hypot((x - x0) / rx, (y - y0) / ry)
    border = 1 + sum(
        rng.uniform(-0.25, 0.25) / k * np.cos(k * angle + rng.uniform(0, 2 * math.pi)) for k in (2, 3, 5)
    )
    inside = np.clip((border - distance) * radius + 0.5, 0, 1)
    return torch.from_numpy(inside).float()[None, None]


def _changed(
    rng: np.random.Generator, kind: str, original: torch.Tensor, blob: torch.Tensor, other: torch.Tensor
) -> torch.Tensor:
    height, width = original.shape[-2:]
    if kind == "pasted":
        new = F.interpolate(_crop(rng, other, height, width), (height, width), mode="bilinear")
    elif kind == "recoloured":
        order = [(1, 2, 0), (2, 0, 1), (2, 1, 0)][rng.integers(3)]
        tint = torch.from_numpy(rng.uniform(0, 1, (1, 3, 1, 1))).float()
        new = original[:, list(order)] * 0.65 + 0.35 * tint
    else:
        new = _filled(original, greatest_around(blob, 2) > 0)
        grain = torch.from_numpy(rng.normal(0, 0.008, (1, 1, height, width))).float()
        new = (new + grain).clamp(0, 1)
    return torch.lerp(original, new, blob)


def _filled(image: torch.Tensor, hole: torch.Tensor) -> torch.Tensor:
    """The hole filled with a smooth continuation of its surroundings, as where an object was removed."""
    known = (~hole).float()
    filled, weight = image * known, known
    for reach in (64, 32, 16, 8, 4, 2, 1):
        smooth = sum_around(filled, reach) / sum_around(weight, reach).clamp_min(1e-4)
        filled, weight = torch.where(hole, smooth, image), torch.ones_like(known)
    return filled


def _disturbed(rng: np.random.Generator, image: torch.Tensor, moved: Registration) -> torch.Tensor:
    """Shift and zoom, colour cast, blur, JPEG."""
    back = Registration(
        (1 / moved.zoom[0], 1 / moved.zoom[1]),
        (-moved.shift[0] / moved.zoom[0], -moved.shift[1] / moved.zoom[1]),
    )
    image, _ = apply_registration(image, back)
    gain, bias = (
        torch.from_numpy(rng.uniform(*ends, (1, 3, 1, 1))).float() for ends in ((0.9, 1.1), (-0.04, 0.04))
    )
    image = blur((image * gain + bias).clamp(0, 1), float(rng.uniform(0, 1.2)))
    data = io.BytesIO()
    levels = image[0].movedim(0, -1).mul(255).round().byte().numpy()
    Image.fromarray(levels, "RGB").save(data, "JPEG", quality=int(rng.integers(70, 96)))
    with Image.open(data) as picture:
        return torch.from_numpy(np.array(picture)).float().div(255).movedim(-1, 0)[None]
