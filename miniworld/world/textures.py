"""The eight backgrounds: simple, soft textures that leave the objects the strongest thing in the picture."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from .scene import BACKGROUNDS, UNIT

Pixels = NDArray[np.floating]

_TINT = {"warm": (1.04, 0.985, 0.91), "cool": (0.95, 0.99, 1.05)}
_STEPS = 16  # a backdrop is one of 16 × 16 windows of a texture twice as wide as the picture


def tint(tone: str) -> Pixels:
    """(3,) what the light multiplies red, green and blue with."""
    return np.array(_TINT[tone], dtype=np.float32)


def backdrop(background: str, tone: str, variant: int, size: int) -> Pixels:
    """(size, size, 3) float32 in 0 .. 255, the caller's own copy."""
    y, x = (step * size // _STEPS for step in divmod(variant, _STEPS))
    return _texture(background, tone, size)[y : y + size, x : x + size].copy()


@lru_cache(maxsize=32)
def _texture(background: str, tone: str, size: int) -> Pixels:
    rng = np.random.Generator(np.random.PCG64(BACKGROUNDS.index(background)))
    pixels = _PAINTERS[background](rng, 2 * size, size / UNIT)
    return np.clip(pixels * tint(tone), 0, 255).astype(np.float32)


def _smooth(rng: np.random.Generator, side: int, across: float, down: float = 0) -> Pixels:
    """(side, side) soft noise in about -1 .. 1 whose bumps are ``across`` × ``down`` pixels."""
    columns, rows = (max(2, round(side / bump)) for bump in (across, down or across))
    small = Image.fromarray(rng.uniform(-1, 1, (rows, columns)).astype(np.float32))
    return np.asarray(small.resize((side, side), Image.Resampling.BICUBIC))


def _flat(side: int, colour: tuple[int, int, int]) -> Pixels:
    return np.broadcast_to(np.array(colour, dtype=np.float32), (side, side, 3)).copy()


def _blend(pixels: Pixels, colour: tuple[int, int, int], amount: Pixels) -> Pixels:
    weight = np.clip(amount, 0, 1)[..., None]
    return pixels * (1 - weight) + np.array(colour, dtype=np.float32) * weight


def _grass(rng: np.random.Generator, side: int, unit: float) -> Pixels:
    scale = 2
    image = Image.new("L", (side * scale, side * scale), 128)
    draw = ImageDraw.Draw(image)
    width = image.width
    for x, y, lean, height, shade in rng.uniform(0, 1, (2600, 5)):
        foot = (x * width, y * width)
        tip = (foot[0] + (lean - 0.5) * 7 * unit * scale, foot[1] - (4 + 5 * height) * unit * scale)
        draw.line((foot, tip), fill=int(70 + 116 * shade), width=max(1, round(0.8 * unit * scale)))
    blades = np.asarray(image.reduce(scale), dtype=np.float32) - 128
    light = 0.26 * blades + 7 * _smooth(rng, side, 40 * unit)
    return _flat(side, (158, 192, 104)) + light[..., None] * np.array((1.0, 0.9, 0.8), dtype=np.float32)


def _sand(rng: np.random.Generator, side: int, unit: float) -> Pixels:
    rows = np.arange(side, dtype=np.float32)[:, None] / unit
    ripples = np.sin(rows / 2.6 + 3.2 * _smooth(rng, side, 44 * unit, 26 * unit))
    grain = rng.uniform(-1, 1, (side, side)).astype(np.float32)
    light = 5 * ripples + 4 * grain + 4 * _smooth(rng, side, 30 * unit)
    return _flat(side, (229, 207, 160)) + light[..., None]


def _snow(rng: np.random.Generator, side: int, unit: float) -> Pixels:
    rows = np.arange(side, dtype=np.float32)[:, None] / unit
    drift = (
        rows / 26 + 1.1 * _smooth(rng, side, 56 * unit, 40 * unit)
    ) % 1  # a bright crest, a long blue slope
    slope = np.clip(np.minimum(drift / 0.85, (1 - drift) / 0.15), 0, 1)
    return _blend(_flat(side, (247, 250, 253)), (204, 219, 240), slope)


def _water(rng: np.random.Generator, side: int, unit: float) -> Pixels:
    rows = np.arange(side, dtype=np.float32)[:, None] / unit
    waves = np.sin(rows / 1.9 + 4.5 * _smooth(rng, side, 22 * unit, 14 * unit))
    crests = np.clip((waves - 0.55) / 0.45, 0, 1) * (0.55 + 0.45 * _smooth(rng, side, 20 * unit, 8 * unit))
    pixels = _flat(side, (98, 184, 192)) + 7 * _smooth(rng, side, 46 * unit)[..., None]
    return _blend(pixels, (196, 232, 232), 0.75 * crests)


def _brick(rng: np.random.Generator, side: int, unit: float) -> Pixels:
    scale = 2
    image = Image.new("RGB", (side * scale, side * scale), (214, 198, 184))
    draw = ImageDraw.Draw(image)
    height, width, joint = (length * unit * scale for length in (11, 24, 1.5))
    for row in range(int(image.height / height) + 1):
        for column in range(-1, int(image.width / width) + 1):
            shade = rng.uniform(-12, 12)
            fill = tuple(int(channel + shade) for channel in (178, 124, 106))
            x, y = (column + row % 2 / 2) * width, row * height
            draw.rounded_rectangle((x, y, x + width - joint, y + height - joint), radius=joint, fill=fill)
    return np.asarray(image.reduce(scale), dtype=np.float32) + 4 * _smooth(rng, side, 3 * unit)[..., None]


def _wood(rng: np.random.Generator, side: int, unit: float) -> Pixels:
    rows = np.arange(side, dtype=np.float32)[:, None] / unit
    board = (rows // 22).astype(int)
    shade = rng.uniform(-9, 9, board.max() + 1).astype(np.float32)[board]
    grain = np.sin(1.5 * rows + 5 * board + 5 * _smooth(rng, side, 60 * unit, 12 * unit))
    light = shade + 6 * grain + 3 * _smooth(rng, side, 30 * unit, 2 * unit)
    gap = np.broadcast_to(np.clip(1.2 - rows % 22, 0, 1), (side, side))
    return _blend(_flat(side, (191, 150, 108)) + light[..., None], (118, 82, 54), gap)


def _sky(rng: np.random.Generator, side: int, unit: float) -> Pixels:
    puffs = _smooth(rng, side, 52 * unit, 34 * unit) + 0.45 * _smooth(rng, side, 16 * unit, 12 * unit)
    return _blend(_flat(side, (146, 199, 240)), (236, 243, 249), 0.9 * np.clip((puffs - 0.1) / 0.6, 0, 1))


def _night(rng: np.random.Generator, side: int, unit: float) -> Pixels:
    pixels = _blend(_flat(side, (42, 50, 102)), (66, 62, 128), 0.5 + 0.7 * _smooth(rng, side, 50 * unit))
    scale = 4
    image = Image.new("L", (side * scale, side * scale), 0)
    draw = ImageDraw.Draw(image)
    for x, y, bright in rng.uniform(0, 1, (230, 3)):
        radius = (0.45 + 0.5 * bright) * unit * scale
        draw.ellipse(_square(x * image.width, y * image.width, radius), fill=int(120 + 130 * bright))
    return _blend(pixels, (250, 246, 220), np.asarray(image.reduce(scale), dtype=np.float32) / 255)


def _square(x: float, y: float, half: float) -> tuple[float, float, float, float]:
    return x - half, y - half, x + half, y + half


_PAINTERS: dict[str, Callable[[np.random.Generator, int, float], Pixels]] = {
    "grass": _grass,
    "sand": _sand,
    "snow": _snow,
    "water": _water,
    "brick": _brick,
    "wood": _wood,
    "sky": _sky,
    "night": _night,
}
