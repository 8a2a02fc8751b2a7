"""A ``tokenizer.model`` alone gives the tokens of the slow tokenizer that LLMGA was trained with, whatever the spaces."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers", reason="the tokenizers are transformers'")
pytest.importorskip("sentencepiece", reason="transformers reads a tokenizer.model with it")

import sentencepiece
import transformers
from support.real_files import sentencepiece_model

from llmga.chat.checkpoints.convert import _keep_rules
from llmga.chat.checkpoints.slow_tokenizer import read_language_tokenizer

FIXTURES = Path(__file__).parent / "fixtures"
RECORD: dict[str, Any] = json.loads((FIXTURES / "slow_tokens_official.json").read_text(encoding="utf-8"))
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
LEGACY = {"True": {"legacy": True}, "False": {"legacy": False}, "None": {}}


def write_folder(folder: Path, model: bytes, **settings: Any) -> Path:
    folder.mkdir()
    (folder / "tokenizer.model").write_bytes(model)
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def recorded_folder(folder: Path, name: str) -> Path:
    which, legacy = name.split()
    model = FIXTURES / "sentencepiece_cut.model" if which == "cut" else sentencepiece_model()
    return write_folder(
        folder, model.read_bytes(), tokenizer_class="LlamaTokenizer", **SPECIAL, **LEGACY[legacy]
    )


def ids(tokenizer: Any, texts: Any, **settings: Any) -> list[list[int]]:
    return [tokenizer(text, **settings)["input_ids"] for text in texts]


@pytest.mark.parametrize("kind", ["llama", "mistral", "phi3"])
@pytest.mark.parametrize("name", RECORD["ids"])
def test_tokens_are_those_of_the_slow_tokenizer(tmp_path: Path, name: str, kind: str) -> None:
    tokenizer = read_language_tokenizer(recorded_folder(tmp_path / "folder", name), kind)
    for text, found, wanted in zip(
        RECORD["texts"], ids(tokenizer, RECORD["texts"]), RECORD["ids"][name], strict=True
    ):
        assert tokenizer.convert_ids_to_tokens(found) == tokenizer.convert_ids_to_tokens(wanted), repr(text)


@pytest.mark.parametrize("kind", ["llama", "mistral"])
@pytest.mark.parametrize("legacy", LEGACY)
def test_a_saved_tokenizer_reads_alike(tmp_path: Path, legacy: str, kind: str) -> None:
    tokenizer = read_language_tokenizer(recorded_folder(tmp_path / "folder", f"cut {legacy}"), kind)
    tokenizer.save_pretrained(tmp_path / "saved")
    _keep_rules(tokenizer, tmp_path / "saved/tokenizer_config.json")
    saved = transformers.AutoTokenizer.from_pretrained(tmp_path / "saved", local_files_only=True)
    assert ids(saved, RECORD["texts"]) == RECORD["ids"][f"cut {legacy}"]
    written = json.loads((tmp_path / "saved/tokenizer_config.json").read_text())
    assert written["tokenizer_class"] == "PreTrainedTokenizerFast"  # a name that transformers 4 knows too


def test_plain_texts_are_sentencepieces_own(tmp_path: Path) -> None:
    folder = recorded_folder(tmp_path / "folder", "cut True")
    processor = sentencepiece.SentencePieceProcessor(str(folder / "tokenizer.model"))
    texts = [text for text in RECORD["texts"] if "<" not in text]
    assert len(texts) > 100
    assert ids(read_language_tokenizer(folder, "llama"), texts, add_special_tokens=False) == [
        processor.encode(text) for text in texts
    ]


@pytest.mark.parametrize("bos", [True, False])
@pytest.mark.parametrize("eos", [True, False])
def test_start_and_end_tokens_are_those_of_the_settings(tmp_path: Path, bos: bool, eos: bool) -> None:
    model = (FIXTURES / "sentencepiece_cut.model").read_bytes()
    folder = write_folder(
        tmp_path / "folder",
        model,
        tokenizer_class="LlamaTokenizer",
        **SPECIAL,
        add_bos_token=bos,
        add_eos_token=eos,
    )
    tokenizer = read_language_tokenizer(folder, "llama")
    found = tokenizer("a")["input_ids"]
    assert (found[0] == tokenizer.bos_token_id, found[-1] == tokenizer.eos_token_id) == (bos, eos)


def test_gemmas_kind_of_model_gets_no_space(tmp_path: Path) -> None:
    """No space before the text, and pieces that are always whole, as runs of spaces and of lines are in Gemma's."""
    whole = ["<start_of_turn>", "<end_of_turn>", "\n\n", "▁▁", "▁▁▁"]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["a red fox in the snow, user model; write it"] * 40),
        model_prefix=str(tmp_path / "gemma"),
        model_type="bpe",
        vocab_size=360,
        hard_vocab_limit=False,
        byte_fallback=True,
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        normalization_rule_name="identity",
        user_defined_symbols=whole,
        pad_id=0,
        eos_id=1,
        bos_id=2,
        unk_id=3,
        pad_piece="<pad>",
        eos_piece="<eos>",
        bos_piece="<bos>",
        minloglevel=2,
    )
    model = (tmp_path / "gemma.model").read_bytes()
    special = {"bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>", "pad_token": "<pad>"}
    folder = write_folder(tmp_path / "folder", model, tokenizer_class="GemmaTokenizer", **special)
    processor = sentencepiece.SentencePieceProcessor(str(tmp_path / "gemma.model"))
    texts = [text for text in RECORD["texts"] if not {"<s>", "</s>", "<unk>"} & set(text.split())]
    texts = [text for text in texts if "<" not in text] + ["<start_of_turn>user\na  fox<end_of_turn>\n"]
    found = ids(read_language_tokenizer(folder, "gemma"), texts, add_special_tokens=False)
    for text, mine in zip(texts, found, strict=True):
        assert mine == processor.encode(text), repr(text)
