"""Every family of LLMGA's checkpoints: loaded as published and converted, against the official forward pass."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

pytest.importorskip("transformers", reason="the checkpoints need transformers")

from safetensors.torch import load_file
from support.small_disk import small_disk
from support.tiny_official import KINDS, official_logits, write_official

from llmga.__main__ import main
from llmga.chat import Conversation, Picture, Sampling
from llmga.chat.checkpoints import convert, official, read_checkpoint
from llmga.chat.engines.local import LocalEngine
from llmga.chat.folders import load_local_engine
from llmga.files import writing

pytestmark = pytest.mark.usefixtures("one_thread")

FOX = Picture.from_pil(Image.radial_gradient("L").resize((60, 40)))
SEA = Picture.from_pil(Image.linear_gradient("L").rotate(90).resize((30, 70)))
CHATS = {
    "no picture": Conversation().say("user", "a red fox, é 狐"),
    "a picture": Conversation().say("user", "a red fox", (FOX,)),
    "two turns": Conversation()
    .say("user", "Like these", (FOX, SEA))
    .say("assistant", "<gen_image> a fox </gen_image>")
    .say("user", "in the snow"),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("official")
    # Folder names that say another family than the config does.
    names = dict(
        zip(KINDS, ["qwen2", "vicuna-v1", "llama3", "gemma", "llama-2", "mistral", "phi-3"], strict=True)
    )
    return {name: write_official(root / folder, name, seed=1) for name, folder in names.items()}


@pytest.fixture(scope="module")
def engines(folders: dict[str, Path]) -> dict[str, LocalEngine]:
    return {name: load_local_engine(folder) for name, folder in folders.items()}


def logits(engine: LocalEngine, chat: Conversation) -> torch.Tensor:
    inputs = engine._encode(chat)
    with torch.no_grad():
        return engine.net(**inputs).logits


def reference(name: str, folder: Path, engine: LocalEngine, chat: Conversation) -> torch.Tensor:
    """The official tokens and the official forward pass of the same transcript."""
    processor = engine._processor
    text = engine._render(engine._messages(chat), add_generation_prompt=True)
    pieces = [processor.tokenizer(piece)["input_ids"] for piece in text.split("<image>")]
    bos = processor.tokenizer.bos_token_id
    pieces[1:] = [piece[1:] if piece[0] == bos else piece for piece in pieces[1:]]
    pictures = [processor.image_processor(picture.to_pil()) for picture in chat.pictures]
    pixels = torch.stack(pictures) if pictures else torch.empty(0, 3, 28, 28)
    config = json.loads((folder / "config.json").read_text())
    return official_logits(name, load_file(folder / "model.safetensors"), config, pieces, pixels)


@pytest.mark.parametrize("chat", CHATS)
@pytest.mark.parametrize("name", KINDS)
def test_logits_are_those_of_the_official_forward_pass(engines, folders, name: str, chat: str) -> None:
    ours = logits(engines[name], CHATS[chat])
    theirs = reference(name, folders[name], engines[name], CHATS[chat])
    assert ours.shape == theirs.shape
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-4)
    assert theirs.std() > 0.1


@pytest.mark.parametrize("name", KINDS)
def test_a_converted_folder_says_the_same(engines, folders, name: str, tmp_path: Path) -> None:
    """transformers' own classes, from the folder alone: nothing missing, the training's tokens, the same logits."""
    import transformers

    out = convert(folders[name], tmp_path / "out", part=40_000)
    net, info = transformers.AutoModelForImageTextToText.from_pretrained(
        out, output_loading_info=True, dtype=torch.float32
    )
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert type(net) is transformers.LlavaForConditionalGeneration
    assert len(list(out.glob("model-*-of-*.safetensors"))) > 2
    processor = transformers.AutoProcessor.from_pretrained(out, local_files_only=True)
    for chat in CHATS.values():
        messages: list[dict[str, Any]] = [
            {
                "role": turn.role,
                "content": [{"type": "image", "image": picture.to_pil()} for picture in turn.pictures]
                + [{"type": "text", "text": turn.text}],
            }
            for turn in chat.turns
        ]
        inputs = processor.apply_chat_template(
            messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
        )
        official = engines[name]._encode(chat)
        assert inputs["input_ids"].tolist() == official["input_ids"].tolist()
        assert (
            inputs.get("pixel_values", torch.empty(0)).shape
            == official.get("pixel_values", torch.empty(0)).shape
        )
        with torch.no_grad():
            theirs = net(**{**inputs, **official}).logits  # the training's pixels
        torch.testing.assert_close(theirs, logits(engines[name], chat), rtol=1e-5, atol=1e-5)
    again = load_local_engine(out)
    assert again.knows_tags and engines[name].knows_tags
    assert again.generate(
        CHATS["no picture"], Sampling(temperature=0, max_new_tokens=6), lambda _: None
    ) == engines[name].generate(
        CHATS["no picture"], Sampling(temperature=0, max_new_tokens=6), lambda _: None
    )


@pytest.mark.parametrize("name", KINDS)
def test_the_family_is_read_from_the_config(folders, name: str) -> None:
    assert read_checkpoint(folders[name]).family.name == name


def retell(folder: Path, **settings: Any) -> None:
    """A tokenizer config as the Llama models have it; the file's own class would hide what it says."""
    path = folder / "tokenizer_config.json"
    path.write_text(
        json.dumps(json.loads(path.read_text()) | {"tokenizer_class": "LlamaTokenizer"} | settings)
    )


