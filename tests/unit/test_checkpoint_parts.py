"""Checkpoints in parts (shards, pickles, a tower beside, a bare projector, a LoRA) are one model."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

pytest.importorskip("transformers", reason="the checkpoints need transformers")

from safetensors.torch import save_file
from support.official_parts import TOWER, Weights, replace_weights, split, weights_of, without_tower
from support.tiny_official import VISION, write_official

from llmga.__main__ import main
from llmga.chat.checkpoints import CheckpointOptions, read_checkpoint
from llmga.chat.checkpoints.vision import SquashedPictures, config_of, find_tower
from llmga.chat.folders import load_local_engine

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def expected(whole: Path) -> Weights:
    return read_checkpoint(whole).weights


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "model"))


def same(ours: Weights, theirs: Weights) -> bool:
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
def test_parts_are_one_model(folder: Path, expected: Weights, suffix: str) -> None:
    split(folder, suffix)
    assert same(read_checkpoint(folder).weights, expected)


@pytest.mark.parametrize("old", [False, True])
def test_one_pickle(folder: Path, expected: Weights, old: bool) -> None:
    weights = weights_of(folder)
    weights["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(8)
    weights[f"{TOWER}vision_model.embeddings.position_ids"] = torch.arange(5)[None]
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin", _use_new_zipfile_serialization=not old)
    assert same(read_checkpoint(folder).weights, expected)


@pytest.mark.parametrize("form", ["folder", "whole clip", "file", "inside"])
def test_a_tower_beside_is_grafted(folder: Path, expected: Weights, tmp_path: Path, form: str) -> None:
    tower = without_tower(folder)
    source = folder / "vision_tower" if form == "inside" else tmp_path / "clip"
    source.mkdir(exist_ok=True)
    config: dict[str, Any] = VISION
    if form == "whole clip":
        tower |= {"text_model.x.weight": torch.ones(2), "visual_projection.weight": torch.ones(4, 64)}
        config = {"model_type": "clip", "vision_config": VISION}
    save_file(tower, source / "model.safetensors")
    if form != "file":
        (source / "config.json").write_text(json.dumps(config))
    given = None if form == "inside" else source / "model.safetensors" if form == "file" else source
    checkpoint = read_checkpoint(folder, options=CheckpointOptions(vision_tower=given))
    assert same(checkpoint.weights, expected)
    assert checkpoint.config.vision_config.num_attention_heads == VISION["num_attention_heads"]
    assert load_local_engine(folder, options=CheckpointOptions(vision_tower=given)).supports_pictures


def test_shapes_tell_the_config_of_the_released_tower() -> None:
    prefix = "vision_tower.vision_model."
    shapes = {
        "embeddings.patch_embedding.weight": (1024, 3, 14, 14),
        "embeddings.position_embedding.weight": (577, 1024),
        "encoder.layers.0.mlp.fc1.weight": (4096, 1024),
    } | {f"encoder.layers.{i}.layer_norm1.weight": (1024,) for i in range(24)}
    found = config_of({prefix + name: torch.empty(shape, device="meta") for name, shape in shapes.items()})
    assert (found["image_size"], found["patch_size"], found["num_hidden_layers"]) == (336, 14, 24)
    assert (found["num_attention_heads"], found["intermediate_size"]) == (16, 4096)


def base_model(folder: Path, out: Path) -> Weights:
    """Leave the language model in ``out``, as its own authors publish it; returns what was LLMGA's."""
    weights = weights_of(folder)
    parts = {name: value for name, value in weights.items() if name.startswith((TOWER, "model.mm_"))}
    out.mkdir()
    for path in folder.glob("tokenizer*"):
        shutil.move(path, out / path.name)
    replace_weights(out, {name: value for name, value in weights.items() if name not in parts})
    config = json.loads((folder / "config.json").read_text())
    config = {key: value for key, value in config.items() if not key.startswith(("mm_", "_"))}
    (out / "config.json").write_text(json.dumps({**config, "model_type": "llama"}))
    (folder / "model.safetensors").unlink()
    return parts


@pytest.mark.parametrize("config", [True, False], ids=["with config", "projector alone"])
def test_a_bare_projector(folder: Path, expected: Weights, tmp_path: Path, config: bool) -> None:
    parts = base_model(folder, tmp_path / "base")
    torch.save({name: v for name, v in parts.items() if "mm_projector" in name}, folder / "mm_projector.bin")
    tower = tmp_path / "clip"
    tower.mkdir()
    save_file(
        {name.removeprefix(TOWER): v for name, v in parts.items() if TOWER in name},
        tower / "model.safetensors",
    )
    (tower / "config.json").write_text(json.dumps(VISION))
    if not config:
        (folder / "config.json").unlink()
    checkpoint = read_checkpoint(
        folder, options=CheckpointOptions(base=tmp_path / "base", vision_tower=tower)
    )
    assert same(checkpoint.weights, expected) and checkpoint.family.name == "vicuna_v1"
    with pytest.raises(ValueError, match=r"'model' holds no language model; name .* in 'base'"):
        read_checkpoint(folder, options=CheckpointOptions(vision_tower=tower))


