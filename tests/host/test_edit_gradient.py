"""Gradients through the host's MODEL with respect to the latent, under inference mode with inference weights."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
import torch
from support import comfy_inprocess as comfy
from support import tiny_edit as tiny
from support.attention_loss import AttentionLoss

REASON = comfy.skip_reason()
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))

SHAPE = (2, 4, 16, 16)
TIMESTEP = 681
NUMBERS = {"sd15": (("input", 7), ("middle", 0), ("output", 4)), "sdxl": (("input", 7), ("output", 1))}


def noise(seed: int = 0) -> torch.Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))


def inference_model(kind: str, net: Any, **options: Any) -> Any:
    """A MODEL whose weights are inference tensors, as those that a node loads."""
    with torch.inference_mode():
        model = tiny.host_model(kind, net, **options)
        for module in model.model.diffusion_model.modules():
            for name, parameter in list(module._parameters.items()):
                if parameter is not None:
                    module._parameters[name] = torch.nn.Parameter(
                        parameter.detach().clone(), requires_grad=False
                    )
    assert next(model.model.diffusion_model.parameters()).is_inference()
    return model


def conditionings(kind: str) -> Any:
    with torch.inference_mode():
        clip = comfy.tiny_clip(kind)
        return {
            name: tiny.conditioning(clip, text)
            for name, text in (("source", "a red fox"), ("target", "an owl"))
        }


def attention_gradient(denoiser: Any, x: torch.Tensor, rows: list[Any], kind: str, stop: bool = True) -> Any:
    diffusion = comfy.pack("llmga.diffusion")
    sites = [site for site in denoiser.sites if site[:2] in NUMBERS[kind] and site.kind == "cross"]
    taps = AttentionLoss(sites, 2, diffusion.StopForward if stop else None)
    return diffusion.gradient(denoiser, x, TIMESTEP, rows, taps.loss, taps), taps


def run(model: Any, conds: Any, work: Any) -> Any:
    with torch.inference_mode():
        return comfy.pack("nodes.host_denoiser").run(model, conds, SHAPE, work)


@pytest.mark.parametrize("kind", ["sd15", "sdxl"])
@pytest.mark.parametrize("v", [False, True], ids=["eps", "v"])
def test_the_gradient_is_that_of_diffusers(kind: str, v: bool) -> None:
    """Of a loss on attention maps, and of one on the noise."""
    comfy.start()
    net, conds = tiny.diffusers_unet(kind), conditionings(kind)
    weights = noise(1)  # made outside inference mode, or autograd could not save it
    unet, diffusion = comfy.pack("llmga.diffusion.diffusers_unet"), comfy.pack("llmga.diffusion")

    def work(denoiser: Any, contexts: Any) -> Any:
        x = noise()
        rows = [contexts["source"], contexts["target"]]
        other = unet.DiffusersDenoiser(net, denoiser.schedule, "v_prediction" if v else "epsilon")
        known = []
        for row in rows:
            conds = row.entries[0]["model_conds"]
            more = {}
            if kind == "sdxl":
                sizes = torch.tensor([[128.0, 128, 0, 0, 128, 128]])
                more = {"pooled": conds["y"].cond[:, : tiny.WIDTH_G], "time_ids": sizes}
            known.append(unet.DiffusersContext(conds["c_crossattn"].cond, **more))
        found = []
        for each, contexts_ in ((denoiser, rows), (other, known)):
            attention, _ = attention_gradient(each, x, contexts_, kind)
            of_noise = diffusion.gradient(each, x, TIMESTEP, contexts_, lambda eps: (eps * weights).sum())
            found.append((attention, of_noise))
        return found

    ours, theirs = run(inference_model(kind, net, v=v), conds, work)
    for found, expected in zip(ours, theirs, strict=True):
        assert found.isfinite().all() and expected.abs().max() > 1e-4 and not found.is_inference()
        assert (found - expected).abs().max() <= 1e-3 * expected.abs().max()


def directional(denoiser: Any, rows: list[Any], kind: str) -> tuple[float, float]:
    """The gradient along a direction, and the difference quotient along it."""
    x, direction, step = noise(), noise(5), 2e-3
    found, taps = attention_gradient(denoiser, x, rows, kind)
    values = []
    for sign in (1, -1):
        denoiser.eps(x + sign * step * direction, TIMESTEP, rows, taps)
        values.append(float(taps.loss()))
    return float((found * direction).sum()), (values[0] - values[1]) / (2 * step)


def test_a_model_in_low_memory_with_a_lora_has_the_gradient_of_its_patched_weights(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What --lowvram does: weights are cast and patched layer by layer, on the way back too."""
    management: Any = importlib.import_module("comfy.model_management")
    net, conds = tiny.diffusers_unet("sd15"), conditionings("sd15")

    def with_lora() -> Any:
        model = inference_model("sd15", net).clone()
        weights = model.model.diffusion_model.state_dict()
        keys = [name for name in weights if "attn" in name and name.endswith(("to_v.weight", "to_q.weight"))]
        model.add_patches({f"diffusion_model.{name}": ("diff", (weights[name] * 0.5,)) for name in keys}, 0.8)
        return model

    def work(denoiser: Any, contexts: Any) -> Any:
        rows = [contexts["source"], contexts["target"]]
        return attention_gradient(denoiser, noise(), rows, "sd15")[0], directional(denoiser, rows, "sd15")

    plain, _ = run(inference_model("sd15", net), conds, work)
    expected, (along, quotient) = run(with_lora(), conds, work)
    assert along == pytest.approx(quotient, rel=0.02) and abs(quotient) > 1e-4
    assert (plain - expected).abs().max() > 0.01 * plain.abs().max(), "the LoRA has no effect"
    management.unload_all_models()
    monkeypatch.setattr(management, "load_models_gpu", lambda models, **options: None)
    lowered = with_lora()
    with torch.inference_mode():
        lowered.load(torch.device("cpu"), lowvram_model_memory=100_000, force_patch_weights=False)
    assert any(getattr(m, "weight_function", None) for m in lowered.model.diffusion_model.modules())
    found, _ = run(lowered, conds, work)
    assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()


