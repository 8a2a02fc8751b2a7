"""Blur kernels of real photographs, and a reflect-padded convolution for images of any size.

Source: Real-ESRGAN (arXiv 2107.10833, §3.1 and §3.4). Kernels are (n, n) float32 with n odd, and sum to 1.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F

KernelFamily = Literal["gaussian", "generalised", "plateau"]


def bell_kernel(
    family: KernelFamily, size: int, sigma: tuple[float, float], rotation: float = 0.0, beta: float = 1.0
) -> np.ndarray:
    """Bell-shaped kernel whose axes have the deviations ``sigma`` (pixels), rotated by ``rotation`` (radians).

    With q the squared Mahalanobis distance: exp(-q/2) (gaussian), exp(-q^beta/2) (generalised), 1/(1 +
    q^beta) (plateau).
    """
    axis = np.arange(size) - size // 2
    x, y = np.meshgrid(axis, axis)
    u = (x * math.cos(rotation) + y * math.sin(rotation)) / sigma[0]
    v = (y * math.cos(rotation) - x * math.sin(rotation)) / sigma[1]
    q = u**2 + v**2
    match family:
        case "gaussian":
            kernel = np.exp(-q / 2)
        case "generalised":
            kernel = np.exp(-(q**beta) / 2)
        case "plateau":
            kernel = 1 / (1 + q**beta)
    return (kernel / kernel.sum()).astype(np.float32)


def sinc_kernel(size: int, cutoff: float) -> np.ndarray:
    """2-D sinc kernel, the circular low-pass filter, which rings; ``cutoff`` in radians per pixel, up to π."""
    axis = np.arange(size) - size // 2
    radius = np.hypot(*np.meshgrid(axis, axis))
    at_centre = radius == 0
    radius[at_centre] = 1
    bessel = torch.special.bessel_j1(torch.from_numpy(cutoff * radius)).numpy()
    kernel = np.where(at_centre, cutoff**2 / (4 * math.pi), cutoff * bessel / (2 * math.pi * radius))
    return (kernel / kernel.sum()).astype(np.float32)


def filter_image(image: torch.Tensor, kernel: np.ndarray) -> torch.Tensor:
    """Filter (B, C, H, W) with one kernel and reflected edges; the size stays the same."""
    pad = len(kernel) // 2
    rows, columns = (_mirrored(size, pad, image.device) for size in image.shape[-2:])
    padded = image[:, :, rows][:, :, :, columns]
    weight = torch.from_numpy(kernel).to(image.device, image.dtype)
    channels = image.shape[1]
    return F.conv2d(padded, weight.expand(channels, 1, *kernel.shape), groups=channels)


def _mirrored(size: int, pad: int, device: torch.device) -> torch.Tensor:
    # Torch's reflect padding refuses more than size - 1, and pictures do get smaller than a kernel here.
    period = max(1, 2 * (size - 1))
    index = torch.arange(-pad, size + pad, device=device) % period
    return torch.minimum(index, period - index) if size > 1 else torch.zeros_like(index)
