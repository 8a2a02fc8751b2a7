"""``llmga join``: a language model and a CLIP tower become a LLaVA that loads, chats and trains."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("transformers", reason="a joined folder is a transformers model")

from safetensors.torch import load_file, save_file
from support.real_files import write_sentencepiece_tokenizer
from support.tiny_official import KINDS, VISION, tower_weights, write_json, write_official, write_tokenizer
from support.tiny_stage1 import PICTURE, values, write_data
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, CLIPVisionConfig, CLIPVisionModel

from llmga.__main__ import main
from llmga.chat import Conversation, Picture
from llmga.chat.checkpoints import FAMILIES, JoinOptions, join
from llmga.chat.checkpoints.join import random_projector
from llmga.chat.engines.base import Sampling
from llmga.chat.folders import load_local_engine
from llmga.train import build
from llmga.train.stage1 import Stage1Config, run

pytestmark = pytest.mark.usefixtures("one_thread")


def write_language(folder: Path, family: str, text: str = "", name: str = "", **other: Any) -> Path:
    """A causal language model as its makers publish it: no picture, no LLMGA."""
    kind = KINDS[family]
    folder.mkdir(parents=True)
    vocabulary = write_tokenizer(folder, kind) + kind.padding_rows
    ids = {token: i for i, token in enumerate(kind.control)}
    config = CONFIG_MAPPING[text or kind.text](
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        vocab_size=vocabulary,
        bos_token_id=ids.get(kind.bos or ""),
        eos_token_id=ids[kind.eos],
        pad_token_id=0,
        head_dim=16,
        **other,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    if name:
        written = json.loads((folder / "config.json").read_text())
        write_json(folder / "config.json", **{**written, "_name_or_path": name})
    return folder


@pytest.fixture(scope="module")
def tower(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "clip-vit-tiny"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        CLIPVisionModel(CLIPVisionConfig(**VISION)).save_pretrained(folder)
    return folder


def reply(folder: Path) -> str:
    """A greedy answer about a picture; what matters is that there is one."""
    engine = load_local_engine(folder)
    asked = Conversation().say("user", "What is it?", (Picture.from_pil(PICTURE),))
    return engine.generate(asked, Sampling(max_new_tokens=3, temperature=0.0), lambda text: None)


@pytest.mark.parametrize("family", sorted(set(FAMILIES) - {"llava_llama_2"}))
def test_a_joined_family_loads_chats_and_holds_both_models_weights(
    family: str, tower: Path, tmp_path: Path
) -> None:
    language = write_language(tmp_path / "language", family)
    assert join(language, tower, tmp_path / "out").name == family
    reply(tmp_path / "out")
    joined, words, seen = (load_file(f / "model.safetensors") for f in (tmp_path / "out", language, tower))
    for name, value in words.items():
        assert torch.equal(joined[f"language_model.{name}"], value), name
    for name, value in seen.items():
        if not name.endswith("position_ids"):
            full = name if name.startswith("vision_model.") else f"vision_model.{name}"
            assert torch.equal(joined[f"vision_tower.{full}"], value), name
    rest = {name for name in joined if name.startswith("multi_modal_projector.")}
    assert len(joined) == len(words) + sum(not n.endswith("position_ids") for n in seen) + len(rest)
    assert len(rest) == 4


def test_the_projector_begins_as_pytorchs_layers_do_and_by_its_seed() -> None:
    first, again, other = (random_projector(48, 256, seed, torch.float32) for seed in (0, 0, 1))
    for name, value in first.items():
        width = 48 if "linear_1" in name else 256
        # PyTorch's nn.Linear: uniform within 1/sqrt(inputs), weights and biases alike.
        assert value.abs().max() <= width**-0.5
        assert value.abs().max() > 0.9 * width**-0.5
        assert torch.equal(value, again[name]) and not torch.equal(value, other[name])


def test_llama_2_is_told_by_the_folders_name_and_by_family(tower: Path, tmp_path: Path) -> None:
    language = write_language(tmp_path / "Llama-2-7b-chat-hf", "llava_llama_2")
    assert join(language, tower, tmp_path / "named").name == "llava_llama_2"
    assert join(language, tower, tmp_path / "told", JoinOptions("vicuna_v1")).name == "vicuna_v1"


def test_a_language_model_of_no_family_takes_the_transcript_that_is_named(
    tower: Path, tmp_path: Path
) -> None:
    language = write_language(tmp_path / "qwen3", "qwen_2", text="qwen3", tie_word_embeddings=True)
    with pytest.raises(ValueError, match="name the transcript to train it on in family: vicuna_v1"):
        join(language, tower, tmp_path / "out")
    with pytest.raises(ValueError, match="the family vicuna_v1 ends an answer with '</s>'"):
        join(language, tower, tmp_path / "out", JoinOptions("vicuna_v1"))
    join(language, tower, tmp_path / "out", JoinOptions("qwen_2"))
    reply(tmp_path / "out")
    assert "language_model.lm_head.weight" not in load_file(tmp_path / "out/model.safetensors")


def test_a_vocabulary_without_a_free_row_grows_by_rows_that_say_nothing(tower: Path, tmp_path: Path) -> None:
    language = write_language(tmp_path / "full", "qwen_2", text="qwen2")
    config = json.loads((language / "config.json").read_text())
    weights = load_file(language / "model.safetensors")
    rows = config["vocab_size"] - KINDS["qwen_2"].padding_rows
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        weights[name] = weights[name][:rows].clone()
    save_file(weights, language / "model.safetensors", metadata={"format": "pt"})
    write_json(language / "config.json", **{**config, "vocab_size": rows})
    join(language, tower, tmp_path / "out")
    joined = load_file(tmp_path / "out/model.safetensors")
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        table = joined[f"language_model.{name}"]
        assert len(table) == rows + 64 and torch.equal(table[:rows], weights[name])
        assert torch.allclose(table[rows:], weights[name].mean(0).expand(64, -1))
    reply(tmp_path / "out")


def test_the_presets_projector_then_everything_trains_on_what_was_joined(tower: Path, tmp_path: Path) -> None:
    """stage1-projector on a joined base, stage1-released-code on its result: projector alone, then the language model."""
    language = write_language(tmp_path / "vicuna", "vicuna_v1")
    join(language, tower, tmp_path / "base")
    data = write_data(tmp_path / "data")
    loop = {"steps": 2, "save_every": 2}
    first = values(data, tmp_path / "base", loop, train="projector", transcript="vicuna_v1", max_length=400)
    projector = run(build(Stage1Config, first), tmp_path / "one")
    second = values(data, projector, loop, train="full", transcript="vicuna_v1", max_length=400)
    result = run(build(Stage1Config, second), tmp_path / "two")
    before, middle, after = (
        load_file(f / "model.safetensors") for f in (tmp_path / "base", projector, result)
    )
    assert before.keys() == middle.keys() == after.keys()
    moved = {name for name in before if not torch.equal(before[name], middle[name])}
    assert moved and all(name.startswith("multi_modal_projector.") for name in moved)
    assert not torch.equal(middle["language_model.lm_head.weight"], after["language_model.lm_head.weight"])
    reply(result)


def test_a_tokenizer_model_alone_keeps_sentencepieces_double_spaces(tower: Path, tmp_path: Path) -> None:
    """As vicuna-7b-v1.5 is published: no tokenizer.json."""
    pytest.importorskip("sentencepiece", reason="the tokenizer is a SentencePiece model")
    from sentencepiece import SentencePieceProcessor
    from support.real_files import sentencepiece_model
    from transformers import AutoProcessor

    language = write_sentencepiece_tokenizer(tmp_path / "vicuna-7b-v1.5")
    config = CONFIG_MAPPING["llama"](
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        vocab_size=32000,
        max_position_embeddings=512,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(language)
    torch.save(load_file(language / "model.safetensors"), language / "pytorch_model.bin")
    (language / "model.safetensors").unlink()  # vicuna-7b-v1.5 is published as .bin
    join(language, tower, tmp_path / "out")
    tokenizer = AutoProcessor.from_pretrained(tmp_path / "out", local_files_only=True).tokenizer
    official = SentencePieceProcessor(model_file=str(sentencepiece_model()))
    for text in ("end.  Next sentence", "a\n    indented", "1.  one", "  two before"):
        assert tokenizer(text, add_special_tokens=False)["input_ids"] == official.encode(text), text
    assert reply(tmp_path / "out") is not None


def test_what_cannot_be_joined_is_named(tower: Path, tmp_path: Path) -> None:
    language = write_language(tmp_path / "language", "vicuna_v1")
    full = tmp_path / "full"
    full.mkdir()
    (full / "kept").touch()
    with pytest.raises(FileExistsError, match="not empty"):
        join(language, tower, full)
    with pytest.raises(FileNotFoundError, match="there is no vision tower 'nowhere'"):
        join(language, tmp_path / "nowhere", tmp_path / "out")
    with pytest.raises(ValueError, match="not a CLIP vision model"):
        join(language, language, tmp_path / "out")
    with pytest.raises(ValueError, match="'clip_vision_model', which is not a language model"):
        join(tower, tower, tmp_path / "out")
    whole = join(language, tower, tmp_path / "joined") and tmp_path / "joined"
    with pytest.raises(ValueError, match="not a language model|sees pictures already"):
        join(whole, tower, tmp_path / "out")
    official = write_official(tmp_path / "official", "vicuna_v1")
    with pytest.raises(ValueError, match="'llava_llama', which is not a language model"):
        join(official, tower, tmp_path / "out")
    other = write_language(tmp_path / "other", "vicuna_v1")
    weights = load_file(other / "model.safetensors")
    weights["transformer.wte.weight"] = torch.zeros(1)
    save_file(weights, other / "model.safetensors")
    with pytest.raises(ValueError, match="its tensor 'transformer.wte.weight'"):
        join(other, tower, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_tower_as_one_file(tmp_path: Path) -> None:
    save_file(tower_weights(), tmp_path / "tower.safetensors")
    language = write_language(tmp_path / "language", "vicuna_v1")
    join(language, tmp_path / "tower.safetensors", tmp_path / "out")
    reply(tmp_path / "out")


def test_the_command(tower: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    language = write_language(tmp_path / "language", "vicuna_v1")
    assert main(["join", str(language), str(tower), str(tmp_path / "out"), "--seed", "3"]) == 0
    assert "transcript=vicuna_v1" in capsys.readouterr().out
    assert main(["join", str(language), str(tower), str(tmp_path / "out")]) == 2
    assert "llmga join: 'out' is not empty" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stopped:
        main(["join", "--help"])
    assert stopped.value.code == 0 and "stage1-projector" in capsys.readouterr().out
