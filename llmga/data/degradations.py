"""Degradation pipeline for training DiffRIR: two rounds of blur, resize, noise and JPEG, then a colour shift.

Every image of a batch draws its own random parameters. (The published trainers draw the resize and the kind of
noise once a batch and mix batches through a pool of 160 images, which is not needed here.)

Sources: Real-ESRGAN (arXiv 2107.10833, §3); the numbers are DiffRIR's (9f3931e, ``options/*.yml``); colour:
LLMGA §3.4.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from .blur import KernelFamily, bell_kernel, filter_image, sinc_kernel

Range = tuple[float, float]

_KERNEL_SIZES = range(7, 22, 2)
_RESIZES: tuple[Literal["area", "bilinear", "bicubic"], ...] = ("area", "bilinear", "bicubic")
_FAMILIES: tuple[tuple[KernelFamily, bool], ...] = (
    ("gaussian", True),
    ("gaussian", False),
    ("generalised", True),
    ("generalised", False),
    ("plateau", True),
    ("plateau", False),
)  # the flag: equal in all directions


@dataclass(frozen=True)
class Pass:
    """One round of blur, resize, noise and JPEG.

    Args:
        blur: probability of any blur.
        sinc: probability that a blur is the ringing filter.
        families: else weights of Gaussian, generalised Gaussian and plateau, each iso- and anisotropic in
            turn.
        sigma: deviation of a blur in pixels.
        generalised_beta, plateau_beta: shape of those kernels; below and above 1 are equally likely.
        resize_weights: of up, down and keep.
        resize: smallest and largest factor.
        gaussian: probability of Gaussian noise; else it is Poisson noise.
        noise_sigma: deviation of Gaussian noise in 1/255.
        poisson_scale: factor on Poisson noise.
        grey_noise: probability that the noise is the same in all channels.
        jpeg: probability of JPEG.
        jpeg_quality: libjpeg's 1 .. 100.
    """

    blur: float = 1.0
    sinc: float = 0.1
    families: tuple[float, ...] = (0.45, 0.25, 0.12, 0.03, 0.12, 0.03)
    sigma: Range = (0.2, 3.0)
    generalised_beta: Range = (0.5, 4.0)
    plateau_beta: Range = (1.0, 2.0)
    resize_weights: tuple[float, float, float] = (0.2, 0.7, 0.1)
    resize: Range = (0.15, 1.5)
    gaussian: float = 0.5
    noise_sigma: Range = (1.0, 30.0)
    poisson_scale: Range = (0.05, 3.0)
    grey_noise: float = 0.4
    jpeg: float = 1.0
    jpeg_quality: Range = (30, 95)


@dataclass(frozen=True)
class Degradation:
    """Parameters of the whole pipeline; the defaults are the paper's.

    Args:
        first, second: the two rounds.
        final_sinc: probability of the ringing filter at the end.
        scale: how many times smaller the result is: 1, 2 or 4.
        gain: contrast c1 is drawn from 1 ± gain. The paper and stage S1 have 0.06, the released S2 0.08.
        bias: brightness c2 is drawn from ± bias.
    """

    first: Pass = Pass()
    second: Pass = Pass(
        blur=0.8,
        sigma=(0.2, 1.5),
        resize_weights=(0.3, 0.4, 0.3),
        resize=(0.3, 1.2),
        noise_sigma=(1.0, 25.0),
        poisson_scale=(0.05, 2.5),
    )
    final_sinc: float = 0.8
    scale: int = 1
    gain: float = 0.06
    bias: float = 0.05


def degrade(image: torch.Tensor, rng: np.random.Generator, config: Degradation | None = None) -> torch.Tensor:
    """Degrade each image of a batch with its own random parameters.

    Filters and resizes run on the picture's device, JPEG and the noise on the CPU.

    Args:
        image: (B, 3, H, W) float, 0 .. 1; H and W are multiples of ``config.scale``.

    Returns:
        (B, 3, H / scale, W / scale), 0 .. 1, in steps of 1/255.

    Raises:
        ValueError: the shape is not as said.
    """
    config = config or Degradation()
    shape, scale = tuple(image.shape), config.scale
    if len(shape) != 4 or shape[1] != 3 or any(side < 1 or side % scale for side in shape[2:]):
        raise ValueError(f"degrade takes (B, 3, H, W) with sides divisible by {scale}, got {shape}")
    return torch.cat([_degrade_one(picture[None], rng, config) for picture in image])


def shift_colour(image: torch.Tensor, gain: float | torch.Tensor, bias: float | torch.Tensor) -> torch.Tensor:
    """LLMGA's colour perturbation, ``image · gain + bias`` within 0 .. 1; the same for all channels."""
    return (image * gain + bias).clamp(0, 1)


