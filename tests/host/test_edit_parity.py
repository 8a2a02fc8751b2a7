"""One edit on two denoisers: the host's MODEL and a diffusers UNet with the same weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support import comfy_inprocess as comfy
from support import tiny_edit as tiny

REASON = comfy.skip_reason()
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))

STEPS = 8
SOURCE = "a large red star on snow, beside a grey stone"
LONG = "a quiet stone bridge over a slow river in soft light, " * 12
CASES = {
    "refine": (SOURCE, "a large blue striped star on snow, beside a grey stone", {}),
    "replace": (SOURCE, SOURCE.replace("red star", "blue fox"), {}),
    "reweight": (SOURCE, SOURCE, {"weights": (("stone", 3.0),)}),
    "without blend": (SOURCE, SOURCE.replace("snow", "grass"), {"local_blend": "off"}),
    "long": (LONG, LONG.replace("stone", "wooden"), {}),
}


def control(plans: dict[str, Any], layout: str, options: dict[str, Any]) -> Any:
    library = comfy.pack("llmga.edit")
    words = library.PromptToPromptOptions(**{k: v for k, v in options.items() if k == "weights"})
    return library.build_control(
        words,
        plans["source"],
        plans["target"],
        layout,
        size=(16, 16),
        local_blend=options.get("local_blend", "auto"),
    ).control


def diffusers_contexts(contexts: dict[str, Any], kind: str) -> dict[str, Any]:
    """The host's encoded prompts for the other denoiser."""
    context = comfy.pack("llmga.diffusion.diffusers_unet").DiffusersContext
    found = {}
    for name, each in contexts.items():
        conds = each.entries[0]["model_conds"]
        more = {}
        if kind == "sdxl":
            sizes = torch.tensor([[128.0, 128, 0, 0, 128, 128]])
            more = {"pooled": conds["y"].cond[:, : tiny.WIDTH_G], "time_ids": sizes}
        found[name] = context(conds["c_crossattn"].cond, **more)
    return found


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("kind", "v"), [("sd15", False), ("sdxl", False), ("sd15", True)])
def test_a_whole_edit_is_the_same(kind: str, v: bool, case: str) -> None:
    source, target, options = CASES[case]
    comfy.start()
    net, clip = tiny.diffusers_unet(kind), comfy.tiny_clip(kind)
    host, encoders = comfy.pack("nodes.host_denoiser"), comfy.pack("nodes.prompt_encoder")
    library, unet = comfy.pack("llmga.edit"), comfy.pack("llmga.diffusion.diffusers_unet")
    prompts = encoders.HostPromptEncoder(clip, encoders.clip_encoders(clip))
    plans = {
        name: prompts.plan(text) for name, text in (("source", source), ("target", target), ("negative", ""))
    }
    chunks = comfy.pack("llmga.text").longest(*plans.values())
    conds = {name: prompts.encode(plan, chunks) for name, plan in plans.items()}
    chosen = control({name: plan["l"] for name, plan in plans.items()}, prompts.layout, options)
    clean = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(0))

    def work(denoiser, contexts):
        def both(on, known):
            trajectory = library.invert(on, clean, known["source"], STEPS)
            return trajectory, library.edit(
                on, trajectory, known["source"], known["target"], known["negative"], chosen
            )

        other = unet.DiffusersDenoiser(net, denoiser.schedule, "v_prediction" if v else "epsilon")
        assert other.sites == denoiser.sites
        return both(denoiser, contexts), both(other, diffusers_contexts(contexts, kind))

    with torch.inference_mode():
        ours, theirs = host.run(tiny.host_model(kind, net, v=v), conds, clean.shape, work)
    torch.testing.assert_close(ours[0].latents, theirs[0].latents, atol=1e-5, rtol=0)
    torch.testing.assert_close(ours[1].latent, theirs[1].latent, atol=1e-3, rtol=0)
    torch.testing.assert_close(ours[1].mask, theirs[1].mask, atol=0, rtol=0)
    assert ours[1].rows == theirs[1].rows
    if case != "reweight":
        assert (ours[1].latent - clean).abs().max() > 1e-2, "nothing was edited: this test would see nothing"
