"""Refuse models that cannot be edited with, before anything runs, and name the node whose patch is in the way.

An edit takes over the attention layers of a noise-predicting UNet. A model of another kind, and a patch of another node
that wants the same layers or would silently not run, is an error that says which node to go around.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch

KNOWN = {  # a word in the module or name of a patch: what an artist knows it as
    "hypertile": "HyperTile",
    "tomesd": "Token Merging (ToMe)",
    "ipadapter": "IPAdapter",
    "ip_adapter": "IPAdapter",
    "selfattentionguidance": "Self-Attention Guidance (SAG)",
    "nodes_sag": "Self-Attention Guidance (SAG)",
    "perturbedattention": "Perturbed-Attention Guidance (PAG)",
    "nodes_pag": "Perturbed-Attention Guidance (PAG)",
    "easycache": "EasyCache",
    "lazycache": "LazyCache",
    "teacache": "TeaCache",
    "rescalecfg": "RescaleCFG",
    "perpneg": "Perp-Neg",
}
SITE_PATCHES = ("attn1_patch", "attn2_patch", "attn1_output_patch", "attn2_output_patch")
GUIDANCE = (
    "sampler_cfg_function",
    "sampler_pre_cfg_function",
    "sampler_post_cfg_function",
    "sampler_calc_cond_batch_function",
    "context_handler",
)
SKIPPED_WRAPPERS = ("calc_cond_batch", "predict_noise")
WANTED = "connect the MODEL of an SD1.5 or SDXL checkpoint (Load Checkpoint, or a LoRA loader after it)"


def require_editable(model: Any) -> None:
    """
    Raises:
        ValueError: it is not a MODEL with an SD1.5- or SDXL-like UNet of 4 channels that predicts noise or v, it is
            compiled, or another node's patch needs the same attention or guidance.
    """
    if not hasattr(model, "get_model_object") or not hasattr(model, "model_options"):
        raise ValueError(f"model must be a MODEL, got {type(model).__name__}; {WANTED}")
    _refuse_compiled(model)
    _require_unet(model)
    _require_noise_prediction(model.get_model_object("model_sampling"))
    options = model.model_options
    refuse_replaced(options.get("transformer_options", {}))
    for name in GUIDANCE:
        for patch in _flat(options.get(name)):
            _refuse(patch, "changes how guidance is combined, which an edit does itself")
    refuse_step_wrappers(model)


def refuse_step_wrappers(model: Any) -> None:
    """Raise the error of wrappers that skip steps of sampling, or that only the host's own samplers call."""
    wrappers = _merged_wrappers(model)
    for kind in SKIPPED_WRAPPERS:
        for key, found in wrappers.get(kind, {}).items():
            for wrapper in found:
                _refuse(wrapper, "skips or changes steps, and an edit needs every one as it is", str(key))


def refuse_replaced(transformer_options: dict[str, Any]) -> None:
    """Raise the error of patches that replace attention or change its tokens; of a model's options or a call's."""
    for kind, patches in transformer_options.get("patches_replace", {}).items():
        if kind in ("attn1", "attn2"):
            for patch in patches.values():
                layer = "self" if kind == "attn1" else "cross"
                _refuse(patch, f"replaces {layer}-attention, which an edit needs for itself")
    for kind in SITE_PATCHES:
        for patch in transformer_options.get("patches", {}).get(kind, ()):
            _refuse(patch, "changes the tokens of the attention, which an edit compares between two pictures")


def named(patch: Any, key: str = "") -> str:
    """The name of a patch: the one that artists know, else that of its code."""
    code = getattr(patch, "__qualname__", None) or type(patch).__qualname__
    module = str(getattr(patch, "__module__", ""))
    # The patch's own name first: one module may hold the nodes of several patches, as EasyCache's holds LazyCache's.
    places = (f"{code} {key}", module)
    haystacks = [place.lower().replace("-", "_") for place in places]
    known = next((name for hay in haystacks for word, name in KNOWN.items() if word in hay), None)
    folder = module.replace("\\", "/").rpartition("/")[2]
    return known or f"{code.partition('.')[0]} ({folder})"


