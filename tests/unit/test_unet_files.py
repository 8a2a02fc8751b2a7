"""A published UNet is found in every layout it comes in, and what is damaged or something else is named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.weight_headers import split, write_json, write_sparse

from llmga.diffusion.ldm import unet_to_ldm
from llmga.diffusion.noise_settings import NoiseSettings
from llmga.diffusion.unet_files import STEM, find_unet, fingerprint
from llmga.diffusion.unet_shapes import SD15, SDXL, Sizes, measured, shapes
from llmga.files.header import read_header
from miniworld.models.architecture import unet_config

SD15_INPAINTING = replace(SD15, channels=9)
MINI = Sizes((64, 128), (0, 1), 1, 96, 4)
MINI_256 = Sizes((64, 64, 128), (0, 1, 1), 1, 96, 4)
SDXL_UNET: dict[str, Any] = {
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "cross_attention_dim": 2048,
    "attention_head_dim": (5, 10, 20),
    "use_linear_projection": True,
    "transformer_layers_per_block": (1, 2, 10),
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
DIFFUSERS = {
    SD15: {"cross_attention_dim": 768, "attention_head_dim": 8},
    SD15_INPAINTING: {"cross_attention_dim": 768, "attention_head_dim": 8, "in_channels": 9},
    SDXL: SDXL_UNET,
    replace(SDXL, channels=9): {**SDXL_UNET, "in_channels": 9},
    MINI: unet_config(128),
    MINI_256: unet_config(256),
}


@pytest.mark.parametrize("sizes", DIFFUSERS, ids=str)
def test_the_shapes_are_those_of_diffusers(sizes: Sizes) -> None:
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        net = UNet2DConditionModel(**DIFFUSERS[sizes])
    wanted = {name: tuple(value.shape) for name, value in net.state_dict().items()}
    assert shapes(sizes) == wanted
    assert measured(wanted) == sizes


def file(
    folder: Path, sizes: Sizes = SD15, name: str = f"unet/{STEM}.safetensors", dtype: str = "F16"
) -> Path:
    return write_sparse(folder / name, shapes(sizes), dtype)


@pytest.mark.parametrize(
    ("sizes", "base", "task", "parameters"),
    [
        (SD15, "SD1.5", "text-to-image", 859_520_964),
        (SD15_INPAINTING, "SD1.5", "inpainting", 859_535_364),
        (SDXL, "SDXL", "text-to-image", 2_567_463_684),
        (replace(SDXL, channels=9), "SDXL", "inpainting", 2_567_478_084),
    ],
)
def test_the_four_published_ones_are_known(
    tmp_path: Path, sizes: Sizes, base: str, task: str, parameters: int
) -> None:
    file(tmp_path, sizes)
    unet = find_unet(tmp_path)
    assert (unet.base, unet.task, unet.parameters, unet.channels) == (base, task, parameters, sizes.channels)
    assert unet.noise == NoiseSettings() and "assumed" in unet.describe()
    assert f"{base} UNet for {task}" in unet.describe()


def test_one_file_is_enough(tmp_path: Path) -> None:
    assert find_unet(file(tmp_path, name="mine.safetensors")).layout == "diffusers names"
    original = unet_to_ldm(shapes(SD15_INPAINTING))
    unet = find_unet(write_sparse(tmp_path / "original.safetensors", original))
    assert unet.layout == "original names" and unet.task == "inpainting"
    whole = {f"model.diffusion_model.{name}": shape for name, shape in original.items()}
    whole |= {
        "first_stage_model.decoder.conv_in.weight": (1,),
        "cond_stage_model.transformer.text_model.x": (1,),
    }
    unet = find_unet(write_sparse(tmp_path / "whole.safetensors", whole))
    assert unet.layout == "inside a whole checkpoint" and unet.parameters == 859_535_364


@pytest.mark.parametrize(
    "index", [f"{STEM}.fp16.safetensors.index.json", f"{STEM}.safetensors.index.fp16.json"]
)
def test_parts_are_one(tmp_path: Path, index: str) -> None:
    split(tmp_path / "unet", shapes(SD15), 3)
    unet = find_unet(tmp_path)
    assert len(unet.files) == 3 and "3 files as one" in unet.describe()
    assert find_unet(unet.files[1]) == unet  # whichever is chosen
    parts = split(tmp_path / "other" / "unet", shapes(SD15), 2, f"{STEM}.fp16")
    (tmp_path / "other" / "unet" / f"{STEM}.fp16.safetensors.index.json").rename(parts[0].parent / index)
    assert find_unet(tmp_path / "other").files == find_unet(parts[0]).files == tuple(parts)


def test_the_variants(tmp_path: Path) -> None:
    for name in ("unet", "unet_ema"):
        for kind, dtype in (("", "F32"), (".fp16", "F16")):
            file(tmp_path, name=f"{name}/{STEM}{kind}.safetensors", dtype=dtype)
    found = {variant: find_unet(tmp_path, variant) for variant in ("auto", "fp16", "full", "not_ema")}
    names = {variant: "/".join(unet.files[0].parts[-2:]) for variant, unet in found.items()}
    half, full = f"unet_ema/{STEM}.fp16.safetensors", f"unet_ema/{STEM}.safetensors"
    assert names == {"auto": half, "fp16": half, "full": full, "not_ema": f"unet/{STEM}.safetensors"}
    assert [unet.ema for unet in found.values()] == [True, True, True, False]
    assert found["full"].dtypes == ("F32",) and "(EMA)" in found["full"].describe()
    assert find_unet(tmp_path / "unet").files == (tmp_path / "unet" / f"{STEM}.fp16.safetensors",)
    file(tmp_path / "other")
    file(tmp_path / "other", name=f"unet/{STEM}.non_ema.safetensors")
    assert find_unet(tmp_path / "other", "not_ema").files[0].name == f"{STEM}.non_ema.safetensors"
    with pytest.raises(FileNotFoundError, match="no UNet weights for variant 'fp16'"):
        find_unet(tmp_path / "other", "fp16")
    with pytest.raises(ValueError, match="variant must be one of"):
        find_unet(tmp_path, "fp8")  # type: ignore[arg-type]


def test_a_changed_file_has_another_fingerprint(tmp_path: Path) -> None:
    path = file(tmp_path)
    before = fingerprint(find_unet(tmp_path))
    assert before == fingerprint(find_unet(tmp_path))
    file(tmp_path, dtype="F32")
    full = fingerprint(find_unet(path))
    assert full != before
    write_json(tmp_path / "scheduler" / "scheduler_config.json", {"prediction_type": "v_prediction"})
    assert fingerprint(find_unet(path)) != full


@pytest.mark.parametrize("length", [640, 19_280])  # as bytes "\x80\x02" and "PK"
def test_a_header_may_be_as_long_as_a_pickle_or_a_zip_begins(tmp_path: Path, length: int) -> None:
    path = write_sparse(tmp_path / "a.safetensors", {"a": (2,)})
    text = path.read_bytes()[8:-4].ljust(length)
    path.write_bytes(length.to_bytes(8, "little") + text + bytes(4))
    assert read_header(path) == {"a": ((2,), "F16")}


def whole(path: Path) -> Path:
    return write_sparse(path, shapes(SD15))


def renamed(sizes: Sizes, old: str, new: str) -> dict[str, tuple[int, ...]]:
    return {name.replace(old, new): shape for name, shape in shapes(sizes).items()}


def cut(path: Path) -> None:
    with whole(path).open("rb+") as out:
        out.truncate(1_000_000_000)


def cut_in_the_header(path: Path) -> None:
    with whole(path).open("rb+") as out:
        out.truncate(5000)


def grown(path: Path) -> None:
    with whole(path).open("ab") as out:
        out.write(b"more")


def without_an_index(path: Path) -> None:
    first, second = split(path.parent, shapes(SD15))
    (path.parent / f"{STEM}.safetensors.index.json").unlink()
    second.unlink()
    first.rename(path)


def pickled(path: Path) -> None:
    torch.save({"a": torch.zeros(2)}, path)


WRONG: dict[str, tuple[Callable[[Path], Any], str]] = {
    "cut off": (cut, r"cut off: half a download \(its header says 1,719,1"),
    "cut off in the header": (cut_in_the_header, "cut off: half a download .its header alone has"),
    "longer than it says": (grown, "longer than its header says"),
    "a Git LFS pointer": (
        lambda path: path.write_bytes(b"version https://git-lfs.github.com/spec/v1\n"),
        "Git LFS pointer",
    ),
    "a login page": (lambda path: path.write_bytes(b"<!DOCTYPE html><html>"), "a web page, often a login"),
    "empty": (lambda path: path.write_bytes(b""), "an empty file; download"),
    "noise": (lambda path: path.write_bytes(bytes(range(100))), "not a weight file"),
    "a header that is no JSON": (
        lambda path: path.write_bytes((9).to_bytes(8, "little") + b"{not json" + b"xx"),
        "unreadable header",
    ),
    "a pickle under another name": (pickled, "pickle under another name"),
    "GGUF": (lambda path: path.write_bytes(b"GGUF\x03\0\0\0\0\0\0\0"), "GGUF"),
    "no weight": (lambda path: write_sparse(path, {}), "without a single weight"),
    "one of two parts": (without_an_index, "incomplete SD1.5 UNet: 343 of 686 weights are missing, first"),
    "one weight less": (
        lambda path: write_sparse(path, {n: s for n, s in shapes(SD15).items() if n != "conv_out.bias"}),
        "1 of 686 weights are missing, first conv_out.bias",
    ),
    "one weight more": (
        lambda path: write_sparse(path, {**shapes(SD15), "time_embedding.cond_proj.weight": (320, 256)}),
        "1 weights have no place in one, first time_embedding.cond_proj.weight",
    ),
    "a wrong shape": (
        lambda path: write_sparse(path, {**shapes(SD15), "mid_block.resnets.0.norm1.bias": (640,)}),
        r"norm1.bias has the shape \(640,\), a SD1.5 UNet has \(1280,\) there",
    ),
    "a number in place of a projection": (
        lambda path: write_sparse(
            path, {**shapes(SD15), "mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight": ()}
        ),
        r"attn2.to_k.weight has the shape \(\), which no UNet has; download it again",
    ),
    "a flat stem": (
        lambda path: write_sparse(path, {**shapes(SD15), "conv_in.weight": (320,)}),
        r"conv_in.weight has the shape \(320,\), which no UNet has",
    ),
    "quantised": (lambda path: write_sparse(path, shapes(SD15), "I8"), r"quantised \(I8\)"),
    "SD2": (lambda path: write_sparse(path, shapes(replace(SD15, context=1024))), "a UNet of SD2"),
    "the refiner": (lambda path: write_sparse(path, shapes(replace(SDXL, context=1280))), "SDXL refiner"),
    "InstructPix2Pix": (
        lambda path: write_sparse(path, shapes(replace(SD15, channels=8))),
        "InstructPix2Pix",
    ),
    "a depth UNet": (
        lambda path: write_sparse(path, shapes(replace(SD15, channels=5))),
        "a UNet with other inputs",
    ),
    "a VAE": (
        lambda path: write_sparse(path, {"encoder.conv_in.weight": (1,), "decoder.conv_in.weight": (1,)}),
        "a VAE; load it with Load VAE",
    ),
    "a LoRA": (
        lambda path: write_sparse(path, {"lora_unet_mid_block_attentions_0_proj_in.lora_up.weight": (1,)}),
        "a LoRA; load it with Load LoRA",
    ),
    "a diffusers LoRA": (
        lambda path: write_sparse(path, {"unet.down_blocks.0.attentions.0.to_q.lora_A.weight": (1,)}),
        "a LoRA",
    ),
    "a ControlNet": (
        lambda path: write_sparse(path, {**shapes(SD15), "controlnet_cond_embedding.conv_in.weight": (1,)}),
        "a ControlNet",
    ),
    "a text encoder": (
        lambda path: write_sparse(path, {"text_model.encoder.layers.0.mlp.fc1.weight": (1,)}),
        "a CLIP text encoder; load it with Load CLIP",
    ),
    "T5": (lambda path: write_sparse(path, {"encoder.block.0.layer.0.weight": (1,)}), "a T5 text encoder"),
    "Flux": (
        lambda path: write_sparse(path, {"double_blocks.0.img_attn.qkv.weight": (1,)}),
        "a diffusion transformer",
    ),
    "DiffRIR": (lambda path: write_sparse(path, {"G.patch_embed.proj.weight": (1,)}), "a DiffRIR"),
    "a motion module": (
        lambda path: write_sparse(path, {"down_blocks.0.motion_modules.0.proj_in.weight": (1,)}),
        "AnimateDiff",
    ),
    "an upscaler": (
        lambda path: write_sparse(path, {"conv_first.weight": (1,)}),
        "an ESRGAN upscaler; load",
    ),
    "something unknown": (
        lambda path: write_sparse(path, {"a.weight": (1,)}),
        "kind that LLMGA does not know .*a.weight",
    ),
    "a stump": (lambda path: write_sparse(path, {"conv_norm_out.weight": (320,)}), "too little of a UNet"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_or_damaged_file_is_named(tmp_path: Path, what: str) -> None:
    write, words = WRONG[what]
    path = tmp_path / "unet" / f"{STEM}.safetensors"
    path.parent.mkdir()
    write(path)
    for place in (path, tmp_path):
        with pytest.raises(ValueError, match=words) as caught:
            find_unet(place)
        assert path.name in str(caught.value)  # it says which file


def test_the_errors_are_different() -> None:
    assert len({words for _, words in WRONG.values()}) >= len(WRONG) - 2


def test_a_wrong_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="does not exist"):
        find_unet(tmp_path / "gone.safetensors")
    with pytest.raises(FileNotFoundError, match="it holds nothing"):
        find_unet(tmp_path)
    write_json(tmp_path / "unet" / "config.json", {"_class_name": "AutoencoderKL"})
    with pytest.raises(ValueError, match="a diffusers AutoencoderKL and no UNet"):
        find_unet(tmp_path)
    (tmp_path / "unet" / "config.json").write_text("{")
    with pytest.raises(ValueError, match="is not valid JSON"):
        find_unet(tmp_path)
    with pytest.raises(ValueError, match="config.json is a JSON text; choose a safetensors or PyTorch file"):
        find_unet(tmp_path / "unet" / "config.json")


def test_parts_that_do_not_fit_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "unet"
    first, second = split(folder, shapes(SD15))
    index = folder / f"{STEM}.safetensors.index.json"
    second.rename(tmp_path / "kept")
    with pytest.raises(FileNotFoundError, match=f"{second.name} is missing, one of the 2 parts"):
        find_unet(tmp_path)
    write_json(index, {"weight_map": {"conv_in.weight": first.name}})
    with pytest.raises(ValueError, match="343 of 686 weights are missing.*part 1 of 2"):
        find_unet(tmp_path)
    write_sparse(second, {"conv_in.weight": (320, 4, 3, 3)})
    write_json(index, {"weight_map": {"a": first.name, "b": second.name}})
    with pytest.raises(ValueError, match="repeats conv_in.weight of another part"):
        find_unet(tmp_path)
    for name in ("../../secret.safetensors", "..\\secret.safetensors", "notes.txt"):
        write_json(index, {"weight_map": {"a": name}})
        with pytest.raises(ValueError, match="which is not a .* file of its folder"):
            find_unet(tmp_path)
    write_json(index, {"weight_map": {}})
    with pytest.raises(ValueError, match="without a 'weight_map'"):
        find_unet(tmp_path)
    index.unlink()
    with pytest.raises(FileNotFoundError, match="but no index"):
        find_unet(tmp_path)


def test_a_pickle_is_read_without_running_it(tmp_path: Path) -> None:
    folder = tmp_path / "unet"
    folder.mkdir()
    path = folder / f"{STEM}.bin"
    with torch.device("meta"):
        pass
    state = {name: torch.zeros(1).expand(shape) for name, shape in shapes(MINI).items()}
    for legacy in (True, False):  # the older format is no zip
        torch.save(state, path, _use_new_zipfile_serialization=not legacy)
        unet = find_unet(tmp_path)
        assert unet.files == (path,) and unet.dtypes == ("F32",) and "64/128" in unet.base
    torch.save({"state_dict": state}, path)
    assert find_unet(tmp_path).parameters == unet.parameters
    torch.save([1, 2], path)
    with pytest.raises(ValueError, match="something else than tensors by name .a list"):
        find_unet(tmp_path)
    torch.save({"run": Path}, path)
    with pytest.raises(ValueError, match="holds more than weights, could run code and was not opened"):
        find_unet(tmp_path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ValueError, match="damaged or incomplete|not opened"):
        find_unet(tmp_path)
