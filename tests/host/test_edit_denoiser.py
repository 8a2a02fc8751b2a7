"""The host's MODEL as a denoiser: the numbers of diffusers, and everything that the host's own sampling does for a model."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
import torch
from support import comfy_inprocess as comfy
from support import tiny_edit as tiny
from support.edit_denoiser import KINDS, SHAPE, conditionings, host, noise, run

REASON = comfy.skip_reason()
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))

TIMESTEPS = (1, 481, 981)
TOLERANCE = 1e-4  # the host gives x0, from which the noise is taken out again


class Seen:
    """Taps that leave everything to the network and write down what they were shown."""

    def __init__(self, stop_after: Any = None) -> None:
        self.calls: list[Any] = []
        self.stop_after = stop_after

    def attend(self, site, q, k, v, heads, size):
        self.calls.append((site, tuple(q.shape), tuple(k.shape), heads, size, q.clone()))
        if site == self.stop_after:
            raise comfy.pack("llmga.diffusion.denoiser").StopForward
        return None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("v", [False, True], ids=["eps", "v"])
def test_the_noise_is_that_of_diffusers(
    nets: dict[str, Any], clips: dict[str, Any], kind: str, v: bool
) -> None:
    """Two rows whose prompts differ in length, on a picture that is not square."""
    conds = conditionings(clips[kind])
    x = noise()

    def work(denoiser, contexts):
        rows = [contexts["source"], contexts["target"]]
        entries = [one.entries[0]["model_conds"] for one in rows]
        return [denoiser.eps(x, t, rows) for t in TIMESTEPS], entries, denoiser.schedule

    found, entries, schedule = run(tiny.host_model(kind, nets[kind], v=v), conds, work)
    for timestep, eps in zip(TIMESTEPS, found, strict=True):
        for row in range(2):
            context = entries[row]["c_crossattn"].cond
            extra = {}
            if kind == "sdxl":
                pooled = entries[row]["y"].cond[:, : tiny.WIDTH_G]
                sizes = torch.tensor([[64.0, 128, 0, 0, 64, 128]])  # the picture's, and where it was cut
                extra["added_cond_kwargs"] = {"text_embeds": pooled, "time_ids": sizes}
            with torch.no_grad():
                expected = nets[kind](x[row : row + 1], timestep, context, **extra).sample
            if v:
                a = schedule.alphas_cumprod[timestep].float()
                expected = a.sqrt() * expected + (1 - a).sqrt() * x[row : row + 1]
            assert expected.std() > 0.01
            torch.testing.assert_close(eps[row : row + 1], expected, atol=TOLERANCE, rtol=0)


def add_lora(model: Any, clip: Any) -> Any:
    changed = model.clone()
    weights = model.model.diffusion_model.state_dict()
    keys = [name for name in weights if "attn" in name and name.endswith("to_v.weight")]
    changed.add_patches({f"diffusion_model.{name}": ("diff", (weights[name] * 0.5,)) for name in keys}, 0.8)
    return changed


def add_wrapper(model: Any, clip: Any) -> Any:
    changed = model.clone()
    changed.set_model_unet_function_wrapper(
        lambda apply, given: apply(given["input"], given["timestep"], **given["c"]) * 0.9
    )
    return changed


def add_output_patch(model: Any, clip: Any) -> Any:
    changed = model.clone()
    changed.set_model_output_block_patch(lambda h, skip, options: (h * 1.1, skip))  # as FreeU does
    return changed


def leave(model: Any, clip: Any) -> Any:
    return model


def controlled(conds: dict[str, Any], kind: str) -> dict[str, Any]:
    """Every prompt with a real, tiny ControlNet on it."""
    cldm, controlnet, ops = (
        importlib.import_module(f"comfy.{name}") for name in ("cldm.cldm", "controlnet", "ops")
    )
    config = {
        name: value
        for name, value in tiny.HOST[kind].items()
        if name not in ("transformer_depth_output", "num_classes", "adm_in_channels")
    }
    net = cldm.ControlNet(
        image_size=32,
        in_channels=4,
        hint_channels=3,
        use_spatial_transformer=True,
        legacy=False,
        dtype=torch.float32,
        device="cpu",
        operations=ops.disable_weight_init,
        **config,
    )
    generator = torch.Generator().manual_seed(1)
    for parameter in net.parameters():
        fan = max(1, parameter[0].numel() if parameter.dim() > 1 else 1)
        parameter.data = torch.randn(parameter.shape, generator=generator) / fan**0.5
    control = controlnet.ControlNet(net, load_device=torch.device("cpu"))
    hint = torch.rand(1, 64, 128, 3, generator=generator)
    apply = comfy.core_node("ControlNetApplyAdvanced")()
    positive, _ = apply.apply_controlnet(
        conds["source"], conds["negative"], control, hint, strength=0.7, start_percent=0.0, end_percent=1.0
    )
    return {name: host().with_control(cond, positive) for name, cond in conds.items()}


@pytest.mark.parametrize("change", [leave, add_lora, add_wrapper, add_output_patch, "control"])
@pytest.mark.parametrize("pictures", [1, 2])
def test_the_noise_is_that_of_the_hosts_own_sampling(
    nets: dict[str, Any], clips: dict[str, Any], change: Any, pictures: int
) -> None:
    """LoRA, wrappers, block patches and ControlNet act as they do in a KSampler."""
    samplers = importlib.import_module("comfy.samplers")
    plain = tiny.host_model("sd15", nets["sd15"])
    conds = conditionings(clips["sd15"])
    if change == "control":
        model, conds = plain, controlled(conds, "sd15")
    else:
        model = change(plain, clips["sd15"])
    x = noise((pictures, *SHAPE[1:]))
    names = ("negative", "target")

    def work(denoiser, contexts):
        rows = [contexts[name] for name in names for _ in range(pictures)]
        ours = denoiser.eps(x.repeat(2, 1, 1, 1), 481, rows)
        sigma = denoiser._sigmas[481]
        scaled = x * (1 + sigma**2).sqrt()
        entries = [contexts[name].entries for name in names]
        x0 = samplers.calc_cond_batch(
            denoiser._net, entries, scaled, sigma.expand(pictures), denoiser._model_options
        )
        return ours, torch.cat([(scaled - one) / sigma for one in x0])

    ours, theirs = run(model, conds, work, pictures)
    torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=0)
    if change is not leave:
        unchanged, _ = run(plain, conditionings(clips["sd15"]), work, pictures)
        assert (ours - unchanged).abs().max() > 1e-3, "the change has no effect: this test would see nothing"


def test_a_lora_hooked_to_the_prompts_acts(nets: dict[str, Any], clips: dict[str, Any]) -> None:
    """Create Hook LoRA reaches the UNet by way of the CLIP, for as long as its schedule says."""
    hooks = importlib.import_module("comfy.hooks")
    model, clip = tiny.host_model("sd15", nets["sd15"]), clips["sd15"].clone()
    weights = model.model.diffusion_model.state_dict()
    changes = {f"diffusion_model.{k}": ("diff", (v * 0.5,)) for k, v in weights.items() if "to_v.weight" in k}
    hook = hooks.WeightHook(strength_model=1.0, strength_clip=0.0)
    hook.weights, hook.need_weight_init = changes, False
    group = hooks.HookGroup()
    group.add(hook)
    hooked = {
        name: [[cond, {**extra, "hooks": group}] for cond, extra in each]
        for name, each in conditionings(clip).items()
    }
    x = noise((1, *SHAPE[1:]))

    def work(denoiser, contexts):
        return denoiser.eps(x, 481, [contexts["target"]])

    plain = run(model, conditionings(clip), work)
    acting = run(model, hooked, work)
    always = model.clone()
    always.add_patches(changes)
    torch.testing.assert_close(acting, run(always, conditionings(clip), work), atol=1e-5, rtol=0)
    assert (acting - plain).abs().max() > 1e-3
    torch.testing.assert_close(run(model, conditionings(clip), work), plain, atol=0, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_every_site_is_tapped_in_order(nets: dict[str, Any], clips: dict[str, Any], kind: str) -> None:
    x = noise()

    def work(denoiser, contexts):
        taps = Seen()
        rows = [contexts["source"], contexts["target"]]
        return denoiser.eps(x, 481, rows, taps), denoiser.eps(x, 481, rows), taps, denoiser.sites

    tapped, plain, taps, sites = run(tiny.host_model(kind, nets[kind]), conditionings(clips[kind]), work)
    assert torch.equal(tapped, plain)
    assert [call[0] for call in taps.calls] == sites
    assert len(sites) == {"sd15": 32, "sdxl": 34}[kind]
    for site, q, k, heads, (height, width), _ in taps.calls:
        assert q[0] == 2 and q[1] == height * width and width == 2 * height
        assert heads > 0 and q[2] % heads == 0
        # 77 tokens beside 302: both are repeated to a common number, which changes nothing.
        assert k[1] == (q[1] if site.kind == "self" else k[1]) and (site.kind == "self" or k[1] % 77 == 0)
    if kind == "sd15":
        names = {(site.block, site.number) for site in sites}
        assert names == {
            *(("input", n) for n in (1, 2, 4, 5, 7, 8)),
            ("middle", 0),
            *(("output", n) for n in range(3, 12)),
        }


def test_a_tap_may_change_the_attention_and_stop_the_pass(
    nets: dict[str, Any], clips: dict[str, Any]
) -> None:
    x = noise()

    def work(denoiser, contexts):
        rows = [contexts["source"]] * 2
        before = denoiser.eps(x, 481, rows)
        whole, stopped = Seen(), Seen(denoiser.sites[19])
        denoiser.eps(x, 481, rows, whole)
        assert denoiser.eps(x, 481, rows, stopped) is None
        assert len(stopped.calls) == 20
        for ours, theirs in zip(stopped.calls, whole.calls, strict=False):
            assert torch.equal(ours[-1], theirs[-1])
        silent = Seen()
        silent.attend = lambda site, q, k, v, heads, size: torch.zeros_like(q)
        assert not torch.equal(denoiser.eps(x, 481, rows, silent), before)
        assert torch.equal(denoiser.eps(x, 481, rows), before), "nothing of it stays behind"

    run(tiny.host_model("sd15", nets["sd15"]), conditionings(clips["sd15"]), work)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_runs_and_answers_in_float32(
    nets: dict[str, Any], clips: dict[str, Any], dtype: torch.dtype
) -> None:
    x = noise()

    def work(denoiser, contexts):
        taps = Seen()
        eps = denoiser.eps(x, 481, [contexts["source"]] * 2, taps)
        return eps, taps.calls[0][-1].dtype

    half, tapped = run(tiny.host_model("sd15", nets["sd15"], dtype=dtype), conditionings(clips["sd15"]), work)
    full, _ = run(tiny.host_model("sd15", nets["sd15"]), conditionings(clips["sd15"]), work)
    assert half.dtype == torch.float32 and tapped == dtype
    assert half.isfinite().all()
    torch.testing.assert_close(half, full, atol=0.05, rtol=0)


def test_a_model_that_stays_in_the_cpus_memory_gives_the_same(
    nets: dict[str, Any], clips: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What --lowvram does: weights are cast to the compute device layer by layer, LoRA and all."""
    management: Any = importlib.import_module("comfy.model_management")
    model = add_lora(tiny.host_model("sd15", nets["sd15"]), clips["sd15"])
    x = noise()

    def work(denoiser, contexts):
        return denoiser.eps(x, 481, [contexts["target"]] * 2, Seen())

    conds = conditionings(clips["sd15"])
    expected = run(model, conds, work)
    management.unload_all_models()
    monkeypatch.setattr(management, "load_models_gpu", lambda models, **options: None)
    lowered = add_lora(tiny.host_model("sd15", nets["sd15"]), clips["sd15"])
    lowered.load(torch.device("cpu"), lowvram_model_memory=100_000, force_patch_weights=False)
    layers = [m for m in lowered.model.diffusion_model.modules() if getattr(m, "weight_function", None)]
    assert layers, "no layer is in low memory: this test would see nothing"
    torch.testing.assert_close(run(lowered, conds, work), expected, atol=2e-5, rtol=0)


def test_cancel_ends_a_pass_and_leaves_the_model_whole(nets: dict[str, Any], clips: dict[str, Any]) -> None:
    management: Any = importlib.import_module("comfy.model_management")
    model, conds, x = tiny.host_model("sd15", nets["sd15"]), conditionings(clips["sd15"]), noise()

    def work(denoiser, contexts):
        return denoiser.eps(x, 481, [contexts["source"]] * 2)

    def cancelled(denoiser, contexts):
        work(denoiser, contexts)
        management.interrupt_current_processing()
        return work(denoiser, contexts)

    before = run(model, conds, work)
    with pytest.raises(management.InterruptProcessingException):
        run(model, conds, cancelled)
    assert torch.equal(run(model, conds, work), before)


def test_the_schedule_is_the_trained_one(nets: dict[str, Any]) -> None:
    model = tiny.host_model("sd15", nets["sd15"])
    found = host().schedule_of(model.get_model_object("model_sampling")).alphas_cumprod
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    torch.testing.assert_close(found, torch.cumprod(1 - betas, 0), atol=1e-7, rtol=0)
