"""LLMGA UNet Loader on a real ComfyUI: what it loads paints as diffusers does, and what it refuses is named."""

from __future__ import annotations

import asyncio
import gc
import importlib
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support import comfy_inprocess
from support.comfy_inprocess import core_node
from support.quantised_weights import QUANTISED, quantised, save, stored_as
from support.small_models import random_weights, write_unet
from support.unet_loading import STEM, clear, diffusion_models, mini_unet, node, run
from support.weight_headers import write_json, write_sparse

pytestmark = pytest.mark.skipif(
    comfy_inprocess.skip_reason() is not None, reason=str(comfy_inprocess.skip_reason())
)
TOLERANCE = 1e-4
GIGABYTE = 1 << 30


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with diffusion_models() as found:
        yield found


@pytest.fixture(autouse=True)
def empty(folder: Path) -> Iterator[None]:
    yield
    clear(folder)


@torch.no_grad()
def host_eps(model: Any, x: torch.Tensor, t: float, context: torch.Tensor) -> torch.Tensor:
    importlib.import_module("comfy.model_management").load_models_gpu([model])
    steps = torch.full((len(x),), t)
    return model.model.diffusion_model(x, steps, context=context).float()


def inputs(channels: int, context: int, side: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return (
        torch.randn(1, channels, side, side, generator=generator),
        torch.randn(1, 152, context, generator=generator),
    )


@torch.no_grad()
def diffusers_eps(config: dict[str, Any], weights: Any, x: Any, t: float, context: Any) -> torch.Tensor:
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        net = UNet2DConditionModel(**config)
    net.load_state_dict({name: value.float() for name, value in weights.items()}, assign=True)
    return net.eval()(x, t, context).sample


def shortage(path: Path) -> str:
    """Why full-size weights cannot be tested here, or ''."""
    if os.environ.get("LLMGA_LARGE") == "0":
        return "LLMGA_LARGE=0: full-size weights are left out"
    free = shutil.disk_usage(path).free
    memory = importlib.import_module("psutil").virtual_memory().available
    if free < 4 * GIGABYTE or memory < 9 * GIGABYTE:
        return (
            f"full-size weights need 4 GB of disk and 9 of memory; {free >> 30} and {memory >> 30} are free"
        )
    return ""


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(folder: Path, number: float) -> None:
    weights = mini_unet()
    weights["mid_block.resnets.1.conv2.weight"][3, 2, 1, 0] = number
    write_unet(folder / "broken", weights)
    with pytest.raises(ValueError, match=r"'mid_block.resnets.1.conv2.weight' holds NaN or infinite numbers"):
        run("broken/")


def test_weights_where_the_host_does_not_look_are_named(folder: Path) -> None:
    weights = mini_unet()
    torch.save({"params_ema": weights, "params": weights}, folder / "wrapped.pt")
    with pytest.raises(
        ValueError, match="wrapped.pt keeps its weights under 'params_ema', where ComfyUI does not"
    ):
        run("wrapped.pt")


@pytest.mark.parametrize(("channels", "task"), [(4, "text-to-image"), (9, "inpainting")])
def test_a_full_size_unet_gives_diffusers_eps(folder: Path, channels: int, task: str) -> None:
    if reason := shortage(folder):
        pytest.skip(reason)
    shapes = comfy_inprocess.pack("llmga.diffusion.unet_shapes")
    weights = random_weights(shapes.shapes(replace(shapes.SD15, channels=channels)), seed=channels)
    write_unet(folder / "full", weights)
    x, context = inputs(channels, 768, 8)
    config = {"cross_attention_dim": 768, "attention_head_dim": 8, "in_channels": channels}
    expected = diffusers_eps(config, weights, x, 321, context)
    del weights
    gc.collect()
    model, readout = run("full/")
    assert f"SD1.5 UNet for {task}" in readout and f"{channels} channels" in readout and "epsilon" in readout
    found = host_eps(model, x, 321, context)
    assert expected.std() > 0.05
    assert (found - expected).abs().max() <= TOLERANCE


def test_it_is_the_model_that_load_diffusion_model_makes(folder: Path) -> None:
    """So LoRA, ControlNet, IPAdapter and everything else treat it alike."""
    path = write_unet(folder / "ours", mini_unet(9))
    model, readout = run("ours/")
    name = path.relative_to(folder)
    theirs = core_node("UNETLoader")().load_unet(str(name), "default")[0]
    assert type(model) is type(theirs) and type(model.model) is type(theirs.model)
    assert type(model.model.model_config) is type(theirs.model.model_config)
    ours, others = model.model.state_dict(), theirs.model.state_dict()
    assert ours.keys() == others.keys()
    assert all(torch.equal(ours[key], others[key]) for key in ours)
    assert not model.object_patches
    assert "inpainting" in readout and "InpaintModelConditioning" in readout
    again = model.cached_patcher_init[0](*model.cached_patcher_init[1])  # as the host does for a second GPU
    assert all(torch.equal(ours[key], value) for key, value in again.model.state_dict().items())


def test_every_layout_is_the_same_model(folder: Path) -> None:
    weights = mini_unet()
    write_unet(folder / "whole", weights)
    names = list(weights)
    places = {}
    for i, part in enumerate((names[:100], names[100:])):
        path = write_unet(
            folder / "parts",
            {name: weights[name] for name in part},
            f"{STEM}-{i + 1:05d}-of-00002.safetensors",
        )
        places |= dict.fromkeys(part, path.name)
    write_json(folder / "parts" / "unet" / f"{STEM}.safetensors.index.json", {"weight_map": places})
    write_unet(folder / "half", weights, f"{STEM}.fp16.safetensors")
    (folder / "pickle" / "unet").mkdir(parents=True)
    torch.save(weights, folder / "pickle" / "unet" / f"{STEM}.bin")
    shutil.copytree(folder / "whole" / "unet", folder / "smoothed" / "unet_ema")
    shutil.copy(folder / "whole" / "unet" / f"{STEM}.safetensors", folder / "one.safetensors")
    x, context = inputs(4, 96, 8)
    chosen = ["whole/", "parts/", "half/", "pickle/", "smoothed/", "one.safetensors"]
    expected = None
    for name in chosen:
        model, readout = run(name)
        found = host_eps(model, x, 500, context)
        expected = found if expected is None else expected
        assert torch.equal(found, expected), name
    architecture = importlib.import_module("miniworld.models.architecture")
    assert expected is not None
    assert (
        diffusers_eps(architecture.unet_config(128), weights, x, 500, context) - expected
    ).abs().max() <= TOLERANCE
    assert {"whole/", "one.safetensors"} <= set(node().define_schema().inputs[0].options)


def test_the_scheduler_is_patched_onto_the_model(folder: Path) -> None:
    from diffusers import DDIMScheduler

    sampling: Any = importlib.import_module("comfy.model_sampling")
    write_unet(folder / "v", mini_unet())
    config = dict(importlib.import_module("miniworld.models.architecture").SCHEDULER)
    said = {**config, "prediction_type": "v_prediction", "rescale_betas_zero_snr": True, "beta_end": 0.013}
    write_json(folder / "v" / "scheduler" / "scheduler_config.json", said)
    model, readout = run("v/")
    assert "v_prediction, zero terminal SNR (as its scheduler or its file says)" in readout
    found = model.get_model_object("model_sampling")
    assert isinstance(found, sampling.V_PREDICTION) and isinstance(found, sampling.ModelSamplingDiscrete)
    alphas = DDIMScheduler(**said).alphas_cumprod.double()
    sigmas = ((1 - alphas) / alphas).sqrt()
    assert torch.allclose(found.sigmas.double()[:-1], sigmas[:-1], rtol=2e-3)
    assert found.sigmas[-1] > 1000
    assert isinstance(model.clone().get_model_object("model_sampling"), sampling.V_PREDICTION)
    write_json(folder / "v" / "scheduler" / "scheduler_config.json", config)
    model, readout = run("v/")
    assert not model.object_patches and "epsilon (as its scheduler or its file says)" in readout


def test_fp8_is_the_hosts(folder: Path) -> None:
    write_unet(folder / "ours", mini_unet())
    model, _ = run("ours/", weight_dtype="fp8_e4m3fn")
    assert model.model.diffusion_model.input_blocks[0][0].weight.dtype == torch.float8_e4m3fn


def mini_in_original_names() -> dict[str, torch.Tensor]:
    return comfy_inprocess.pack("llmga.diffusion.ldm").unet_to_ldm(mini_unet())


@pytest.fixture
def original_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loader knows SD1.5 and SDXL alone under the original names; here the miniature takes SD1.5's place."""
    shapes = comfy_inprocess.pack("llmga.diffusion.unet_shapes")
    mini = shapes.Sizes((64, 128), (0, 1), 1, 96, 4)
    monkeypatch.setattr(comfy_inprocess.pack("llmga.diffusion.unet_identity"), "SD15", mini)


def one_step(model: Any, x: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
    sampled = core_node("KSampler")().sample(
        model, 1, 1, 1.0, "euler", "normal", [[context, {}]], [[context, {}]], {"samples": x}, 1.0
    )
    return sampled[0]["samples"]


@pytest.mark.parametrize("how", QUANTISED)
@pytest.mark.usefixtures("original_names")
def test_a_quantised_unet_paints_what_its_numbers_mean(folder: Path, how: str) -> None:
    """Against the same file with scales multiplied out: the host computes both in its own types."""
    stored, metadata, meant = quantised(mini_in_original_names(), how)
    save(folder / "quantised.safetensors", stored, metadata)
    save(folder / "meant.safetensors", {name: value.half() for name, value in meant.items()})
    x, context = inputs(4, 96, 8)
    beside = stored.keys() - meant.keys()
    assert len(beside) >= 20
    model, readout = run("quantised.safetensors")
    plain, _ = run("meant.safetensors")
    assert "original names, quantised (" in readout and "F16" in readout
    types = [type(weight).__name__ for weight in model.model.diffusion_model.parameters()]
    assert types.count("QuantizedTensor") == sum(
        name.endswith(("weight_scale", "scale_weight")) for name in beside
    )
    for found, expected in (
        (host_eps(model, x, 500, context), host_eps(plain, x, 500, context)),
        (one_step(model, x, context), one_step(plain, x, context)),
    ):
        assert expected.std() > 0.05
        assert (found - expected).abs().max() <= 0.02 * expected.abs().max()


@pytest.mark.usefixtures("original_names")
def test_a_quantised_unet_inside_a_checkpoint_paints_the_same(folder: Path) -> None:
    stored, _, _ = quantised(mini_in_original_names(), "scaled_fp8")
    save(folder / "alone.safetensors", stored)
    whole = {f"model.diffusion_model.{name}": value for name, value in stored.items()}
    save(folder / "whole.safetensors", {**whole, "first_stage_model.decoder.conv_in.weight": torch.zeros(1)})
    x, context = inputs(4, 96, 8)
    alone, whole_one = (
        host_eps(run(f"{name}.safetensors")[0], x, 500, context) for name in ("alone", "whole")
    )
    assert torch.equal(alone, whole_one)


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.usefixtures("original_names")
def test_a_mark_in_the_file_is_followed(folder: Path, whole: bool) -> None:
    """As those of v-prediction have it; taken for eps, such a model paints noise."""
    prefix = "model.diffusion_model." if whole else ""
    weights = {f"{prefix}{name}": value for name, value in mini_in_original_names().items()}
    if whole:
        weights["first_stage_model.decoder.conv_in.weight"] = torch.zeros(1)
    marks = {"v_pred": torch.tensor([]), "ztsnr": torch.tensor([])}
    save(folder / "v.safetensors", {**weights, **marks})
    model, readout = run("v.safetensors")
    assert "v_prediction, zero terminal SNR" in readout
    found = model.get_model_object("model_sampling")
    assert isinstance(found, importlib.import_module("comfy.model_sampling").V_PREDICTION)
    assert found.sigmas[-1] > 1000


@pytest.mark.usefixtures("original_names")
def test_a_format_that_this_comfyui_does_not_read_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored, _, _ = quantised(mini_in_original_names(), "int8_tensorwise")
    save(folder / "quantised.safetensors", stored)
    monkeypatch.delitem(importlib.import_module("comfy.quant_ops").QUANT_ALGOS, "int8_tensorwise")
    with pytest.raises(ValueError, match="quantised as int8_tensorwise, which this ComfyUI does not read"):
        run("quantised.safetensors")


@pytest.mark.usefixtures("original_names")
def test_a_packed_layer_by_which_the_host_tells_a_unet_is_named(folder: Path) -> None:
    stored, _, _ = quantised(mini_in_original_names(), "nvfp4")
    key = next(key for key in stored if key.endswith("attn2.to_k.weight"))
    layer = key.removesuffix("weight")
    entries, _ = stored_as(stored.pop(key).float(), "nvfp4")
    description = torch.tensor(list(b'{"format": "nvfp4"}'), dtype=torch.uint8)
    stored |= {layer + ending: entry for ending, entry in {**entries, "comfy_quant": description}.items()}
    save(folder / "quantised.safetensors", stored)
    with pytest.raises(ValueError, match=r"quantised as nvfp4 in .*attn2.to_k too, by which ComfyUI tells"):
        run("quantised.safetensors")


def test_quantised_under_diffusers_names_is_refused_with_the_reason(folder: Path) -> None:
    """There the host takes the numbers without their scales, and paints noise."""
    stored, _, _ = quantised(mini_unet(), "comfy_quant")
    write_unet(folder / "ours", stored)
    with pytest.raises(
        ValueError, match="quantised under diffusers' names, under which ComfyUI leaves the scales"
    ):
        run("ours/")


def test_the_nodes_that_advice_names_are_there() -> None:
    kinds = comfy_inprocess.pack("llmga.files.known_kinds").KINDS
    named = {
        match[1]
        for kind in kinds
        for match in re.finditer(r"[Ll]oad it with ((?:[A-Z][A-Za-z0-9]*)(?: [A-Z][A-Za-z]*)*)", kind.advice)
    }
    core = importlib.import_module("nodes")
    asyncio.run(core.init_builtin_extra_nodes())
    there = {*core.NODE_CLASS_MAPPINGS, *core.NODE_DISPLAY_NAME_MAPPINGS.values()}
    there |= {"LLMGA UNet Loader", "DiffRIR Loader", "LLMGA Model Loader", "LLMGA GILL Loader"}
    assert len(named) >= 12 and named - there == set()


def test_a_changed_file_runs_again(folder: Path) -> None:
    write_unet(folder / "ours", mini_unet())
    importlib.import_module("folder_paths").filename_list_cache.clear()

    def fingerprint() -> str:
        return node().fingerprint_inputs("ours/", "auto", "default", False)

    before = fingerprint()
    assert before == fingerprint() and STEM in before
    write_unet(folder / "ours", mini_unet(9))
    assert fingerprint() != before
    assert "KeyError" in node().fingerprint_inputs("gone/", "auto", "default", False)


def test_nothing_wrong_is_loaded(folder: Path) -> None:
    """The twelve kinds and more are in tests/unit/test_unet_files.py; here, that the node asks before it loads."""
    shapes = comfy_inprocess.pack("llmga.diffusion.unet_shapes")
    whole = shapes.shapes(shapes.SD15)
    half = dict(list(whole.items())[: len(whole) // 2])
    write_sparse(folder / "half" / "unet" / f"{STEM}.safetensors", half)
    with pytest.raises(ValueError, match="343 of 686 weights are missing"):
        run("half/")
    write_sparse(folder / "vae.safetensors", {"encoder.conv_in.weight": (1,)})
    with pytest.raises(ValueError, match="a VAE"):
        run("vae.safetensors")
    strange = shapes.Sizes((32, 64), (0, 1), 1, 96, 4)
    write_unet(folder / "strange", random_weights(shapes.shapes(strange)))
    with pytest.raises(ValueError, match="ComfyUI does not know its architecture: small Stable Diffusion"):
        run("strange/")


@pytest.mark.parametrize(
    ("name", "value"),
    [("unet", "../secret"), ("unet", None), ("variant", "fp8"), ("weight_dtype", 3), ("download", "yes")],
)
def test_a_wrong_widget_is_named(folder: Path, name: str, value: Any) -> None:
    write_unet(folder / "ours", mini_unet())
    with pytest.raises(ValueError, match=name):
        run(**{"unet": "ours/", name: value})
