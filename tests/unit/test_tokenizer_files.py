"""Tokenizer files that do not go with the weights, or hold something else than transformers takes for granted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers", reason="the readers load through transformers")

from llmga.chat.conversation import Conversation
from llmga.chat.engines.base import Sampling
from llmga.chat.folders import load_local_engine
from llmga.chat.tokenizer_bounds import check_tokenizer
from miniworld.models.random_language import write_tiny_text

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_tiny_text(tmp_path / "tiny-text", seed=1)


@pytest.mark.parametrize(
    "merges", [[1, 2], [["a"]], [["a", "b", "c"]], [["a", 1]], ["ab"], [None], {"a": "b"}, "a b"], ids=str
)
def test_merges_that_are_no_pairs_of_tokens(merges: Any) -> None:
    with pytest.raises(ValueError, match=r"^here: the merges of its model must be a list of two tokens each"):
        check_tokenizer({"model": {"merges": merges}}, "here")


@pytest.mark.parametrize(
    "model", [{}, {"merges": []}, {"merges": ["a b"]}, {"merges": [["a b", " "]]}, None], ids=str
)
def test_merges_as_they_are_published(model: Any) -> None:
    check_tokenizer({"model": model}, "here")


@pytest.mark.parametrize("name", ["chat_template.json", "special_tokens_map.json", "added_tokens.json"])
@pytest.mark.parametrize("text", ["null", "[]", "7", '"a"'])
def test_a_file_beside_the_configs_that_is_no_object(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(text)
    with pytest.raises(
        ValueError, match=rf"tiny-text/{name}: expected a JSON object, got \w+; download it again"
    ):
        load_local_engine(folder)


@pytest.mark.parametrize("id_", [10**12, 500_000], ids=str)
def test_a_token_for_which_the_model_has_no_embedding(folder: Path, id_: int) -> None:
    """It is said when the token is met: a tokenizer may have tokens that nobody uses."""
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    tokenizer["added_tokens"].append(
        {"id": id_, "content": "zebra", "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
         "special": False}
    )  # fmt: skip
    path.write_text(json.dumps(tokenizer))
    engine, sampling = load_local_engine(folder), Sampling(max_new_tokens=2, temperature=0.0)
    engine.generate(Conversation().say("user", "a star"), sampling, lambda _: None)
    message = r"the tokenizer of 'tiny-text' makes 'zebra' of the conversation, token [\d,]+, but the model has only [\d,]+;"
    with pytest.raises(ValueError, match=message):
        engine.generate(Conversation().say("user", "a zebra"), sampling, lambda _: None)
    with pytest.raises(ValueError, match=message):
        engine.hidden(Conversation().say("user", "a zebra"))
