"""CLIP's tokenizer, built from the merges alone."""

from __future__ import annotations

from importlib.resources import files

import pytest

from llmga.text import clip_tokenizer
from llmga.text.tokenizer import decode


@pytest.fixture(scope="module")
def tokenizer():
    return clip_tokenizer()


def test_vocabulary_and_special_tokens(tokenizer):
    assert len(tokenizer) == 49408
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (49406, 49407, 49407)
    assert clip_tokenizer("!").pad_token_id == 0
    assert tokenizer.model_max_length == 77


@pytest.mark.parametrize(
    ("text", "ids"),
    [  # OpenAI CLIP's published ids
        ("a photo of a cat", [320, 1125, 539, 320, 2368]),
        ("Hello, WORLD!", [3306, 267, 1002, 256]),
        (" \n\t ", []),
        ("a diagram", [320, 22697]),
    ],
)
def test_known_ids(tokenizer, text, ids):
    assert tokenizer(text).input_ids == [49406, *ids, 49407]


def test_decode(tokenizer):
    assert (
        decode(tokenizer("A red fox, at dawn", add_special_tokens=False).input_ids) == "a red fox , at dawn"
    )
    assert decode([1125, object(), 2368]) == "photo <embedding> cat"
    assert decode([]) == ""


def test_nothing_is_written_beside_the_merges():
    folder = files("llmga.text")
    before = {entry.name for entry in folder.iterdir()}
    clip_tokenizer()
    assert {entry.name for entry in folder.iterdir()} == before
    assert len(folder.joinpath("clip_merges.txt").read_bytes()) < 1_000_000