def test_a_lora_is_added_as_peft_adds_it(folder: Path, expected: Weights, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft", reason="the reference is PEFT's own merge")
    from transformers import AutoModelForCausalLM

    parts = base_model(folder, tmp_path / "base")
    net = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32)
    settings = peft.LoraConfig(
        r=4, lora_alpha=10, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM"
    )
    adapted = peft.get_peft_model(net, settings)
    generator = torch.Generator().manual_seed(0)
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator)
    adapted.save_pretrained(folder)
    rest = {f"base_model.model.{name}": value for name, value in parts.items()}
    torch.save(rest, folder / "non_lora_trainables.bin")
    ours = read_checkpoint(folder, options=CheckpointOptions(base=tmp_path / "base")).weights
    merged = adapted.merge_and_unload().state_dict()
    changed = [name for name in expected if not torch.equal(ours[name], expected[name])]
    assert len(changed) == 4 and all(name.endswith(("q_proj.weight", "down_proj.weight")) for name in changed)
    for name in changed:
        theirs = merged[name.removeprefix("language_model.")]
        torch.testing.assert_close(ours[name], theirs, rtol=1e-5, atol=1e-5)
    (folder / "non_lora_trainables.bin").unlink()
    with pytest.raises(FileNotFoundError, match=r"'model' is a LoRA without non_lora_trainables.bin"):
        read_checkpoint(folder, options=CheckpointOptions(base=tmp_path / "base"))


def test_a_base_is_for_parts_alone(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"'model' is a whole model; leave 'base' empty"):
        read_checkpoint(folder, options=CheckpointOptions(base=folder))


def test_pixels_are_those_of_transformers_after_the_squash() -> None:
    from transformers import CLIPImageProcessor

    picture = Image.radial_gradient("L").resize((90, 61)).convert("RGB")
    square = picture.resize((90, 90), Image.Resampling.LANCZOS)
    size = {"size": {"shortest_edge": 28}, "crop_size": {"height": 28, "width": 28}}
    theirs = torch.as_tensor(CLIPImageProcessor(**size)(square, return_tensors="pt")["pixel_values"])[0]
    # Two grey levels of 255: some versions of transformers resize with torch and not with PIL.
    torch.testing.assert_close(SquashedPictures(28)(picture), theirs, rtol=0, atol=2 / 255 / 0.26)


def test_the_command(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["convert", str(folder), str(tmp_path / "out")]
    done = subprocess.run([sys.executable, "-m", "llmga", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert load_local_engine(tmp_path / "out").knows_tags
    assert main(arguments) == 2
    assert capsys.readouterr().err.endswith("'out' is not empty; choose another folder to write to\n")


def test_a_fitting_tower_is_found_among_files(tmp_path: Path) -> None:
    def write(name: str, side: int, prefix: str = "") -> Path:
        path = tmp_path / name
        shapes = {"patch_embedding": (1024, 3, 14, 14), "position_embedding": ((side // 14) ** 2 + 1, 1024)}
        tensors = {
            f"{prefix}vision_model.embeddings.{key}.weight": torch.zeros(shape, dtype=torch.uint8)
            for key, shape in shapes.items()
        }
        save_file(tensors, path)
        return path

    (tmp_path / "page.safetensors").write_text("<html>")
    others = [tmp_path / "page.safetensors", write("small", 224), write("other", 336, "x.")]
    assert find_tower(others) is None
    assert find_tower([*others, right := write("right", 336)]) == right


def test_a_tower_is_looked_for_only_where_there_is_none(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Path] = []
    monkeypatch.setattr("llmga.chat.checkpoints.official.find_tower", asked.extend)
    read_checkpoint(folder, options=CheckpointOptions(towers=(folder,)))
    assert asked == []
    without_tower(folder)
    with pytest.raises(ValueError, match="holds no vision tower"):
        read_checkpoint(folder, options=CheckpointOptions(towers=(folder,)))
    assert asked == [folder]


@pytest.mark.parametrize("kind", ["su", "longrope"])
def test_phi_3_with_the_rope_type_of_then(tmp_path: Path, kind: str) -> None:
    folder = write_official(tmp_path / "phi", "phi_3")
    config = json.loads((folder / "config.json").read_text())
    # As transformers 4.41 wrote it: `write_official` has the keys that today's Phi3Config adds.
    config["rope_scaling"] = {"type": kind, "short_factor": [1.0] * 8, "long_factor": [2.0] * 8}
    (folder / "config.json").write_text(json.dumps(config))
    assert read_checkpoint(folder).config.text_config.rope_parameters["rope_type"] == "longrope"


@pytest.mark.parametrize("value", [{"a": 1}, ["x", 1], -1, True])
def test_a_strange_end_token_is_named(tmp_path: Path, value: object) -> None:
    folder = write_official(tmp_path / "model", "vicuna_v1")
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": value}))
    with pytest.raises(ValueError, match="eos_token_id must be a token id or a list of them"):
        read_checkpoint(folder)


@pytest.mark.parametrize("key", ["num_attention_heads", "hidden_size", "num_hidden_layers"])
def test_counts_of_an_official_config_are_bounded(tmp_path: Path, key: str) -> None:
    folder = write_official(tmp_path / "model", "vicuna_v1")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {key: 0}))
    with pytest.raises(ValueError, match=f"{key} must be a whole number"):
        read_checkpoint(folder)
