"""LLMGA Model Loader on checkpoints of the official classes, and LLMGA Edit Instruction's thinking, inside ComfyUI."""

from __future__ import annotations

import importlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from support import comfy_inprocess
from support.official_folders import write_folder

pytestmark = pytest.mark.skipif(
    comfy_inprocess.skip_reason() is not None, reason=str(comfy_inprocess.skip_reason())
)
SOURCE = "a large red star in the centre, on snow, under warm light"


@pytest.fixture
def put() -> Iterator[Callable[[str, str, str], None]]:
    """Writes an official checkpoint into ``models/LLM``: family, the folder's name, the base model that it notes."""
    pytest.importorskip("sentencepiece", reason="the tokenizer is a SentencePiece model")
    comfy_inprocess.start()
    comfy_inprocess.pack("nodes.host").register_folders()
    paths: Any = importlib.import_module("folder_paths")
    root = Path(paths.models_dir) / "LLM"
    written: list[Path] = []

    def put_folder(family: str, name: str, origin: str) -> None:
        folder = write_folder(root / name, family)
        written.append(folder)
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "_name_or_path": origin}))

    yield put_folder
    for folder in written:
        shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("name", "origin", "family", "said"),
    [
        ("llmga-llama-2-7b-chat-full-finetune", "", "auto", "family llava_llama_2 (the folder's name)"),
        ("llmga-a", "meta-llama/Llama-2-7b-chat-hf", "auto", "llava_llama_2 (the base model's name)"),
        ("llmga-b", "./checkpoints/Inference/base", "auto", "family vicuna_v1 (a guess"),
        ("llmga-c", "./checkpoints/Inference/base", "llava_llama_2", "llava_llama_2 (it was asked for)"),
    ],
)
def test_the_readout_says_the_family_and_how_it_is_known(
    put: Any, name: str, origin: str, family: str, said: str
) -> None:
    put("llava_llama_2", name, origin)
    output = comfy_inprocess.pack("nodes.loaders").ModelLoader.execute(name, "float32", family=family)
    (readout,) = output.ui["text"]
    assert said in readout
    assert "generation_config.json: top_k 50 applied" in readout


def test_a_model_whose_files_were_replaced_is_loaded_anew(put: Any) -> None:
    loader = comfy_inprocess.pack("nodes.loaders").ModelLoader
    put("qwen_2", "llmga-replaced", "Qwen/Qwen2-7B-Instruct")
    before, engine = loader.fingerprint_inputs("llmga-replaced"), loader.execute("llmga-replaced").args[0]
    assert loader.fingerprint_inputs("llmga-replaced", precision="auto") == before
    assert loader.execute("llmga-replaced").args[0] is engine
    config = comfy_inprocess.pack("nodes.host").language_models()["llmga-replaced"] / "config.json"
    config.write_text(config.read_text() + "\n")
    assert loader.fingerprint_inputs("llmga-replaced") != before
    assert loader.execute("llmga-replaced").args[0] is not engine
    for absent in ("nowhere", None, ["3", 0]):
        assert isinstance(loader.fingerprint_inputs(absent), str)


def test_the_readout_says_which_settings_act(put: Any) -> None:
    put("qwen_2", "llmga-qwen2", "Qwen/Qwen2-7B-Instruct")
    output = comfy_inprocess.pack("nodes.loaders").ModelLoader.execute("llmga-qwen2", "float32")
    (readout,) = output.ui["text"]
    assert "generation_config.json: top_k 20, repetition_penalty 1.05 applied" in readout
    assert "temperature 0.7, top_p 0.8 suggested" in readout


class Scripted:
    """Says what it was given, in order, and remembers how it was asked."""

    name = "scripted"
    supports_pictures = True

    def __init__(self, *replies: str) -> None:
        self.replies = list(replies)
        self.samplings: list[Any] = []

    def generate(self, conversation: Any, sampling: Any, on_text: Any) -> Any:
        self.samplings.append(sampling)
        return comfy_inprocess.pack("llmga.chat").Said.of(self.replies.pop(0))


def test_edit_instruction_thinks_apart() -> None:
    comfy_inprocess.start()
    node = comfy_inprocess.pack("nodes.edit_instruction").EditInstruction
    target = SOURCE.replace("red", "blue")
    engine = Scripted(
        f"<think>A star. <gen_image> a draft </gen_image></think><gen_image> {SOURCE} </gen_image>",
        f"<think>Blue.</think><gen_image> {target} </gen_image>",
    )
    output = node.execute(
        engine,
        "make it blue",
        0,
        0.2,
        64,
        "ask_again",
        image=torch.rand(1, 8, 8, 3),
        thinking=True,
        thought_tokens=100,
    )
    assert output[0] == SOURCE and output[1] == target
    assert output[4] == "A star. <gen_image> a draft </gen_image>\n\nBlue."
    assert all(each.thinking and each.thought_tokens == 100 for each in engine.samplings)
    with pytest.raises(ValueError, match="'?thought_tokens'? must be"):
        node.execute(engine, "x", 0, 0.2, 64, "ask_again", source_prompt=SOURCE, thought_tokens=-1)
