"""Model folders that load although something is odd in them, and folders that must not load and say why."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("transformers", reason="the readers load through transformers")

from safetensors.torch import load_file, save_file

from llmga.chat.folder_check import one_kind_of_error
from llmga.chat.folders import load_local_engine
from miniworld.models.random_language import write_tiny_llava, write_tiny_text

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {
        "llava": write_tiny_llava(root / "tiny-llava", seed=1),
        "text": write_tiny_text(root / "tiny-text", seed=1),
    }


@pytest.fixture
def text_folder(folders: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of the text model that a test may damage."""
    return Path(shutil.copytree(folders["text"], tmp_path / "model"))


def edit_json(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_tied_weights_and_old_buffers_are_no_fault(folders, text_folder: Path) -> None:
    tensors = load_file(text_folder / "model.safetensors")
    tied = {name: tensor for name, tensor in tensors.items() if name != "lm_head.weight"}
    old = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(8)}
    save_file(tied | old, text_folder / "model.safetensors", metadata={"format": "pt"})
    edit_json(text_folder / "config.json", tie_word_embeddings=True)
    net = load_local_engine(text_folder).net
    assert torch.equal(
        net.lm_head.weight, load_local_engine(folders["text"]).net.get_input_embeddings().weight
    )


def drop_a_tensor(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.norm.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def add_a_tensor(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors") | {"model.extra.weight": torch.ones(2)}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def shards(*parts: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
        index = {"weight_map": {str(i): part for i, part in enumerate(parts)}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))

    return write


def overwrite(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda folder: void((folder / name).write_bytes(content))


def safetensors_header(**tensor: Any) -> bytes:
    header = json.dumps({"a": tensor}).encode()
    return len(header).to_bytes(8, "little") + header


def void(_: object) -> None:
    pass


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
HTML = b"\n<!DOCTYPE html><html><title>Sign in</title></html>"
DAMAGED: dict[str, tuple[Callable[[Path], object], str]] = {
    "no config": (
        lambda f: (f / "config.json").unlink(),
        r"'model' is not a model folder: it has no config.json",
    ),
    "config is HTML": (overwrite("config.json", HTML), r"model/config.json is a web page"),
    "config is cut": (
        overwrite("config.json", b'{"model_type":'),
        r"model/config.json is not valid JSON",
    ),
    "config is a list": (
        overwrite("config.json", b"[]"),
        r"model/config.json: expected a JSON object, got list",
    ),
    "config nests": (
        overwrite("config.json", b"[" * 100_000),
        r"model/config.json is not valid JSON",
    ),
    "remote code": (
        lambda f: edit_json(f / "config.json", auto_map={"AutoModel": "modeling.Evil"}),
        r"model/config.json has the key 'auto_map', which asks to run code",
    ),
    "remote code in the tokenizer": (
        lambda f: edit_json(f / "tokenizer_config.json", auto_map={}),
        r"model/tokenizer_config.json has the key 'auto_map'",
    ),
    "nested trust": (
        lambda f: edit_json(f / "config.json", a=[{"b": {"trust_remote_code": True}}]),
        r"the key 'trust_remote_code', which asks to run code",
    ),
    "another weight file": (
        lambda f: edit_json(f / "config.json", transformers_weights="evil.bin"),
        r"the key 'transformers_weights'",
    ),
    "quantised": (
        lambda f: edit_json(f / "config.json", quantization_config={}),
        r"take the unquantised model",
    ),
    "an adapter": (overwrite("adapter_config.json", b"{}"), r"is a LoRA adapter"),
    "official layout": (
        lambda f: edit_json(f / "config.json", model_type="llava_Qwen2"),
        r"model/config.json: mm_vision_tower 'None' is not known",
    ),
    "no model type": (overwrite("config.json", b"{}"), r"model/config.json has no 'model_type'"),
    "half a tokenizer": (overwrite("tokenizer.json", b'{"a'), r"model/tokenizer.json is not valid JSON"),
    "unknown architecture": (
        lambda f: edit_json(f / "config.json", model_type="gpt99", architectures=["Gpt99"]),
        r"'model' cannot be loaded: .*gpt99",
    ),
    "not a language model": (
        lambda f: edit_json(f / "config.json", model_type="t5"),
        r"its model_type 't5' is not a chat model",
    ),
    "pickle only": (
        lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"),
        r"only as a pickle \(pytorch_model.bin\)",
    ),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), r"'model' has no weights"),
    "missing shard": (
        shards("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"),
        r"model/model-00002-of-00002.safetensors is missing, one of the 2 parts",
    ),
    "shard outside": (
        shards("../model/x.safetensors"),
        r"names '../model/x.safetensors', which is not a .safetensors file",
    ),
    "shard is a pickle": (
        shards("pytorch_model.bin"),
        r"names 'pytorch_model.bin', which is not a .safetensors file",
    ),
    "index without a map": (
        lambda f: (shards()(f), overwrite("model.safetensors.index.json", b"{}")(f)),
        r"model.safetensors.index.json is an index without a 'weight_map'",
    ),
    "half the tensors": (
        lambda f: overwrite("model.safetensors", (f / "model.safetensors").read_bytes()[:-99])(f),
        r"model/model.safetensors is cut off: half a download",
    ),
    "half the header": (
        lambda f: overwrite("model.safetensors", (f / "model.safetensors").read_bytes()[:99])(f),
        r"is cut off: half a download \(its header alone has",
    ),
    "too long": (
        lambda f: overwrite("model.safetensors", (f / "model.safetensors").read_bytes() + b"!")(f),
        r"is longer than its header says",
    ),
    "bad header": (
        overwrite("model.safetensors", (5).to_bytes(8, "little") + b'{"a":1}'[:5]),
        r"a safetensors file with an unreadable header",
    ),
    "unknown dtype": (
        overwrite("model.safetensors", safetensors_header(dtype="F99", shape=[0], data_offsets=[0, 0])),
        r"an unknown type of numbers .*F99",
    ),
    "LFS pointer": (
        overwrite("model.safetensors", LFS),
        r"model.safetensors is a Git LFS pointer .*git lfs pull",
    ),
    "weights are HTML": (overwrite("model.safetensors", HTML), r"is a web page"),
    "renamed pickle": (
        overwrite("model.safetensors", b"PK\x03\x04" + bytes(60)),
        r"is a pickle under another name",
    ),
    "empty": (overwrite("model.safetensors", b""), r"model/model.safetensors is an empty file"),
    "noise": (overwrite("model.safetensors", bytes(range(200))), r"is not a weight file"),
    "tensor missing": (
        drop_a_tensor,
        r"'model' cannot be loaded: 1 tensors are missing in its files: model.norm.weight",
    ),
    "tensor too many": (add_a_tensor, r"1 tensors are unexpected in the model: model.extra.weight"),
    "other shape": (
        lambda f: edit_json(f / "config.json", intermediate_size=96),
        r"6 tensors are mismatched in the model: model.layers.0.mlp.down_proj.weight, .*, …$",
    ),
    "no template": (
        lambda f: edit_json(f / "tokenizer_config.json", chat_template=None),
        r"it has no chat template; add chat_template.jinja",
    ),
    "broken template": (
        lambda f: edit_json(f / "tokenizer_config.json", chat_template="{% if %}"),
        r"chat template of 'model' refuses",
    ),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), r"'model' cannot be loaded: "),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_folder_that_cannot_be_loaded_says_why(text_folder: Path, damage: str) -> None:
    damage_it, message = DAMAGED[damage]
    damage_it(text_folder)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        load_local_engine(text_folder)
    assert str(text_folder.parent) not in str(caught.value)


def test_a_key_that_holds_nothing_is_no_fault(text_folder: Path) -> None:
    edit_json(text_folder / "config.json", quantization_config=None)
    assert load_local_engine(text_folder).name == "model"


def test_vision_needs_its_processor(folders, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(folders["llava"], tmp_path / "model"))
    (folder / "processor_config.json").unlink()
    with pytest.raises(ValueError, match="'model' cannot be loaded: .*processor_config.json"):
        load_local_engine(folder)


def test_an_error_of_transformers_shows_no_path(tmp_path: Path) -> None:
    with pytest.raises(ValueError) as caught, one_kind_of_error(tmp_path / "model"):
        raise OSError(f"no file named x.json found in directory {tmp_path}/model.")
    assert str(caught.value) == (
        "the language model 'model' cannot be loaded: no file named x.json found in directory model."
    )
