"""Published folders with quantised weights: made as their tools make them, and held to the numbers they stand for."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("transformers", reason="folders are loaded through transformers")

from safetensors.torch import load_file, save_file
from support.chat_folders import edit_json

from llmga.chat import quantised_folders
from llmga.chat.checkpoints import CheckpointOptions
from llmga.chat.conversation import Conversation
from llmga.chat.engines.base import Sampling
from llmga.chat.engines.local import LocalEngine
from llmga.chat.engines.weight_only import WeightOnlyLinear
from llmga.chat.folders import load_local_engine
from llmga.chat.quantised_folders import QUANT_METHODS
from miniworld.models.random_language import write_tiny_text

pytestmark = pytest.mark.usefixtures("one_thread")

ASK = Conversation().say("user", "a red fox under an old tree")
BLOCK = 32
Weights = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_text(tmp_path_factory.mktemp("models") / "plain", seed=1)


def rewrite(plain: Path, to: Path, split: Callable[[torch.Tensor], tuple[Weights, torch.Tensor]]) -> Weights:
    """Quantise the linear layers of the decoder, and return what they stand for.

    Args:
        split: a weight as what is stored, by the endings of its names, and the numbers that those stand for.
    """
    shutil.copytree(plain, to)
    stored, meant = {}, {}
    for name, weight in load_file(plain / "model.safetensors").items():
        if not name.endswith("_proj.weight"):
            stored[name] = weight
            continue
        parts, meant[name] = split(weight.float())
        stored |= {name + ending: part for ending, part in parts.items()}
    save_file(stored, to / "model.safetensors", metadata={"format": "pt"})
    return meant


def in_fp8(weight: torch.Tensor) -> tuple[Weights, torch.Tensor]:
    """DeepSeek's layout, which Qwen publishes in: e4m3 with a scale for each block."""
    blocks = weight.unflatten(1, (-1, BLOCK)).unflatten(0, (-1, BLOCK))
    scale = blocks.abs().amax((1, 3), keepdim=True).clamp_min(1e-6) / 448
    q = (blocks / scale).to(torch.float8_e4m3fn)
    meant = (q.float() * scale).reshape(weight.shape)
    return {"": q.reshape(weight.shape), "_scale_inv": scale[:, 0, :, 0].contiguous()}, meant


def in_int8(weight: torch.Tensor) -> tuple[Weights, torch.Tensor]:
    """compressed-tensors' "int-quantized", a scale for each row."""
    scale = weight.abs().amax(1, keepdim=True).clamp_min(1e-6) / 127
    q = (weight / scale).round()
    return {"": q.to(torch.int8), "_scale": scale}, q * scale


def states(engine: LocalEngine) -> torch.Tensor:
    return engine.hidden(ASK)


def with_weights(plain: Path, meant: Weights) -> LocalEngine:
    engine = load_local_engine(plain, torch.float32)
    for name, weight in meant.items():
        engine.net.get_parameter(name).data = weight
    return engine


def check_unpacked(folder: Path, expected: LocalEngine, method: str) -> None:
    engine = load_local_engine(folder, torch.float32)
    assert f"published as {method}; its weights were unpacked while loading" in engine.notes
    assert torch.allclose(states(engine), states(expected), atol=1e-3, rtol=1e-3)
    assert all(p.is_floating_point() for p in engine.net.parameters())
    packed = load_local_engine(folder, torch.float32, CheckpointOptions(weight_bits=8))
    assert sum(isinstance(m, WeightOnlyLinear) for m in packed.net.modules()) == 14
    assert not torch.equal(states(packed), states(engine))


def test_fp8_is_unpacked_without_a_card(plain: Path, tmp_path: Path) -> None:
    pytest.importorskip("accelerate", reason="transformers reads FP8 with it")
    meant = rewrite(plain, tmp_path / "fp8", in_fp8)
    config = {
        "quant_method": "fp8",
        "activation_scheme": "dynamic",
        "weight_block_size": [BLOCK, BLOCK],
    }
    edit_json(tmp_path / "fp8" / "config.json", quantization_config=config)
    check_unpacked(tmp_path / "fp8", with_weights(plain, meant), "fp8")


