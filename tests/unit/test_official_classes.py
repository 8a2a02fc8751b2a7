"""Checkpoints that LLMGA's own classes wrote give their ids, logits and replies: seven families, three turns, a picture."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("transformers", reason="the checkpoints need transformers")
pytest.importorskip("sentencepiece", reason="five of the seven have a SentencePiece tokenizer")

from safetensors.numpy import load_file
from support.official_chat import NEW_TOKENS, TALK, directions, picture
from support.official_folders import FIXTURES, record, write_folder

from llmga.chat import Conversation, Picture, Sampling
from llmga.chat.checkpoints import FAMILIES, convert, read_checkpoint
from llmga.chat.engines.local import LocalEngine
from llmga.chat.engines.stream import FolderSampling
from llmga.chat.folders import load_local_engine

pytestmark = pytest.mark.usefixtures("one_thread")

PICTURE_TOKEN = -200  # in the official ids


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("official")
    return {family: write_folder(root / f"{family}-checkpoint", family) for family in FAMILIES}


@pytest.fixture(scope="module")
def engines(folders: dict[str, Path]) -> dict[str, LocalEngine]:
    return {family: load_local_engine(folder) for family, folder in folders.items()}


def talks(family: str) -> list[Conversation]:
    """The conversation at each turn of the user, with the replies of the official classes."""
    turns, talk, found = record(family)["turns"], Conversation(), []
    for number, text in enumerate(TALK):
        talk = talk.say("user", text, () if number else (Picture.from_pil(picture()),))
        found.append(talk)
        talk = talk.say("assistant", turns[number]["reply"])
    return found


def with_pictures(ids: list[int], image: int, features: int) -> list[int]:
    return [new for token in ids for new in ([image] * features if token == PICTURE_TOKEN else [token])]


@pytest.mark.parametrize("family", FAMILIES)
def test_ids_and_logits_are_those_of_the_official_classes(engines: Any, family: str) -> None:
    engine, recorded = engines[family], record(family)
    arrays = load_file(FIXTURES / f"llava/{family}.safetensors")
    assert engine.net.config.llmga_family == family
    for number, talk in enumerate(talks(family)):
        inputs = engine._encode(talk)
        config = engine.net.config
        expected = with_pictures(
            recorded["turns"][number]["ids"], config.image_token_index, config.image_seq_length
        )
        assert inputs["input_ids"][0].tolist() == expected
        np.testing.assert_allclose(inputs["pixel_values"][0].numpy(), arrays["pixels"], rtol=1e-5, atol=1e-6)
        with torch.no_grad():
            logits = engine.net(**inputs).logits[0].numpy()
        named = len(arrays[f"last{number}"])  # the official code cuts the rows that no token has
        spread = arrays[f"last{number}"].std()
        assert spread > 0.1
        assert np.abs(logits[-1, :named] - arrays[f"last{number}"]).max() < 1e-4 * spread
        projected = logits[:, :named] @ directions(named)
        assert np.abs(projected - arrays[f"all{number}"]).max() < 1e-4 * arrays[f"all{number}"].std()


@pytest.mark.parametrize("lookup", [0, 4])
@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_replies_are_those_of_the_official_classes(
    engines: Any, monkeypatch: pytest.MonkeyPatch, family: str, lookup: int
) -> None:
    engine, turns = engines[family], record(family)["turns"]
    monkeypatch.setattr(engine, "lookup", lookup)
    for number, talk in enumerate(talks(family)):
        said = engine.generate(talk, Sampling(temperature=0, max_new_tokens=NEW_TOKENS), lambda text: None)
        assert said.answer == turns[number]["reply"]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_converted_folder_says_the_same(folders: Any, tmp_path: Path, family: str) -> None:
    engine, turns = load_local_engine(convert(folders[family], tmp_path / "out")), record(family)["turns"]
    for number, talk in enumerate(talks(family)):
        config = engine.net.config
        expected = with_pictures(turns[number]["ids"], config.image_token_index, config.image_seq_length)
        assert engine._encode(talk)["input_ids"][0].tolist() == expected


def test_a_draw_is_between_as_many_tokens_as_in_the_official_code(
    engines: Any, folders: Any, tmp_path: Path
) -> None:
    """transformers 4.37.2 takes 50 where generation_config.json is silent; Qwen2's says 20 and has a penalty."""
    for family, engine in engines.items():
        wanted = FolderSampling(20, 1.05) if family == "qwen_2" else FolderSampling(50)
        assert engine.folder_sampling == wanted
        converted = load_local_engine(convert(folders[family], tmp_path / family))
        assert converted.folder_sampling == wanted and converted.trained_phrases


def test_gemma_without_its_tokenizer_json_reads_alike(folders: Any, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(folders["gemma"], tmp_path / "gemma"))
    (folder / "tokenizer.json").unlink()
    whole, alone = read_checkpoint(folders["gemma"]).tokenizer, read_checkpoint(folder).tokenizer
    for text in (*TALK, "   a\n\n\n\nb  ", "<start_of_turn>user\n  hi<end_of_turn>\n"):
        assert alone(text)["input_ids"] == whole(text)["input_ids"], text
