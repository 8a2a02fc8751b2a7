"""Files of DiffRIR: the official layout and safetensors load strictly, sizes included; anything else is named."""

from __future__ import annotations

import json
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.diffrir_weights import SIZES, fill, filled, inputs, small

from llmga.restore import Architecture, DiffRIRS1, DiffRIRS2, join_inputs, load_restorer
from llmga.restore.checkpoint import infer

pytestmark = pytest.mark.usefixtures("one_thread")

FIXTURE = Path(__file__).parent / "fixtures" / "diffrir_official"


def saved(net: Any, path: Path) -> Path:
    save_file({name: value.contiguous() for name, value in net.state_dict().items()}, path)
    return path


def same(a: Any, b: Any) -> bool:
    mine, theirs = a.state_dict(), b.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)


def official_state(kind: str, scale: int) -> OrderedDict[str, torch.Tensor]:
    """The official class's ``state_dict()``: its names, shapes and dtypes as recorded, with the weights of the recorded
    outputs. Two modules stand in it under two names each, on the same tensors."""
    recorded = load_file(FIXTURE.with_suffix(".safetensors"))
    tensors = json.loads(FIXTURE.with_suffix(".json").read_text(encoding="utf-8"))[f"x{scale}/{kind}"]
    state: Any = OrderedDict()
    for name, (dtype, *shape) in tensors.items():
        twin = name.replace("diffusion.condition.", "condition.").replace("diffusion.model.", "denoise.")
        value = state.get(twin, recorded.get(name.replace("diffusion.", "schedule/")))
        if value is None:
            value = torch.empty(shape, dtype=getattr(torch, dtype))
            fill([(name, value)])
        assert (str(value.dtype), list(value.shape)) == (f"torch.{dtype}", shape), name
        state[name] = value
    state._metadata = OrderedDict({"": {"version": 1}})  # as every module's has
    return state


@torch.no_grad()
@pytest.mark.parametrize("kind", ["s1", "s2"])
@pytest.mark.parametrize("scale", [1, 2, 4])
def test_a_file_of_the_official_classes_loads_strictly(tmp_path: Path, kind: str, scale: Any) -> None:
    """As their trainer saves it; the network that is loaded gives what theirs gave."""
    state = official_state(kind, scale)
    stale = OrderedDict((name, torch.zeros_like(value)) for name, value in state.items())
    torch.save({"params": stale, "params_ema": state}, tmp_path / "net_g.pth")

    loaded = load_restorer(tmp_path / "net_g.pth")
    architecture = Architecture(scale=scale, **SIZES)
    assert (loaded.kind, loaded.entry, loaded.scale, loaded.reference) == (kind, "params_ema", scale, True)
    assert loaded.architecture == architecture
    own = loaded.net.state_dict()
    assert all(torch.equal(own[name], state[name]) for name in own)
    assert not loaded.net.training and not any(p.requires_grad for p in loaded.net.parameters())
    given = inputs(scale)
    joined = join_inputs(given["image"], given["truth"], given["mask"], architecture)
    made = loaded.net(joined, given["truth" if kind == "s1" else "noise"])
    wanted = load_file(FIXTURE.with_suffix(".safetensors"))[f"x{scale}/{kind}"]
    torch.testing.assert_close(made, wanted, atol=1e-5, rtol=1e-5)
    if kind == "s1":
        with pytest.raises(ValueError, match="first stage .S1.; it is given the true picture"):
            _ = loaded.restorer
    else:
        assert loaded.restorer is loaded.net


@pytest.mark.parametrize("kind", [DiffRIRS1, DiffRIRS2])
@pytest.mark.parametrize("reference", [True, False])
@pytest.mark.parametrize("scale", [1, 2, 4])
def test_the_sizes_are_read_off_the_shapes(kind: Any, scale: Any, reference: bool) -> None:
    with torch.device("meta"):
        net = kind(Architecture(scale=scale, reference=reference))
    state = {**net.state_dict(), "diffusion.betas": torch.tensor([0.1, 0.294286, 0.590952, 0.99])}
    if kind is DiffRIRS1:
        del state["diffusion.betas"]
    assert infer(state) == ("s1" if kind is DiffRIRS1 else "s2", net.architecture)


