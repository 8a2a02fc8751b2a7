"""The diffusion model as editing sees it: the schedule, the Denoiser protocol, and a diffusers UNet behind it."""

from .denoiser import Denoiser, Site, StopForward, Taps
from .diffusers_unet import DiffusersContext, DiffusersDenoiser
from .schedule import Schedule, clean, transfer

__all__ = [
    "Denoiser",
    "DiffusersContext",
    "DiffusersDenoiser",
    "Schedule",
    "Site",
    "StopForward",
    "Taps",
    "clean",
    "transfer",
]
