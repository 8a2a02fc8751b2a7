"""Restoring generated pictures with DiffRIR: the network, its prior diffusion, and using it."""

from .inference import restore
from .network import Architecture, DiffRIRS1, DiffRIRS2, join
from .prior import Denoiser, PriorDiffusion, PriorEncoder

__all__ = [
    "Architecture",
    "Denoiser",
    "DiffRIRS1",
    "DiffRIRS2",
    "PriorDiffusion",
    "PriorEncoder",
    "join",
    "restore",
]
