"""DiffRIR, the restorer of inpainted images: network, prior diffusion, checkpoints and inference."""

from .checkpoint import Loaded, load_restorer
from .inference import restore, strip_rows
from .network import Architecture, DiffRIRS1, DiffRIRS2, join_inputs
from .prior import PriorDenoiser, PriorDiffusion, PriorEncoder

__all__ = [
    "Architecture",
    "PriorDenoiser",
    "DiffRIRS1",
    "DiffRIRS2",
    "Loaded",
    "PriorDiffusion",
    "PriorEncoder",
    "join_inputs",
    "load_restorer",
    "restore",
    "strip_rows",
]
