"""The registry of folder readers, and what the log says of everything that was guessed while loading."""

from __future__ import annotations

import logging
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

pytest.importorskip("transformers", reason="the readers load through transformers")

from safetensors.torch import save_file
from support.tiny_official import write_official

from llmga.chat.checkpoints import CheckpointOptions, find_family
from llmga.chat.conversation import Conversation
from llmga.chat.engines.base import Sampling
from llmga.chat.folders import READERS, load_local_engine, registry
from llmga.files.tensors import read_model
from miniworld.models.random_language import write_tiny_text

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {
        "transformers folder": write_tiny_text(root / "text", seed=1),
        "official LLMGA checkpoint": write_official(root / "vicuna", "vicuna_v1", seed=2),
    }


@pytest.mark.parametrize("name", [reader.name for reader in READERS])
def test_each_layout_finds_its_reader(folders: dict[str, Path], name: str) -> None:
    assert registry.find_reader(folders[name]).name == name


@pytest.mark.parametrize("name", ["empty", "missing"])
def test_the_last_reader_takes_what_no_other_does(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    assert registry.find_reader(tmp_path / name).name == READERS[-1].name
    with pytest.raises(FileNotFoundError, match="no config.json"):
        load_local_engine(tmp_path / name)


def test_the_first_reader_that_reads_a_folder_loads_it(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def load(folder: Path, dtype: torch.dtype | None, options: CheckpointOptions) -> str:
        seen.append((folder, dtype, options))
        return "an engine"

    mine = registry.FolderReader("mine", lambda folder: folder.name == "text", load)  # type: ignore[arg-type]
    monkeypatch.setattr(registry, "READERS", (mine, *READERS))
    options = CheckpointOptions(family="gemma")
    assert load_local_engine(folders["transformers folder"], torch.float16, options) == "an engine"
    assert seen == [(folders["transformers folder"], torch.float16, options)]
    assert registry.find_reader(folders["official LLMGA checkpoint"]).name == "official LLMGA checkpoint"


@pytest.mark.parametrize("key", ["base", "vision_tower", "family"])
def test_options_of_a_checkpoint_are_for_a_checkpoint(folders: dict[str, Path], key: str) -> None:
    options = replace(CheckpointOptions(), **{key: "x"})
    with pytest.raises(ValueError, match="leave 'base', 'vision_tower' and 'family' empty"):
        load_local_engine(folders["transformers folder"], options=options)


# --- the log -------------------------------------------------------------------------------------


class Tokenizer:
    def get_vocab(self) -> dict[str, int]:
        return {"a": 0}


@pytest.mark.parametrize(
    ("origin", "family", "level", "said"),
    [
        ("", "vicuna_v1", logging.WARNING, "took the family vicuna_v1"),
        ("somebody/merged-7b", "vicuna_v1", logging.WARNING, "give family='llava_llama_2'"),
        ("meta-llama/Llama-2-7b-chat-hf", "llava_llama_2", logging.INFO, "took the family llava_llama_2"),
        ("/data/secret/lmsys/vicuna-7b-v1.5", "vicuna_v1", None, ""),
    ],
)
def test_a_guessed_family(caplog, origin: str, family: str, level: int | None, said: str) -> None:
    caplog.set_level(logging.INFO, "llmga")
    config = {"model_type": "llava_llama", "_name_or_path": origin}
    assert find_family(config, Tokenizer()).name == family
    assert [record.levelno for record in caplog.records] == ([] if level is None else [level])
    assert said in caplog.text and "secret" not in caplog.text


def test_a_named_family_is_no_guess(caplog) -> None:
    caplog.set_level(logging.INFO, "llmga")
    find_family({"model_type": "llava_llama"}, Tokenizer(), "vicuna_v1")
    assert not caplog.records


def test_a_stored_dtype(folders: dict[str, Path], caplog) -> None:
    caplog.set_level(logging.INFO, "llmga")
    load_local_engine(folders["transformers folder"], torch.float32)
    assert not caplog.records
    load_local_engine(folders["transformers folder"])
    assert caplog.messages == ["text: no dtype was asked for; its weights stay torch.float32"]


def test_a_found_vision_tower(folders: dict[str, Path], tmp_path: Path, caplog, monkeypatch) -> None:
    caplog.set_level(logging.INFO, "llmga")
    folder = Path(shutil.copytree(folders["official LLMGA checkpoint"], tmp_path / "secret" / "bare"))
    tower = write_tower_apart(folder, tmp_path / "secret" / "tower.safetensors")
    monkeypatch.setattr("llmga.chat.checkpoints.official.find_tower", lambda towers: towers[0])
    load_local_engine(folder, torch.float32, CheckpointOptions(towers=(tower,)))
    assert "bare holds no vision tower; took tower.safetensors" in caplog.messages
    assert "secret" not in caplog.text


def test_a_dropped_beginning(folders: dict[str, Path], caplog) -> None:
    engine = load_local_engine(folders["transformers folder"], torch.float32)
    caplog.set_level(logging.INFO, "llmga")
    chat = Conversation().say("user", "a fox that nobody may read of")
    engine.generate(chat, Sampling(temperature=0, max_new_tokens=2), lambda text: None)
    assert not caplog.records
    positions = engine.prefixes._kept[0].positions
    assert engine.prefixes.take(positions, 50, torch.device("meta")) == (None, 0)
    engine.prefixes.max_bytes = 1
    engine.generate(chat, Sampling(temperature=0, max_new_tokens=2), lambda text: None)
    assert [record.levelno for record in caplog.records] == [logging.INFO] * 2
    assert "it is on another device" in caplog.messages[0]
    assert "bytes of keys and values are dropped" in caplog.messages[1]
    assert "nobody" not in caplog.text


def write_tower_apart(folder: Path, path: Path) -> Path:
    """Move the vision tower out of an official folder into one file."""
    weights = read_model(folder)
    mark = "vision_model."
    tower = {name[name.index(mark) :]: value.clone() for name, value in weights.items() if mark in name}
    assert tower
    for old in [*folder.glob("*.safetensors"), *folder.glob("*.bin"), *folder.glob("*.index.json")]:
        old.unlink()
    rest = {name: value.clone() for name, value in weights.items() if mark not in name}
    save_file(rest, folder / "model.safetensors", metadata={"format": "pt"})
    save_file(tower, path, metadata={"format": "pt"})
    return path
