"""A ``tokenizer.model`` alone gives the tokens that SentencePiece gives, runs of spaces included."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path

import pytest

pytest.importorskip("transformers", reason="the tokenizers are transformers'")
pytest.importorskip("sentencepiece", reason="it is what the tokens are compared with")

import sentencepiece
import transformers

from llmga.chat.checkpoints.families import choose_family
from llmga.chat.checkpoints.piece_merges import merges_of, read_pieces
from llmga.chat.checkpoints.slow_tokenizer import read_as_slow
from llmga.chat.folder_copy import with_todays_rope_type

TEXTS = [
    "end.  Next sentence",
    "Hi  Hello",
    "x\n\n  indented\n      more",
    "def f(a):\n        return a  # why",
    "a, b,   c",
    *(f"a{' ' * n}b" for n in range(1, 34)),
    "plain words with single spaces",
]
REAL = ("tokenizer.model.v1", "mistral_instruct_tokenizer_240323.model.v3")


def real_model(name: str) -> Path:
    """A published tokenizer that mistral-common ships: installed, or its files below ``LLMGA_SENTENCEPIECE``.

    ``pip install --no-deps --target PLACE mistral-common`` and LLMGA_SENTENCEPIECE=PLACE: beside transformers it would
    change which tokenizers transformers loads.
    """
    spec = importlib.util.find_spec("mistral_common")
    roots = [
        os.environ.get("LLMGA_SENTENCEPIECE", ""),
        *(spec.submodule_search_locations or [] if spec else []),
    ]
    for root in filter(None, roots):
        for path in Path(root).rglob(name):
            return path
    pytest.skip(f"no published tokenizer here: {real_model.__doc__}")


def tokenizer_folder(folder: Path, model: bytes) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "tokenizer.model").write_bytes(model)
    special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "LlamaTokenizer", "legacy": False, **special})
    )
    return folder


def trained_model(folder: Path) -> bytes:
    """A BPE model of real text, in which two spaces are a piece of low id and lowest score, as in Llama 2's file."""
    from transformers.convert_slow_tokenizer import import_protobuf

    text = "\n".join(Path(__file__).read_text(encoding="utf-8").splitlines() * 3)
    (folder / "text.txt").write_text(text, encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "text.txt"),
        model_prefix=str(folder / "trained"),
        model_type="bpe",
        vocab_size=420,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        minloglevel=2,
    )
    proto = import_protobuf().ModelProto()
    proto.ParseFromString((folder / "trained.model").read_bytes())
    pieces = [piece for piece in proto.pieces if set(piece.piece) != {"▁"} or piece.piece == "▁"]
    two = type(proto.pieces[0])(piece="▁▁", score=-1e9, type=1)
    first = next(i for i, piece in enumerate(pieces) if piece.type == 1)
    found = [*pieces[:first], two, *pieces[first:]]
    del proto.pieces[:]
    proto.pieces.extend(found)
    return proto.SerializeToString()


def check(folder: Path, changes: bool) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(
        folder, config=transformers.CONFIG_MAPPING["llama"](), local_files_only=True
    )
    processor = sentencepiece.SentencePieceProcessor(str(folder / "tokenizer.model"))
    before = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in TEXTS]
    assert read_as_slow(tokenizer, folder)
    expected = [processor.encode(text) for text in TEXTS]
    assert [tokenizer(text, add_special_tokens=False)["input_ids"] for text in TEXTS] == expected
    if changes and int(transformers.__version__.split(".")[0]) >= 5:
        assert before != expected  # or this test shows nothing
    tokenizer.save_pretrained(folder / "saved")
    saved = transformers.AutoTokenizer.from_pretrained(folder / "saved", local_files_only=True)
    assert [saved(text, add_special_tokens=False)["input_ids"] for text in TEXTS] == expected
    assert not read_as_slow(saved, folder / "saved")


@pytest.mark.parametrize("name", REAL)
def test_a_published_tokenizer(tmp_path: Path, name: str) -> None:
    check(tokenizer_folder(tmp_path / "real", real_model(name).read_bytes()), changes=True)


def test_a_trained_tokenizer(tmp_path: Path) -> None:
    check(tokenizer_folder(tmp_path / "trained", trained_model(tmp_path)), changes=False)


def test_merges_go_by_score_and_from_the_left() -> None:
    pieces = {"a": -3.0, "b": -4.0, "aa": -1e9, "ab": -1.0, "aab": -2.0}
    assert merges_of(pieces) == [("a", "b"), ("aa", "b"), ("a", "ab"), ("a", "a")]


@pytest.mark.parametrize("content", [b"", b"\xff" * 50, b"version https://git-lfs"])
def test_another_file_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "tokenizer.model").write_bytes(content)
    if content:
        with pytest.raises(ValueError, match="tokenizer.model is not a SentencePiece model"):
            read_pieces(tmp_path / "tokenizer.model")
    else:
        assert read_pieces(tmp_path / "tokenizer.model") is None


@pytest.mark.parametrize(
    ("origin", "folder", "family"),
    [
        ("", "llmga-llama-2-7b-chat-full-finetune", "llava_llama_2"),
        ("", "LLMGA_Llama2_13B", "llava_llama_2"),
        ("someone/merged", "llama_2_7b", "llava_llama_2"),
        ("llama_2_7b", "x", "llava_llama_2"),
        ("lmsys/vicuna-7b-v1.5", "llama-2-7b", "vicuna_v1"),
        ("", "llmga-vicuna-7b", "vicuna_v1"),
        ("", "llama-21b", "vicuna_v1"),
    ],
)
def test_the_folder_tells_what_the_config_does_not(origin: str, folder: str, family: str) -> None:
    class Tokenizer:
        def get_vocab(self) -> dict[str, int]:
            return {}

    config = {"model_type": "llava_llama", "_name_or_path": origin}
    found, reason = choose_family(config, Tokenizer(), folder=folder)
    assert found.name == family and reason


@pytest.mark.parametrize("key", ["type", "rope_type"])
def test_su_is_longrope(key: str) -> None:
    assert with_todays_rope_type({key: "su", "short_factor": [1.0]}) == {
        key: "longrope",
        "short_factor": [1.0],
    }
