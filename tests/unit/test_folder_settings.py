"""Folders of language models as they are published: what is read from which file, and what is passed over."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from support.chat_folders import edit_json, write_two

from llmga.chat.conversation import Conversation, Picture
from llmga.chat.engines.base import Sampling
from llmga.chat.engines.stream import FolderSampling, NamedTokens
from llmga.chat.folders import load_local_engine
from llmga.chat.folders.loaded import read_sampling


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_two(tmp_path_factory.mktemp("models"))


@pytest.fixture
def text_folder(folders: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of the text model that a test may damage."""
    return Path(shutil.copytree(folders["text"], tmp_path / "model"))


def test_what_a_mac_adds_to_each_file_is_passed_over(text_folder: Path) -> None:
    for path in list(text_folder.iterdir()):
        (text_folder / f"._{path.name}").write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X        ")
    assert load_local_engine(text_folder).name == "model"


def test_a_key_that_holds_nothing_is_no_fault(text_folder: Path) -> None:
    edit_json(text_folder / "config.json", quantization_config=None)
    assert load_local_engine(text_folder).name == "model"


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        (
            "preprocessor_config.json",
            {"size": {"height": 20000, "width": 20000}},
            "size must be whole numbers",
        ),
        ("preprocessor_config.json", {"crop_size": {"height": 0, "width": 1}}, "crop_size must be whole"),
        (
            "preprocessor_config.json",
            {"image_grid_pinpoints": [[9999, 9999]]},
            "image_grid_pinpoints must be",
        ),
        (
            "config.json",
            {"vision_config": {"model_type": "clip_vision_model", "patch_size": 0}},
            "patch_size must be",
        ),
        ("config.json", {"vision_config": {"depth": 10**5}}, "depth must be a whole number"),
    ],
)
def test_sizes_of_pictures_are_bounded(
    folders, tmp_path: Path, name: str, values: dict, message: str
) -> None:
    folder = Path(shutil.copytree(folders["llava"], tmp_path / "model"))
    path = folder / name
    path.write_text(json.dumps((json.loads(path.read_text()) if path.is_file() else {}) | values))
    with pytest.raises(ValueError, match=message):
        load_local_engine(folder)


def test_a_template_is_bounded_while_talking_and_can_be_cancelled(folders) -> None:
    engine = load_local_engine(folders["text"])
    chat, sampling = Conversation().say("user", "?"), Sampling(max_new_tokens=2)
    engine._processor.chat_template = "{{ messages[0]['content'] / 2 }}"
    with pytest.raises(ValueError, match="refuses this conversation: TypeError"):
        engine.generate(chat, sampling, lambda text: None)
    engine._processor.chat_template = (
        "{% for i in range(90000) %}{% for j in range(90000) %}{% endfor %}{% endfor %}"
    )

    class Cancel(BaseException): ...

    calls = []

    def on_text(text: str) -> None:
        calls.append(text)
        if len(calls) == 3:
            raise Cancel

    with pytest.raises(Cancel):
        engine.generate(chat, sampling, on_text)


def test_auto_map_of_a_family_that_transformers_has_is_left_alone(text_folder: Path) -> None:
    edit_json(text_folder / "config.json", auto_map={"AutoModelForCausalLM": "modeling.Evil"})
    edit_json(text_folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["tok.Evil", None]})
    (text_folder / "modeling.py").write_text("raise SystemExit('this must not run')")
    assert load_local_engine(text_folder).name == "model"


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "tokenizer.json"])
def test_a_byte_order_mark_is_no_fault(text_folder: Path, name: str) -> None:
    (text_folder / name).write_bytes(b"\xef\xbb\xbf" + (text_folder / name).read_bytes())
    assert load_local_engine(text_folder).name == "model"


COUNTING = ("patch_size", "vision_feature_select_strategy", "num_additional_image_tokens")


@pytest.mark.parametrize("missing", [*COUNTING, "all"])
def test_what_a_llava_processor_lacks_is_taken_from_the_config(folders, tmp_path: Path, missing: str) -> None:
    folder = Path(shutil.copytree(folders["llava"], tmp_path / "model"))
    path = folder / "processor_config.json"
    settings = json.loads(path.read_text())
    kept = {key: value for key, value in settings.items() if key != missing}
    if missing == "all":
        kept = {key: value for key, value in kept.items() if key not in COUNTING}
    path.write_text(json.dumps(kept))
    picture = Picture.from_pil(Image.new("RGB", (40, 30), "red"))
    chat = Conversation().say("user", "?", (picture,))
    assert load_local_engine(folder).token_ids(chat) == load_local_engine(folders["llava"]).token_ids(chat)


def test_a_template_that_the_tokenizer_alone_has_is_found(folders, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(folders["llava"], tmp_path / "model"))
    text = next(
        path for path in (folder / "chat_template.jinja", folder / "chat_template.json") if path.is_file()
    )
    content = text.read_text() if text.suffix == ".jinja" else json.loads(text.read_text())["chat_template"]
    text.unlink()
    edit_json(folder / "tokenizer_config.json", chat_template=content)
    assert load_local_engine(folder).supports_pictures


def test_rows_without_a_token_are_never_drawn() -> None:
    class Tokenizer:
        def get_vocab(self) -> dict[str, int]:
            return {"a": 0, "b": 2}

    scores = NamedTokens(Tokenizer())(torch.zeros(1, 1), torch.tensor([[1.0, 9.0, 2.0, 9.0]]))
    assert scores.argmax() == 2 and torch.isinf(scores[0, [1, 3]]).all() and scores[0, 0] == 1


def test_sampling_settings_are_applied_or_said(text_folder: Path) -> None:
    settings = {"top_k": 20, "repetition_penalty": 1.05, "eos_token_id": 0, "min_p": 0.1, "top_p": 0.8}
    (text_folder / "generation_config.json").write_text(json.dumps(settings))
    engine = load_local_engine(text_folder)
    assert engine.folder_sampling == FolderSampling(20, 1.05)
    assert engine.notes[-3:] == (
        "generation_config.json: top_k 20, repetition_penalty 1.05 applied",
        "generation_config.json: top_p 0.8 suggested; temperature and top_p are those of the request",
        "generation_config.json: min_p 0.1 asked for, which is not applied",
    )


@pytest.mark.parametrize("top_k", [-1, 1.5, True, "20", [20]])
@pytest.mark.parametrize("penalty", [0, -1.0, True, "1.1", float("inf"), float("nan")])
def test_a_setting_that_is_no_number_of_its_range_is_passed_over_and_said(
    tmp_path: Path, top_k: object, penalty: object
) -> None:
    (tmp_path / "generation_config.json").write_text(
        json.dumps({"top_k": top_k, "repetition_penalty": penalty})
    )
    found, notes = read_sampling(tmp_path)
    assert found == FolderSampling()
    assert len(notes) == 1
    assert "which is not applied" in notes[0] or "cannot be read" in notes[0]