def test_compressed_tensors_are_unpacked(plain: Path, tmp_path: Path) -> None:
    pytest.importorskip("compressed_tensors", reason="the package that reads them")
    meant = rewrite(plain, tmp_path / "packed", in_int8)
    rows = {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "channel", "dynamic": False}
    config = {
        "quant_method": "compressed-tensors",
        "format": "int-quantized",
        "quantization_status": "compressed",
        "ignore": ["lm_head"],
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": rows}},
    }
    edit_json(tmp_path / "packed" / "config.json", quantization_config=config)
    check_unpacked(tmp_path / "packed", with_weights(plain, meant), "compressed-tensors")


@pytest.mark.parametrize(
    "settings", [{"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}, {"load_in_8bit": True}]
)
def test_bitsandbytes_stays_as_published(plain: Path, tmp_path: Path, settings: dict[str, Any]) -> None:
    pytest.importorskip("bitsandbytes", reason="the package that reads them")
    import transformers

    auto: Any = transformers.AutoModelForCausalLM
    published = auto.from_pretrained(
        plain, quantization_config=transformers.BitsAndBytesConfig(**settings), dtype=torch.float32
    )
    folder = Path(shutil.copytree(plain, tmp_path / "bnb"))
    (folder / "model.safetensors").unlink()
    published.save_pretrained(folder)
    engine = load_local_engine(folder, torch.float32)
    assert "quantised by bitsandbytes, as published; it is loaded whole" in engine.notes
    ids = torch.tensor([engine.token_ids(ASK)])
    with torch.no_grad():
        expected = published(ids, output_hidden_states=True).hidden_states[-1][0].float()
    assert torch.allclose(states(engine), expected, atol=1e-4, rtol=1e-4)
    assert engine.generate(ASK, Sampling(temperature=0, max_new_tokens=3), lambda _: None).answer
    with pytest.raises(ValueError, match="so int4 cannot be made of them; set 'precision' to auto"):
        load_local_engine(folder, torch.float32, CheckpointOptions(weight_bits=4))


@pytest.mark.parametrize("method", QUANT_METHODS)
def test_a_missing_package_is_named(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    monkeypatch.setattr(quantised_folders, "find_spec", lambda name: None)
    folder = Path(shutil.copytree(plain, tmp_path / "model"))
    edit_json(folder / "config.json", quantization_config={"quant_method": method})
    names = QUANT_METHODS[method].packages
    with pytest.raises(ValueError, match=f"needs {' and '.join(names)}; run `pip install {' '.join(names)}`"):
        load_local_engine(folder)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"quant_method": "aqlm"},
            "quantised by 'aqlm', and only fp8, .* are read; take the unquantised model",
        ),
        ({"quant_method": ["fp8"]}, "and only fp8, .* are read"),
        ({}, "quantised by 'None'"),
        ("fp8", "quantization_config must be a JSON object, got str"),
    ],
)
def test_what_is_not_read_is_refused(plain: Path, tmp_path: Path, config: Any, message: str) -> None:
    folder = Path(shutil.copytree(plain, tmp_path / "model"))
    edit_json(folder / "config.json", quantization_config=config)
    with pytest.raises(ValueError, match=message):
        load_local_engine(folder)


def test_whole_numbers_still_need_a_method(plain: Path, tmp_path: Path) -> None:
    rewrite(plain, tmp_path / "bare", in_int8)
    with pytest.raises(ValueError, match="is of type I8, but weights are floating point"):
        load_local_engine(tmp_path / "bare")


def test_gguf_is_for_a_server(plain: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(plain, tmp_path / "model"))
    (folder / "model.safetensors").rename(folder / "model-Q4_K_M.gguf")
    with pytest.raises(ValueError, match="as GGUF, .*llama-server.* connect LLMGA Endpoint"):
        load_local_engine(folder)


def test_a_network_far_larger_than_packed_weights_is_refused(plain: Path, tmp_path: Path) -> None:
    pytest.importorskip("accelerate", reason="transformers reads FP8 with it")
    rewrite(plain, tmp_path / "fp8", in_fp8)
    config = json.loads((tmp_path / "fp8" / "config.json").read_text())
    config |= {"quantization_config": {"quant_method": "fp8"}, "vocab_size": 1 << 20}
    (tmp_path / "fp8" / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="describes a network of"):
        load_local_engine(tmp_path / "fp8")