def _degrade_one(image: torch.Tensor, rng: np.random.Generator, config: Degradation) -> torch.Tensor:
    size = (image.shape[2] // config.scale, image.shape[3] // config.scale)
    image = _blur_resize_noise(image, (image.shape[2], image.shape[3]), rng, config.first)
    image = _jpeg(image, rng, config.first)
    image = _blur_resize_noise(image, size, rng, config.second)
    # The final resize and filter stay together: with the JPEG between them lines get twisted (Real-ESRGAN).
    jpeg_last = rng.random() < 0.5
    if not jpeg_last:
        image = _jpeg(image, rng, config.second)
    image = _resize(image, size, rng)
    if rng.random() < config.final_sinc:
        image = filter_image(
            image, sinc_kernel(int(rng.choice(_KERNEL_SIZES)), rng.uniform(math.pi / 3, math.pi))
        )
    if jpeg_last:
        image = _jpeg(image, rng, config.second)
    gain, bias = 1 + rng.uniform(-config.gain, config.gain), rng.uniform(-config.bias, config.bias)
    return shift_colour(image, gain, bias).mul(255).round().div(255)


def _blur_resize_noise(
    image: torch.Tensor, base: tuple[int, int], rng: np.random.Generator, config: Pass
) -> torch.Tensor:
    """Apply blur, a resize to a random factor of ``base``, and noise."""
    if rng.random() < config.blur:
        image = filter_image(image, _random_kernel(rng, config))
    smallest, largest = config.resize
    up, down, keep = (1.0, largest), (smallest, 1.0), (1.0, 1.0)
    low, high = (up, down, keep)[_choice(rng, config.resize_weights)]
    factor = rng.uniform(low, high)
    image = _resize(image, (max(1, int(base[0] * factor)), max(1, int(base[1] * factor))), rng)
    noise = _gaussian_noise if rng.random() < config.gaussian else _poisson_noise
    return (image + noise(image, rng, config)).clamp(0, 1)


def _random_kernel(rng: np.random.Generator, config: Pass) -> np.ndarray:
    size = int(rng.choice(_KERNEL_SIZES))
    if rng.random() < config.sinc:
        return sinc_kernel(size, rng.uniform(math.pi / (3 if size < 13 else 5), math.pi))
    family, isotropic = _FAMILIES[_choice(rng, config.families)]
    sigma = rng.uniform(*config.sigma)
    if isotropic:
        sigmas, rotation = (sigma, sigma), 0.0
    else:
        sigmas, rotation = (sigma, rng.uniform(*config.sigma)), rng.uniform(-math.pi, math.pi)
    betas = {
        "gaussian": (1.0, 1.0),
        "generalised": config.generalised_beta,
        "plateau": config.plateau_beta,
    }[family]
    beta = rng.uniform(betas[0], 1.0) if rng.random() < 0.5 else rng.uniform(1.0, betas[1])
    return bell_kernel(family, size, sigmas, rotation, beta)


def _resize(image: torch.Tensor, size: tuple[int, int], rng: np.random.Generator) -> torch.Tensor:
    mode = _RESIZES[rng.integers(len(_RESIZES))]  # drawn even where it makes no difference
    return image if size == tuple(image.shape[2:]) else F.interpolate(image, size=size, mode=mode)


def _gaussian_noise(image: torch.Tensor, rng: np.random.Generator, config: Pass) -> torch.Tensor:
    sigma = rng.uniform(*config.noise_sigma) / 255
    channels = 1 if rng.random() < config.grey_noise else image.shape[1]
    noise = rng.standard_normal((1, channels, *image.shape[2:]), dtype=np.float32) * np.float32(sigma)
    return torch.from_numpy(noise).to(image)


def _poisson_noise(image: torch.Tensor, rng: np.random.Generator, config: Pass) -> torch.Tensor:
    """Poisson (shot) noise of a sensor with as many levels as the image has shades, rounded up to a power of two."""
    scale = rng.uniform(*config.poisson_scale)
    light = image
    if rng.random() < config.grey_noise:
        light = (image * image.new_tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1, keepdim=True)
    shades = light.mul(255).round().clamp(0, 255).cpu().numpy().astype(np.float64)
    levels = 2.0 ** math.ceil(math.log2(len(np.unique(shades))))
    clean = shades / 255
    noise = (rng.poisson(clean * levels) / levels - clean) * scale
    return torch.from_numpy(noise).to(image)


def _jpeg(image: torch.Tensor, rng: np.random.Generator, config: Pass) -> torch.Tensor:
    quality = round(rng.uniform(*config.jpeg_quality))
    if rng.random() >= config.jpeg:
        return image
    pixels = image[0].clamp(0, 1).mul(255).round().to("cpu", torch.uint8).permute(1, 2, 0)
    file = io.BytesIO()
    Image.fromarray(pixels.contiguous().numpy()).save(file, "JPEG", quality=quality)
    decoded = np.asarray(Image.open(file), dtype=np.float32) / 255
    return torch.from_numpy(decoded).permute(2, 0, 1)[None].to(image)


def _choice(rng: np.random.Generator, weights: tuple[float, ...]) -> int:
    return int(rng.choice(len(weights), p=np.array(weights) / sum(weights)))
