"""The tiny random language models: deterministic folders whose replies are words."""

from __future__ import annotations

import hashlib
import unicodedata
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("transformers", reason="the tiny language models need transformers")

from transformers import AutoModelForCausalLM, AutoTokenizer

from miniworld.models.random_language import WORDS, write_tiny_llava, write_tiny_qwen_vl, write_tiny_text

pytestmark = pytest.mark.usefixtures("one_thread")

WRITERS = (write_tiny_llava, write_tiny_qwen_vl, write_tiny_text)


@pytest.fixture(scope="module")
def text_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_text(tmp_path_factory.mktemp("models") / "tiny-text")


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


@pytest.mark.parametrize("write", WRITERS)
def test_one_seed_writes_one_folder_and_leaves_the_global_generator_alone(write, tmp_path: Path) -> None:
    before = torch.get_rng_state()
    first = digests(write(tmp_path / "first", seed=1))
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(7)
    again, other = digests(write(tmp_path / "again", seed=1)), digests(write(tmp_path / "other", seed=2))
    assert first == again
    assert {name for name in first if first[name] != other[name]} == {"model.safetensors"}


@settings(max_examples=100)
@given(text=st.text())
def test_the_tokenizer_reads_back_any_text(text_folder: Path, text: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(text_folder, local_files_only=True, trust_remote_code=False)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == unicodedata.normalize("NFC", text)


def test_a_word_is_one_token(text_folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(text_folder, local_files_only=True, trust_remote_code=False)
    assert len(tokenizer(" a red fox in the snow")["input_ids"]) == 6


def test_a_reply_is_made_of_words(text_folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(text_folder, local_files_only=True, trust_remote_code=False)
    net = AutoModelForCausalLM.from_pretrained(
        text_folder, local_files_only=True, trust_remote_code=False
    ).eval()
    prompt = tokenizer(
        ["Hello there", "What is this?"], return_tensors="pt", padding=True, padding_side="left"
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        ids = net.generate(**prompt, do_sample=True, top_k=0, max_new_tokens=100)
    replies = tokenizer.batch_decode(ids[:, prompt["input_ids"].shape[1] :], skip_special_tokens=True)
    spoken = [reply.split() for reply in replies]
    assert spoken[0] != spoken[1]
    assert len({word for words in spoken for word in words}) > 10
    assert all(word in WORDS for words in spoken for word in words)