def test_half_precision_has_a_gradient() -> None:
    conds = conditionings("sd15")
    net = tiny.diffusers_unet("sd15")

    def work(denoiser: Any, contexts: Any) -> Any:
        return attention_gradient(denoiser, noise(), [contexts["source"], contexts["target"]], "sd15")[0]

    half = run(inference_model("sd15", net, dtype=torch.bfloat16), conds, work)
    full = run(inference_model("sd15", net), conds, work)
    assert half.dtype == torch.float32 and half.isfinite().all()
    assert torch.cosine_similarity(half.flatten(), full.flatten(), 0) > 0.95


def test_the_model_is_left_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """No parameter has a gradient, none is copied, and every layer has its own forward again, after an error too."""
    net, conds = tiny.diffusers_unet("sd15"), conditionings("sd15")
    model = inference_model("sd15", net)
    modules = list(model.model.diffusion_model.modules())
    parameters = dict(model.model.diffusion_model.named_parameters())

    def untouched() -> bool:
        now = dict(model.model.diffusion_model.named_parameters())
        same = all(
            now[name] is parameter and parameter.grad is None for name, parameter in parameters.items()
        )
        return same and not any("forward" in module.__dict__ for module in modules)

    def work(denoiser: Any, contexts: Any) -> Any:
        rows, x = [contexts["source"]] * 2, noise()
        before = denoiser.eps(x, TIMESTEP, rows)
        saved: list[torch.Tensor] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
            attention_gradient(denoiser, x, rows, "sd15", stop=False)
        pointers = {parameter.data_ptr() for parameter in parameters.values()}
        assert saved and not any(tensor.data_ptr() in pointers for tensor in saved)
        assert untouched() and torch.is_inference_mode_enabled()

        def fail(*_: Any) -> None:
            raise KeyboardInterrupt

        taps = AttentionLoss([], 0)
        taps.attend = fail  # type: ignore[method-assign]
        with pytest.raises(KeyboardInterrupt):
            comfy.pack("llmga.diffusion").gradient(denoiser, x, TIMESTEP, rows, taps.loss, taps)
        assert untouched()
        with pytest.raises(ValueError, match="x must require a gradient"):
            denoiser.with_gradient(x, TIMESTEP, rows)
        return before, denoiser.eps(x, TIMESTEP, rows)

    before, after = run(model, conds, work)
    assert torch.equal(before, after)
