"""Damaged and unsafe checkpoints: each says what is wrong with it, and runs nothing."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("transformers", reason="the checkpoints need transformers")

from safetensors.torch import load_file, save_file
from support.official_parts import Weights, replace_weights, split, weights_of, without_tower

from llmga.chat.folders import load_local_engine

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "model"))


class Trap:
    """Unpickled without care it writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable, tuple]:
        return Path.write_text, (self.path, "it ran")


def pickled(folder: Path, value: object) -> None:
    (folder / "model.safetensors").unlink()
    torch.save(value, folder / "pytorch_model.bin")


def edit(folder: Path, **values: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def change(folder: Path, do: Callable[[Weights], object]) -> None:
    weights = weights_of(folder)
    do(weights)
    replace_weights(folder, weights)


def cut(path: Path, keep: float) -> None:
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])


def drop_part(folder: Path, suffix: str) -> None:
    split(folder, suffix)[1].unlink()


def repeat_a_tensor(folder: Path) -> None:
    one, two = split(folder, ".safetensors")
    save_file(load_file(two) | {"model.norm.weight": torch.ones(64), "lm_head.weight": torch.ones(2)}, two)
    save_file(load_file(one) | {"model.norm.weight": torch.ones(64), "lm_head.weight": torch.ones(2)}, one)


NORM = "model.norm.weight"
DAMAGED: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated": (
        lambda f: cut(f / "model.safetensors", 0.6),
        r"model/model.safetensors is cut off: half a download",
    ),
    "truncated pickle": (
        lambda f: (pickled(f, weights_of(f)), cut(f / "pytorch_model.bin", 0.6)),
        r"model/pytorch_model.bin is a damaged or incomplete PyTorch file",
    ),
    "a tensor is missing": (
        lambda f: change(f, lambda w: w.pop(NORM)),
        r"'?model'? lacks the tensor model.norm.weight;",
    ),
    "the projector is missing": (
        lambda f: change(f, lambda w: [w.pop(name) for name in list(w) if "mm_projector" in name]),
        r"model lacks the tensors model.mm_projector.0.bias, .* and 1 more;",
    ),
    "a tensor is renamed": (
        lambda f: change(f, lambda w: w.update({"transformer.norm.weight": w.pop(NORM)})),
        r"'transformer.norm.weight' belongs to no part",
    ),
    "a tensor too many": (
        lambda f: change(f, lambda w: w.update({"model.layers.7.mlp.up_proj.weight": torch.ones(2)})),
        r"model has the tensor model.layers.7.mlp.up_proj.weight, which its config.json has no place for",
    ),
    "a wrong shape": (
        lambda f: change(f, lambda w: w.update({NORM: torch.ones(63)})),
        r"the tensor 'model.norm.weight' has the shape \(63,\), its config.json wants \(64,\)",
    ),
    "a pickle with code": (
        lambda f: pickled(f, {NORM: Trap(f.parent / "ran")}),
        r"model/pytorch_model.bin is a PyTorch file that holds more than weights, could run code and was not opened",
    ),
    "an old pickle with code": (
        lambda f: (
            pickled(f, {}),
            (f / "pytorch_model.bin").write_bytes(pickle.dumps(Trap(f.parent / "ran"))),
        ),
        r"pytorch_model.bin is a PyTorch file that holds more than weights",
    ),
    "a pickle of something else": (
        lambda f: pickled(f, [1, 2]),
        r"something else than tensors by name",
    ),
    "a missing part": (
        lambda f: drop_part(f, ".safetensors"),
        r"model/model-00002-of-00002.safetensors is missing, one of the 2 parts",
    ),
    "a missing pickle": (
        lambda f: drop_part(f, ".bin"),
        r"model/pytorch_model-00002-of-00002.bin is missing, one of the 2 parts",
    ),
    "a part twice": (
        repeat_a_tensor,
        r"repeats the tensors lm_head.weight, model.norm.weight of another part",
    ),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), r"'model' has no weights"),
    "no config": (
        lambda f: (f / "config.json").unlink(),
        r"'model' is not a model folder: it has no config.json",
    ),
    "a broken config": (
        lambda f: (f / "config.json").write_text("{"),
        r"model/config.json is not valid JSON",
    ),
    "remote code": (
        lambda f: edit(f, trust_remote_code=True),
        r"has the key 'trust_remote_code', which asks to run code",
    ),
    "another projector": (
        lambda f: edit(f, mm_projector_type="linear"),
        r"mm_projector_type must be 'mlp2x_gelu', got 'linear'",
    ),
    "another layout of pictures": (
        lambda f: edit(f, mm_patch_merge_type="spatial_unpad"),
        r"mm_patch_merge_type must be 'flat', got 'spatial_unpad'",
    ),
    "an unknown model": (lambda f: edit(f, model_type="llava_mpt"), r"llava_mpt"),
    "no tower": (without_tower, r"'model' holds no vision tower; give vision_tower as 'vision_tower'"),
    "no tokenizer": (
        lambda f: [path.unlink() for path in f.glob("tokenizer*")],
        r"the language model 'model' cannot be loaded: ",
    ),
    "a pointer": (
        lambda f: (f / "model.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid"),
        r"is a Git LFS pointer",
    ),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_checkpoint_says_why_and_runs_nothing(folder: Path, damage: str) -> None:
    spoil, message = DAMAGED[damage]
    spoil(folder)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        load_local_engine(folder)
    assert str(folder.parent) not in str(caught.value)
    assert not (folder.parent / "ran").exists()


def test_code_that_the_checkpoint_names_is_not_run(folder: Path) -> None:
    """LLMGA's types are read by this package, so that an ``auto_map`` is not needed and not followed."""
    marker = folder.parent / "ran"
    (folder / "modeling.py").write_text(
        f"open({str(marker)!r}, 'w').close()\nclass Y: ...\n", encoding="utf-8"
    )
    edit(folder, auto_map={"AutoModel": "modeling.Y", "AutoConfig": "modeling.Y"})
    assert load_local_engine(folder).knows_tags
    assert not marker.exists()


def test_the_trap_would_have_run(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Trap(tmp_path / "ran")))  # noqa: S301
    assert (tmp_path / "ran").exists()