def write_sentencepiece(folder: Path) -> None:
    """In place of ``tokenizer.json`` a ``tokenizer.model`` of as many pieces, as Vicuna's files have it."""
    sentencepiece: Any = pytest.importorskip("sentencepiece", reason="a tokenizer.model needs sentencepiece")
    pytest.importorskip("google.protobuf", reason="transformers reads a tokenizer.model with protobuf")
    words = "a red fox in the snow USER ASSISTANT: <gen_image> a cat </gen_image> Like this? Bigger"
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([words] * 20),
        model_writer=model,
        model_type="bpe",
        vocab_size=json.loads((folder / "config.json").read_text())["vocab_size"],
        byte_fallback=True,
        hard_vocab_limit=False,
        num_threads=1,
        minloglevel=2,
    )
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.model").write_bytes(model.getvalue())


def test_nothing_is_left_of_a_conversion_that_was_stopped(
    folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C behind the second weight file, when the configuration and the tokenizer are there already."""
    put = writing.put_in_place
    written: list[str] = []

    def stopping(finished: Path, path: Path) -> None:
        put(finished, path)
        written.append(path.name)
        if sum(name.endswith(".safetensors") for name in written) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(writing, "put_in_place", stopping)
    out = tmp_path / "models" / "out"
    with pytest.raises(KeyboardInterrupt):
        convert(folders["vicuna_v1"], out, part=40_000)
    assert "chat_template.json" in written and not list(out.parent.iterdir())
    monkeypatch.undo()
    assert main(["convert", str(folders["vicuna_v1"]), str(out)]) == 0
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_a_conversion_on_a_full_disk_says_so_and_leaves_nothing(
    folders, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with small_disk(tmp_path / "disk", 200_000) as disk:
        assert main(["convert", str(folders["vicuna_v1"]), str(disk / "out")]) == 2
        assert "the disk is full: make room there" in capsys.readouterr().err
        assert not list(disk.iterdir())


@pytest.mark.parametrize("legacy", [True, False])
@pytest.mark.parametrize("slow", [False, True])
def test_a_llama_tokenizer_is_converted_as_it_reads(
    folders, tmp_path: Path, slow: bool, legacy: bool
) -> None:
    import transformers

    folder = Path(shutil.copytree(folders["vicuna_v1"], tmp_path / "official"))
    retell(folder, legacy=legacy)
    if slow:
        write_sentencepiece(folder)
    out = convert(folder, tmp_path / "out")  # compares the tokens of a transcript, and refuses others
    before = read_checkpoint(folder).tokenizer
    after: Any = transformers.AutoTokenizer.from_pretrained(out, local_files_only=True)
    for text in ("a red</s>fox </s> in", "  two before", "", "   ", " </s>  a"):
        assert after(text)["input_ids"] == before(text)["input_ids"]
    written = json.loads((out / "tokenizer_config.json").read_text())
    assert written["tokenizer_class"] == "PreTrainedTokenizerFast" if slow else written["legacy"] is legacy


@pytest.mark.parametrize("missing", ["sentencepiece", "protobuf"])
def test_a_tokenizer_model_says_what_it_needs(
    folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    folder = Path(shutil.copytree(folders["vicuna_v1"], tmp_path / "official"))
    (folder / "tokenizer.json").rename(folder / "tokenizer.model")
    modules = {"sentencepiece": "sentencepiece", "protobuf": "google.protobuf"}
    monkeypatch.setattr(official, "_is_installed", lambda module: module != modules[missing])
    with pytest.raises(ValueError, match=f"needs {missing}; run `pip install {missing}`"):
        read_checkpoint(folder)