@pytest.mark.parametrize(
    "values",
    [
        {"dim": 12, "num_blocks": (1, 1, 0, 0), "n_feats": 16},
        {"dim": 16, "heads": (2, 2, 4, 4), "ffn_expansion_factor": 2.66},
        {"num_blocks": (0, 2, 1, 3), "num_refinement_blocks": 4, "n_encoder_res": 3},
        {"n_denoise_res": 3, "timesteps": 6, "linear_start": 0.2, "linear_end": 0.9},
        {"num_refinement_blocks": 0, "n_encoder_res": 0},
    ],
)
def test_other_sizes_too(tmp_path: Path, values: dict[str, Any]) -> None:
    net = filled(DiffRIRS2(small(**values)))
    loaded = load_restorer(saved(net, tmp_path / "net.safetensors"))
    assert loaded.architecture == net.architecture and loaded.entry is None
    assert same(loaded.net, net)


@pytest.mark.parametrize("start", [b"\x80", b"PK"])
def test_a_safetensors_header_may_be_as_long_as_a_pickle_or_a_zip_begins(
    tmp_path: Path, start: bytes
) -> None:
    net = filled(DiffRIRS2(small()))
    path = saved(net, tmp_path / "net.safetensors")
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    longer = start + (length // 256 ** len(start) + 1).to_bytes(8 - len(start), "little")
    header = content[8 : 8 + length].ljust(int.from_bytes(longer, "little"))
    path.write_bytes(longer + header + content[8 + length :])
    assert same(load_restorer(path).net, net)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_weights_have_the_dtype_of_the_file_or_the_one_that_is_asked_for(tmp_path: Path, dtype: Any) -> None:
    """The schedule stays in float32: its last entries lie too close to 1."""
    net = filled(DiffRIRS2(small()))
    betas = net.diffusion.betas.clone()
    path = saved(net.to(dtype), tmp_path / "net.safetensors")
    asked = load_restorer(saved(filled(DiffRIRS2(small())), tmp_path / "full.safetensors"), dtype=dtype)
    for loaded in (load_restorer(path), asked):
        assert {p.dtype for p in loaded.net.parameters()} == {dtype}
        assert loaded.restorer.diffusion.betas.dtype == torch.float32
    assert torch.equal(asked.restorer.diffusion.betas, betas)


def test_weighted_layers_are_the_hosts(tmp_path: Path) -> None:
    class Operations:
        class Linear(torch.nn.Linear):
            pass

        class Conv2d(torch.nn.Conv2d):
            pass

    loaded = load_restorer(saved(filled(DiffRIRS2(small())), tmp_path / "net.safetensors"), Operations)
    layers = [m for m in loaded.net.modules() if isinstance(m, (torch.nn.Linear, torch.nn.Conv2d))]
    assert layers and all(isinstance(m, (Operations.Linear, Operations.Conv2d)) for m in layers)


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    return filled(DiffRIRS2(small())).state_dict()


def test_what_is_damaged_is_named(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    path = tmp_path / "net.pth"

    def refused(change: dict[str, Any], message: str, *, without: str = "") -> None:
        torch.save({name: v for name, v in {**state, **change}.items() if name != without}, path)
        with pytest.raises(ValueError, match=rf"net\.pth: .*{message}"):
            load_restorer(path)

    name = "G.latent.0.ffn.dwconv.weight"
    refused(
        {}, rf"incomplete DiffRIR \(S2\): 1 of \d+ tensors are missing, the first is {name}", without=name
    )
    refused({"G.more": torch.zeros(1)}, "1 more tensors, the first is G.more")
    refused({name: state[name][:-1]}, rf"{name} has the shape .* where the other tensors ask for")
    refused({name: state[name] * float("nan")}, f"{name} holds numbers that are not finite")
    refused({name: state[name].int()}, f"'{name}' holds torch.int32, no weights")
    refused({}, "diffusion.betas is missing", without="diffusion.betas")
    refused({"diffusion.model.resmlp.0.weight": torch.zeros(1)}, "should repeat denoise.resmlp.0.weight")
    other = state["G.latent.0.ffn.project_out.weight"][:, :-9]
    refused({"G.latent.0.ffn.project_out.weight": other}, "feed-forward layers contradict each other")


def test_code_in_a_file_is_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "ran",))

    for name, save in (("zip.pth", torch.save), ("bare.pth", lambda x, p: p.write_bytes(pickle.dumps(x)))):
        save({"params_ema": Evil()}, tmp_path / name)
        with pytest.raises(ValueError, match="could run code"):
            load_restorer(tmp_path / name)
    assert not (tmp_path / "ran").exists()


