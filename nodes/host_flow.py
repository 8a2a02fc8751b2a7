"""The host's flow models (Flux, SD3, Qwen-Image, Z-Image and others) as velocities, for ``llmga.edit.flow``.

``run`` puts the work inside a guider and a sampler of the host's own kind, which loads, patches and cleans up as for any
KSampler. Each velocity is one call of the host's own sampling function, so that guidance, areas, LoRA and the patches of
other nodes act as usual.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import comfy.samplers
import node_helpers
import torch

from ..llmga.edit.flow import Velocity
from . import check, host
from .host_conflicts import refuse_step_wrappers
from .prompt_encoder import Conditioning

LEAST_SIGMA = 1e-3
"""The sigma that stands for 0: the host gives the denoised picture, and (x - denoised) / sigma is not defined at 0."""
WANTED = "connect a flow model such as Flux, SD3, Qwen-Image or Z-Image (Load Diffusion Model)"
Velocities = Mapping[str, Velocity]


@dataclass(frozen=True)
class Guided:
    """A prompt and how strongly it pulls: by cfg, or by the embedded guidance that Flux.1 dev has in place of it."""

    conditioning: Conditioning
    guidance: float


def require_flow(model: Any) -> None:
    """
    Raises:
        ValueError: it is not a MODEL that predicts the velocity of a rectified flow, or a patch skips steps.
    """
    if not hasattr(model, "get_model_object") or not hasattr(model, "model_options"):
        raise ValueError(f"model must be a MODEL, got {type(model).__name__}; {WANTED}")
    sampling = model.get_model_object("model_sampling")
    if not _is_flow(sampling):
        raise ValueError(
            f"model is a {type(model.model).__name__} that predicts no flow ({type(sampling).__mro__[1].__name__}); use "
            f"Inversion Edit for SD1.5 and SDXL, or {WANTED}"
        )
    refuse_step_wrappers(model)


def _is_flow(sampling: Any) -> bool:
    """By what it computes rather than by its class: nodes replace the class."""
    sigma, x, out = (torch.full((1, 1, 1, 1), value) for value in (0.5, 3.0, 0.25))
    try:
        given = float(sampling.calculate_input(sigma[:, 0, 0, 0], x))
        denoised = float(sampling.calculate_denoised(sigma[:, 0, 0, 0], out, x))
        noised = float(sampling.noise_scaling(sigma[:, 0, 0, 0], out.clone(), x))
    except (RuntimeError, TypeError, ValueError, AttributeError):
        return False
    return (given, denoised, noised) == (3.0, 3.0 - 0.5 * 0.25, 0.5 * 0.25 + 0.5 * 3.0)


def has_embedded_guidance(model: Any) -> bool:
    """Whether guidance is an input of the network: Flux.1 dev and FLUX.2 dev, which need one row a step, not two."""
    return bool(model.model.model_config.unet_config.get("guidance_embed", False))


def sigmas_of(model: Any, steps: int) -> list[float]:
    """The noise levels of the host's scheduler *simple*, from at most 1 to 0."""
    sampling = model.get_model_object("model_sampling")
    return comfy.samplers.calculate_sigmas(sampling, "simple", steps).tolist()


def run(
    model: Any,
    prompts: Mapping[str, Guided],
    negative: Conditioning,
    latent: torch.Tensor,
    work: Callable[[torch.Tensor, Velocities], torch.Tensor],
) -> torch.Tensor:
    """Call ``work(latent, velocities)`` with the model loaded; latents in its own scale inside, in the VAE's outside.

    Args:
        model: the host's MODEL, see ``require_flow``; left as it was.
        prompts: by name; ``velocities`` has the same names.
        negative: what guidance other than 1 leads away from.
        latent: as the VAE gives it.

    Raises:
        ValueError: the text encoder is not the model's.
    """
    embedded = has_embedded_guidance(model)
    conditionings = {"negative": negative}
    for name, one in prompts.items():
        _require_width(model, one.conditioning)
        values = {"guidance": one.guidance} if embedded else {}
        conditionings[name] = node_helpers.conditioning_set_values(one.conditioning, values)
    guider = comfy.samplers.CFGGuider(model)
    guider.inner_set_conds(conditionings)
    shell = _Shell(work, {name: 1.0 if embedded else one.guidance for name, one in prompts.items()})
    sigmas = model.get_model_object("model_sampling").sigmas.flip(0).float()
    made = guider.sample(torch.zeros_like(latent), latent, shell, sigmas, disable_pbar=True, seed=0)
    return made.float().cpu()


def _require_width(model: Any, conditioning: Conditioning) -> None:
    config = model.model.model_config.unet_config
    wanted = config.get("context_in_dim") or config.get("cap_feat_dim") or config.get("joint_attention_dim")
    wanted = wanted or config.get("context_embedder_config", {}).get("params", {}).get("in_features")
    for text, _ in conditioning:
        if isinstance(wanted, int) and text.shape[-1] != wanted:
            raise ValueError(
                f"clip gives {text.shape[-1]} numbers a token, and model reads {wanted}; connect the text encoder that "
                "'model' was trained with"
            )


class _Shell(comfy.samplers.Sampler):
    """A sampler in whose place ``work`` is done."""

    def __init__(self, work: Callable[..., torch.Tensor], cfgs: Mapping[str, float]) -> None:
        self._work, self._cfgs = work, cfgs

    def sample(
        self,
        model_wrap,
        sigmas,
        extra_args,
        callback,
        noise,
        latent_image=None,
        denoise_mask=None,
        disable_pbar=False,
    ):
        velocities = {
            name: _velocity(model_wrap, name, cfg, extra_args["model_options"])
            for name, cfg in self._cfgs.items()
        }
        return self._work(latent_image, velocities)


def _velocity(guider: Any, name: str, cfg: float, model_options: dict[str, Any]) -> Velocity:
    conds = guider.conds

    def velocity(x: torch.Tensor, sigma: float) -> torch.Tensor:
        host.raise_if_cancelled()
        level = max(sigma, LEAST_SIGMA)
        sigmas = torch.full((len(x),), level, device=x.device)
        denoised = comfy.samplers.sampling_function(
            guider.inner_model, x, sigmas, conds["negative"], conds[name], cfg, model_options=model_options
        )
        found = (x - denoised) / level
        check.finite(
            f"model, at sigma {level:.3f}, gives", found, "load it in another precision (weight_dtype)"
        )
        return found

    return velocity
