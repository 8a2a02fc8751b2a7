"""What the host's denoiser cannot share with an edit, each named."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
import torch
from support import comfy_inprocess as comfy
from support import tiny_edit as tiny
from support.edit_denoiser import host

REASON = comfy.skip_reason()


pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))


def sag(model: Any) -> Any:
    return comfy_extra("nodes_sag").SelfAttentionGuidance.execute(model, 0.5, 2.0)[0]


def pag(model: Any) -> Any:
    return comfy_extra("nodes_pag").PerturbedAttentionGuidance.execute(model, 3.0)[0]


def hypertile(model: Any) -> Any:
    return comfy_extra("nodes_hypertile").HyperTile.execute(model, 256, 2, 0, False)[0]


def tome(model: Any) -> Any:
    return comfy_extra("nodes_tomesd").TomePatchModel.execute(model, 0.3)[0]


def lazycache(model: Any) -> Any:
    return comfy_extra("nodes_easycache").LazyCacheNode.execute(model, 0.2, 0.15, 0.95, False)[0]


def easycache(model: Any) -> Any:
    return comfy_extra("nodes_easycache").EasyCacheNode.execute(model, 0.2, 0.15, 0.95, False)[0]


def rescale(model: Any) -> Any:
    return comfy_extra("nodes_model_advanced").RescaleCFG().patch(model, 0.7)[0]


def flow_sampling(model: Any) -> Any:
    return comfy_extra("nodes_model_advanced").ModelSamplingSD3().patch(model, 3.0)[0]


def lcm_sampling(model: Any) -> Any:
    return comfy_extra("nodes_model_advanced").ModelSamplingDiscrete().patch(model, "lcm", False)[0]


def compiled(model: Any) -> Any:
    changed = model.clone()
    comfy.start()
    helpers = importlib.import_module("comfy_api.torch_helpers")
    helpers.set_torch_compile_wrapper(model=changed, backend="eager")
    return changed


def ip_adapter(model: Any) -> Any:
    class CrossAttentionPatch:
        __module__ = "custom_nodes.ComfyUI_IPAdapter_plus.CrossAttentionPatch"

        def __call__(self, q, k, v, extra):
            return q

    changed = model.clone()
    changed.set_model_attn2_replace(CrossAttentionPatch(), "middle", 0)
    return changed


def comfy_extra(name: str) -> Any:
    comfy.start()
    return importlib.import_module(f"comfy_extras.{name}")


@pytest.mark.parametrize(
    ("patch", "message"),
    [
        (sag, r"Self-Attention Guidance \(SAG\), which replaces self-attention"),
        (pag, r"Perturbed-Attention Guidance \(PAG\), which"),
        (hypertile, "HyperTile, which changes the tokens"),
        (tome, r"Token Merging \(ToMe\), which changes the tokens"),
        (ip_adapter, "IPAdapter, which replaces cross-attention"),
        (easycache, "EasyCache, which skips"),
        (lazycache, "LazyCache, which skips"),
        (rescale, "RescaleCFG, which changes how guidance is combined"),
        (compiled, "model is compiled"),
        (flow_sampling, "model predicts neither|model has"),
        (lcm_sampling, "model has 50 timesteps|predicts neither"),
    ],
)
def test_what_an_edit_cannot_share_is_named(nets: dict[str, Any], patch: Any, message: str) -> None:
    model = tiny.host_model("sd15", nets["sd15"])
    host().require_editable(model)
    with pytest.raises(ValueError, match=message) as error:
        host().require_editable(patch(model))
    assert "'model'" in str(error.value) or "connect the MODEL" in str(error.value)
    host().require_editable(model)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: None, "model must be a MODEL, got NoneType"),
        (lambda: tiny.host_model("sd15", None, channels=9), "takes 9 channels: it is an inpainting UNet"),
        (
            lambda: tiny.host_model("sd15", None, channels=8),
            "takes 8 channels: it is an InstructPix2Pix UNet",
        ),
        (lambda: flux(), "is not the UNet of SD1.5 or SDXL; flow models"),
    ],
)
def test_another_kind_of_model_is_named(model: Any, message: str) -> None:
    comfy.start()
    with pytest.raises(ValueError, match=message):
        host().require_editable(model())


def flux() -> Any:
    """A flow model of the host with a transformer of no size."""
    comfy.start()
    base, supported, patcher = (
        importlib.import_module(f"comfy.{name}")
        for name in ("model_base", "supported_models", "model_patcher")
    )
    config = supported.Lumina2({"image_model": "lumina2", "disable_unet_model_creation": True})
    config.set_inference_dtype(torch.float32, None)
    model = base.BaseModel(config, base.ModelType.FLOW)
    model.diffusion_model = torch.nn.Linear(1, 1)
    return patcher.ModelPatcher(model, torch.device("cpu"), torch.device("cpu"))


def test_a_conditioning_without_controlnet_is_no_control(clips: dict[str, Any]) -> None:
    plain = tiny.conditioning(clips["sd15"], "a fox")
    assert host().with_control(plain, None) is plain
    with pytest.raises(
        ValueError, match="control must come from Apply ControlNet with one ControlNet in it, got none"
    ):
        host().with_control(plain, plain)


class HalfAControl:
    """Has some of what the host calls."""

    def get_control(self) -> None: ...

    def get_extra_hooks(self) -> list[Any]:
        return []


@pytest.mark.parametrize(
    "control",
    [
        {},
        {"samples": 1},
        torch.zeros(1, 77, 8),
        7,
        0.5,
        "control",
        [],
        [[]],
        [torch.zeros(1, 77, 8)],
        [[torch.zeros(1, 77, 8)]],
        [["text", {}]],
        [[torch.zeros(1, 77, 8), {"control": "x"}]],
        [[torch.zeros(1, 77, 8), {"control": 7}]],
        [[torch.zeros(1, 77, 8), {"control": object()}]],
        [[torch.zeros(1, 77, 8), {"control": HalfAControl()}]],
        [[torch.zeros(1, 77, 8), {"control": dict}]],
        [[torch.zeros(1, 77, 8), {"control": 7}], [torch.zeros(1, 77, 8), {"control": "x"}]],
        [[torch.zeros(1, 77, 8), None]],
    ],
    ids=lambda value: str(value).replace("\n", "")[:60],
)
def test_what_is_no_control_is_named(clips: dict[str, Any], control: Any) -> None:
    plain = tiny.conditioning(clips["sd15"], "a fox")
    with pytest.raises(ValueError, match=r"^control must .*Apply ControlNet"):
        host().with_control(plain, control)