def test_broken_and_foreign_files_are_named(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    whole = tmp_path / "whole"
    torch.save(state, whole)
    pth = whole.read_bytes()
    save_file(state, whole)
    safetensors = whole.read_bytes()
    torch.save(state, whole, _use_new_zipfile_serialization=False)
    legacy = whole.read_bytes()
    for content, message in (
        (b"", "an empty file"),
        (b"<!DOCTYPE html><html>Google Drive - Quota exceeded", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "a Git LFS pointer"),
        (b"GGUF\x03\0\0\0", "a GGUF file"),
        (b"\xff\xd8\xff\xe0 a photograph", "a picture"),
        (pth[: len(pth) // 2], "a damaged or incomplete PyTorch file"),
        (legacy[: len(legacy) // 2], "a damaged or incomplete PyTorch file"),
        (safetensors[: len(safetensors) // 2], "cut off: half a download"),
    ):
        path = tmp_path / "file.pth"
        path.write_bytes(content)
        with pytest.raises(ValueError, match=rf"file\.pth is {message}"):
            load_restorer(path)
    path.write_bytes(legacy)
    assert load_restorer(path).kind == "s2"
    with pytest.raises(FileNotFoundError, match="none.pth is missing"):
        load_restorer(tmp_path / "none.pth")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["encoder.down_blocks.0.resnets.0.norm1.weight", "decoder.conv_in.weight"], "a VAE"),
        (["first_stage_model.encoder.down.0.weight", "first_stage_model.decoder.up.0.weight"], "a VAE"),
        (["down_blocks.0.x", "mid_block.x", "time_embedding.linear_1.weight"], "a UNet of Stable"),
        (["model.diffusion_model.x", "first_stage_model.x"], "a whole checkpoint"),
        (["model.diffusion_model.input_blocks.0.0.weight"], "a UNet of Stable Diffusion"),
        (["lora_unet_down_blocks_0.lora_down.weight"], "a LoRA"),
        (["unet.down_blocks.0.to_q.lora_A.weight", "down_blocks.0.x"], "a LoRA"),
        (["control_model.input_blocks.0.0.weight"], "a ControlNet"),
        (["text_model.encoder.layers.0.mlp.fc1.weight"], "a CLIP text encoder"),
        (["model.layers.0.self_attn.q_proj.weight"], "a language model"),
        (["conv_first.weight", "body.0.rdb1.conv1.weight"], "an ESRGAN upscaler"),
        (["layers.0.residual_group.blocks.0.x"], "a transformer upscaler"),
        (["conv0.weight", "conv0.bias", "conv9.weight"], "the discriminator"),
        (["patch_embed.proj.weight", "encoder_level1.0.attn.temperature"], "a Restormer"),
        (["condition.E.0.weight"], "a part of a DiffRIR"),
        (["a", "b", "c", "d"], r"does not know \(its 4 weights are called a, b, c …\)"),
        ([], "without a single weight"),
    ],
)
def test_other_networks_are_recognised(tmp_path: Path, names: list[str], message: str) -> None:
    torch.save({name: torch.zeros(1) for name in names}, tmp_path / "file.pth")
    with pytest.raises(ValueError, match=message):
        load_restorer(tmp_path / "file.pth")


def test_other_contents_are_recognised(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    inpainting = {**state, "G.patch_embed.proj.weight": torch.zeros(8, 4, 3, 3)}
    deblurring = {**state, "G.latent.0.norm1.body.bias": torch.zeros(64)}
    for content, message in (
        ({"epoch": 1, "iter": 2, "optimizers": []}, "the state of a training"),
        (torch.zeros(3), "something else than tensors by name .a Tensor"),
        (inpainting, "for another task than restoration: its first layer"),
        (deblurring, "for another task than restoration: its norms have a bias"),
    ):
        torch.save(content, tmp_path / "file.pth")
        with pytest.raises(ValueError, match=message):
            load_restorer(tmp_path / "file.pth")


@pytest.mark.parametrize("name", ["condition.E.0.weight", "G.patch_embed.proj.weight", "diffusion.betas"])
@pytest.mark.parametrize("shape", [(), (0,)])
def test_a_tensor_without_sides_is_named(name: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=f"'{name}' has the shape"):
        infer(dict(official_state("s2", 1)) | {name: torch.ones(shape)})


@pytest.mark.parametrize(
    "name", ["condition.E.0.weight", "G.refinement.0.attn.temperature", "diffusion.betas"]
)
@pytest.mark.parametrize("dtype", [torch.complex64, torch.int32, torch.bool], ids=str)
def test_a_tensor_that_holds_no_weights_is_named(name: str, dtype: torch.dtype) -> None:
    state = dict(official_state("s2", 1))
    with pytest.raises(ValueError, match=f"'{name}' holds {dtype}, no weights; download the file again"):
        infer(state | {name: state[name].to(dtype)})


def test_a_flat_projection_is_named() -> None:
    name = "G.refinement.0.ffn.project_out.weight"
    with pytest.raises(ValueError, match=rf"'{name}' has the shape \(8,\)"):
        infer(dict(official_state("s2", 1)) | {name: torch.ones(8)})
