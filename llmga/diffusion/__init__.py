"""The diffusion model as editing sees it: the schedule, the Denoiser protocol, gradients, and a diffusers UNet."""

from .denoiser import Denoiser, DenoiserRunner, Site, StopForward, Taps
from .diffusers_unet import DiffusersContext, DiffusersDenoiser
from .gradient import autograd_enabled, gradient
from .schedule import Schedule, ddim_step, predict_x0

__all__ = [
    "Denoiser",
    "DenoiserRunner",
    "DiffusersContext",
    "DiffusersDenoiser",
    "Schedule",
    "Site",
    "StopForward",
    "Taps",
    "autograd_enabled",
    "ddim_step",
    "gradient",
    "predict_x0",
]
