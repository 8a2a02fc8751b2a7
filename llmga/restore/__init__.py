"""Restoring generated pictures with DiffRIR: the network, its prior diffusion, its files, and using it."""

from .checkpoint import Loaded, load_checkpoint
from .inference import restore, strip_rows
from .network import Architecture, DiffRIRS1, DiffRIRS2, join
from .prior import Denoiser, PriorDiffusion, PriorEncoder

__all__ = [
    "Architecture",
    "Denoiser",
    "DiffRIRS1",
    "DiffRIRS2",
    "Loaded",
    "PriorDiffusion",
    "PriorEncoder",
    "join",
    "load_checkpoint",
    "restore",
    "strip_rows",
]
