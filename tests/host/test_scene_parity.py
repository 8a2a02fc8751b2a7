"""One whole scene on two denoisers: the host's MODEL, under inference mode, and a diffusers UNet with the same weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support import comfy_inprocess as comfy
from support import tiny_edit as tiny

REASON = comfy.skip_reason()
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))

SIZE = (16, 16)
SEED = 4
LONG = (
    "a wide valley with a slow river, old bridges and willows in the soft light of a late summer evening, "
    * 5
)


def plan_of(scene: Any, background: str) -> Any:
    fox = scene.SceneObject("a red fox", scene.SceneBox(0.05, 0.4, 0.45, 0.5), ("leaping over a log",))
    owl = scene.SceneObject("an old owl", scene.SceneBox(0.55, 0.1, 0.35, 0.4), ("asleep",))
    return scene.ScenePlan((fox, owl), background, "rain")


def smooth(net: Any) -> Any:
    """Duller attention: where it is sharp, the largest cells change places by rounding, and a gradient of them jumps."""
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if "to_q" in name or "to_k" in name:
                parameter.mul_(0.4)
    return net


class OtherRunner:
    """Runs the same work on a diffusers UNet, with the prompts that the host has encoded."""

    def __init__(self, net: Any, denoiser: Any, prediction: str) -> None:
        unet = comfy.pack("llmga.diffusion.diffusers_unet")
        self.denoiser = unet.DiffusersDenoiser(net, denoiser.schedule, prediction)

    def run(self, prompts: Any, shape: Any, work: Any) -> Any:
        context = comfy.pack("llmga.diffusion.diffusers_unet").DiffusersContext
        found = {}
        for name, conditioning in prompts.items():
            states, extra = conditioning[0]
            pooled = extra.get("pooled_output")
            sizes = torch.tensor([[SIZE[0] * 8.0, SIZE[1] * 8, 0, 0, SIZE[0] * 8, SIZE[1] * 8]])
            more = {"pooled": pooled, "time_ids": sizes} if states.shape[-1] > tiny.WIDTH_L else {}
            found[name] = context(states, **more)
        return work(self.denoiser, found)


@pytest.mark.parametrize(
    ("kind", "v", "background"),
    [
        ("sd15", False, "a forest"),
        ("sd15", True, "a forest"),
        ("sdxl", False, "a forest"),
        ("sd15", False, LONG),
    ],
    ids=["sd15", "sd15-v", "sdxl", "sd15-long"],
)
def test_a_whole_scene_is_the_same(kind: str, v: bool, background: str) -> None:
    comfy.start()
    net, clip = smooth(tiny.diffusers_unet(kind)), comfy.tiny_clip(kind)
    host, encoders = comfy.pack("nodes.host_denoiser"), comfy.pack("nodes.prompt_encoder")
    scene = comfy.pack("llmga.scene")
    model = tiny.host_model(kind, net, v=v)
    encoder = encoders.HostPromptEncoder(clip, encoders.clip_encoders(clip))
    guided = scene.GuidanceSettings(passes=(1, 1), of_steps=4)
    settings = scene.SceneSettings(steps=4, cfg=4.0, alone=guided, together=guided)
    plan = plan_of(scene, background)
    with torch.inference_mode():
        ours = scene.SceneSession(host.HostRunner(model), encoder).paint(plan, SIZE, settings, seed=SEED)
        denoisers: list[Any] = []
        some = {"scene": encoder.encode(encoder.plan("a")), "negative": encoder.encode(encoder.plan(""))}
        host.run(model, some, (1, 4, *SIZE), lambda denoiser, contexts: denoisers.append(denoiser))
        other = OtherRunner(net, denoisers[0], "v_prediction" if v else "epsilon")
        theirs = scene.SceneSession(other, encoder).paint(plan, SIZE, settings, seed=SEED)
    assert ours.notes == theirs.notes
    for one, two in zip(ours.objects, theirs.objects, strict=True):
        assert torch.equal(one.mask, two.mask)
        torch.testing.assert_close(one.run.latents, two.run.latents, atol=1e-3, rtol=0)
        assert one.run.guidance.backward_passes == 2
    torch.testing.assert_close(ours.latent, theirs.latent, atol=1e-3, rtol=0)
    torch.testing.assert_close(ours.word_maps, theirs.word_maps, atol=1e-3, rtol=0)
    with torch.inference_mode():
        off = scene.GuidanceSettings(scale=0)
        free = scene.SceneSession(host.HostRunner(model), encoder).paint(
            plan, SIZE, scene.SceneSettings(steps=4, cfg=4.0, alone=off, together=off), seed=SEED
        )
    assert (free.latent - ours.latent).abs().max() > 2e-3, (
        "guidance does nothing: this test would see nothing"
    )