def _refuse(patch: Any, why: str, key: str = "") -> None:
    raise ValueError(
        f"model carries a patch of {named(patch, key)}, which {why}; connect to 'model' the MODEL from before that node"
    )


def _refuse_compiled(model: Any) -> None:
    compiled = _merged_wrappers(model).get("apply_model", {}).get("torch.compile")
    objects = [model.get_model_object("diffusion_model"), *model.object_patches.values()]
    if compiled or any(hasattr(each, "_orig_mod") for each in objects):
        raise ValueError(
            "model is compiled (Torch Compile Model), and a compiled network hides its attention; connect to 'model' the "
            "MODEL from before that node"
        )


def _require_unet(model: Any) -> None:
    net = model.get_model_object("diffusion_model")
    if not all(hasattr(net, name) for name in ("input_blocks", "middle_block", "output_blocks")):
        raise ValueError(
            f"model is a {type(model.model).__name__}, whose network ({type(net).__name__}) is not the UNet of SD1.5 or "
            f"SDXL; flow models and transformers cannot be edited by inversion: use LLMGA Flow Edit for them, or {WANTED}"
        )
    takes = getattr(net, "in_channels", None)
    if takes != 4:
        kind = {8: "an InstructPix2Pix UNet", 9: "an inpainting UNet"}.get(takes or 0, "another kind of UNet")
        raise ValueError(
            f"model takes {takes} channels: it is {kind}, and an edit needs one of 4 channels; {WANTED} that is made for "
            "text-to-image, and paint a mask on the edit instead"
        )


def _require_noise_prediction(sampling: Any) -> None:
    """By what it computes rather than by its class: nodes replace the class."""
    sigmas: Any = getattr(sampling, "sigmas", ())
    steps = len(sigmas)
    if steps != 1000:
        raise ValueError(
            f"model has {steps} timesteps (it is distilled, or a flow or EDM model), and an edit needs the 1000 of SD1.5 "
            f"and SDXL; {WANTED}, without Model Sampling nodes"
        )
    sigma, x, out = torch.tensor([2.0]), torch.full((1, 1, 1, 1), 3.0), torch.full((1, 1, 1, 1), 0.5)
    try:
        scaled = float(sampling.calculate_input(sigma, x))
        denoised = float(sampling.calculate_denoised(sigma, out, x))
    except (RuntimeError, TypeError, ValueError, AttributeError):
        scaled = denoised = math.nan
    eps, v = 3 - 0.5 * 2, 3 / 5 - 0.5 * 2 / math.sqrt(5)
    if not math.isclose(scaled, 3 / math.sqrt(5), rel_tol=1e-4) or not any(
        math.isclose(denoised, wanted, rel_tol=1e-4) for wanted in (eps, v)
    ):
        raise ValueError(
            f"model predicts neither noise (eps) nor v ({type(sampling).__mro__[1].__name__}: a flow, EDM or LCM model, or "
            f"a Model Sampling node before 'model'); LLMGA Flow Edit takes flow models, or {WANTED}"
        )


def _merged_wrappers(model: Any) -> dict[str, dict[Any, list[Any]]]:
    """The wrappers of the patcher and of its options: kind -> key -> wrappers."""
    merged: dict[str, dict[Any, list[Any]]] = {}
    given = model.model_options.get("transformer_options", {}).get("wrappers", {})
    for source in (model.wrappers, given):
        for kind, keyed in source.items():
            for key, found in keyed.items():
                merged.setdefault(kind, {}).setdefault(key, []).extend(found)
    return merged


def _flat(value: Any) -> Iterator[Any]:
    if value is not None:
        yield from value if isinstance(value, (list, tuple)) else (value,)
