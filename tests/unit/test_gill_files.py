"""GILL's files: the released names at full size, every damage has its own error, and what is converted is the same."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.tiny_gill import inside, said

from llmga.__main__ import main
from llmga.gill import (
    HEAD_KINDS,
    DecisionModel,
    GILLParts,
    GILLSizes,
    load_decision,
    load_parts,
    save_decision,
    save_parts,
)

MAPPER = "model.gen_text_hidden_fcs.0."


def full_size(prefix: str = "") -> dict[str, torch.Tensor]:
    """The released checkpoint's names and shapes; each tensor is one number, repeated without taking memory."""
    one = torch.tensor(0.5, dtype=torch.bfloat16)
    return {prefix + name: one.expand(shape) for name, shape in said()["released_shapes"].items()}


@pytest.mark.parametrize("prefix", ["", "module."])
def test_the_released_checkpoint_at_full_size(tmp_path: Path, prefix: str) -> None:
    path = tmp_path / "pretrained_ckpt.pth.tar"
    torch.save({"state_dict": full_size(prefix)}, path)
    assert path.stat().st_size < 200_000
    parts = load_parts(path, dtype=None)
    assert parts.sizes == GILLSizes()
    names = said()["released_shapes"]
    assert sum(name.startswith(MAPPER) for name in names) == 129
    assert len(parts.state_dict()) == len(names) == 137
    assert sum(p.numel() for p in parts.parameters()) == 50_096_385  # 95.55 MiB in bfloat16, "around 96 MB"
    assert parts.img_rows.shape == (8, 4096) and parts.img_rows.dtype == torch.bfloat16
    assert all((p.float() == 0.5).all() for p in (parts.img_rows, parts.logit_scale, parts.visual_fc.bias))


def test_an_unpruned_checkpoint_gives_its_last_rows(tmp_path: Path) -> None:
    rows = torch.randn(300, 32)
    torch.save(
        {"state_dict": inside("gill") | {"model.input_embeddings.weight": rows}, "epoch": 3},
        tmp_path / "x.pth",
    )
    assert torch.equal(load_parts(tmp_path / "x.pth").img_rows, rows[-8:])


def tiny(**changed: Any) -> dict[str, Any]:
    return {"state_dict": inside("gill") | changed}


def without(name: str) -> dict[str, Any]:
    state = inside("gill")
    del state[name]
    return {"state_dict": state}


def saved(content: Any) -> Callable[[Path], None]:
    return lambda path: torch.save(content, path)


def text(content: bytes) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_bytes(content)

    return write


def cut_off(path: Path) -> None:
    torch.save(tiny(), path)
    path.write_bytes(path.read_bytes()[:-4000])


class Harmful:
    def __reduce__(self) -> Any:
        return print, ("run",)


FIRST = f"{MAPPER}tfm.encoder.layers.0.linear1.weight"
DAMAGED = {
    "empty": (text(b""), "an empty file"),
    "pointer": (text(b"version https://git-lfs.github.com/spec/v1\noid"), "a Git LFS pointer"),
    "web page": (text(b"<!DOCTYPE html><html>Google Drive - Virus scan warning"), "a web page"),
    "code": (saved({"state_dict": {"x": Harmful()}}), "could run code and was not opened"),
    "cut off": (cut_off, "damaged or incomplete"),
    "another kind": (
        saved({"condition.E.0.weight": torch.ones(2), "G.patch_embed.proj.weight": torch.ones(2)}),
        "a DiffRIR",
    ),
    "optimizer": (saved({"optimizer": {"state": {}}, "param_groups": []}), "state of a training"),
    "a tensor less": (
        saved(without(FIRST)),
        "1 of its 137 tensors are missing, the first is gen_text_hidden_fcs.0.tfm",
    ),
    "a tensor more": (
        saved(tiny(**{"model.more": torch.ones(2)})),
        "1 tensors more than a GILL, the first is more",
    ),
    "another shape": (
        saved(tiny(**{FIRST: torch.ones(64, 8)})),
        r"has the shape \(64, 8\), where the other tensors ask for",
    ),
    "not finite": (
        saved(tiny(**{"model.visual_fc.bias": torch.full((20,), torch.nan)})),
        "visual_fc.bias that are not finite",
    ),
    "whole numbers": (
        saved(tiny(**{"model.logit_scale": torch.tensor(2)})),
        "logit_scale as int64; expected floats",
    ),
    "no sizes": (
        saved(without("model.visual_embeddings.weight")),
        "visual_embeddings.weight is missing, from which the sizes",
    ),
    "a row of rows": (
        saved(tiny(**{"model.input_embeddings.weight": torch.ones(32)})),
        r"shape \(32,\); expected a matrix",
    ),
    "half a token": (
        saved(tiny(**{"model.visual_embeddings.weight": torch.ones(100, 24)})),
        "not whole tokens of the width 32",
    ),
    "twice": (saved(tiny(**{"module.model.logit_scale": torch.ones(())})), "it holds logit_scale twice"),
    "queries": (
        saved(tiny(**{f"{MAPPER}query_embs": torch.ones(77, 16)})),
        r"query_embs has the shape \(77, 16\)",
    ),
    "text": (
        saved({"state_dict": {"model.gen_text_hidden_fcs.0.fc.weight": "text"}}),
        "without a single weight",
    ),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_each_damage_has_its_own_error(tmp_path: Path, damage: str) -> None:
    write, message = DAMAGED[damage]
    path = tmp_path / "pretrained_ckpt.pth.tar"
    write(path)
    with pytest.raises(ValueError, match=message) as caught:
        load_parts(path)
    assert str(caught.value).startswith(f"{tmp_path.name}/pretrained_ckpt.pth.tar")


def test_no_two_damages_share_a_message() -> None:
    assert len({message for _, message in DAMAGED.values()}) == len(DAMAGED) >= 15


@pytest.mark.parametrize("head", HEAD_KINDS)
def test_every_head_comes_back_from_its_file(tmp_path: Path, head: Any) -> None:
    torch.manual_seed(0)
    sizes = GILLSizes(32, 24, 8, 4, 20, 77, 16, head=head, head_width=16, head_layers=2)
    if head in ("linear", "mlp"):
        sizes = GILLSizes(
            32, 24, 8, 4, 20, 77, 16, head=head, **({} if head == "linear" else {"head_width": 16})
        )
    parts = GILLParts(sizes)
    save_parts(parts, tmp_path / "gill.safetensors")
    found = load_parts(tmp_path / "gill.safetensors")
    assert found.sizes == sizes
    states = torch.randn(3, 8, 32)
    assert found.conditioning(states).shape == (3, 77, 16)
    assert torch.equal(found.conditioning(states), parts.eval().requires_grad_(False).conditioning(states))


def test_converting_keeps_every_number(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(tiny(), tmp_path / "pretrained_ckpt.pth.tar")
    out = tmp_path / "gill.safetensors"
    assert main(["convert", "gill", str(tmp_path / "pretrained_ckpt.pth.tar"), str(out)]) == 0
    assert "head gill_mapper" in capsys.readouterr().out
    written, official = load_file(out), inside("gill")
    assert written.keys() == official.keys()
    assert all(torch.equal(written[name], value) for name, value in official.items())


def test_the_decision_model(tmp_path: Path) -> None:
    torch.save({"state_dict": inside("decision")}, tmp_path / "decision_model.pth.tar")
    assert (
        main(["convert", "gill", str(tmp_path / "decision_model.pth.tar"), str(tmp_path / "d.safetensors")])
        == 0
    )
    states = torch.randn(5, 32)
    first, second = (
        load_decision(tmp_path / name)(states) for name in ("decision_model.pth.tar", "d.safetensors")
    )
    expected = states @ inside("decision")["1.weight"].T + inside("decision")["1.bias"]
    torch.testing.assert_close(first, expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(first, second)
    save_decision(DecisionModel(7), tmp_path / "e.safetensors")
    assert load_decision(tmp_path / "e.safetensors").linear.in_features == 7


def test_a_decision_model_of_other_shapes(tmp_path: Path) -> None:
    save_file({"1.weight": torch.ones(3, 8), "1.bias": torch.ones(2)}, tmp_path / "d.safetensors")
    with pytest.raises(ValueError, match="a decision model has 2 outputs"):
        load_decision(tmp_path / "d.safetensors")
    with pytest.raises(ValueError, match="is a GILL checkpoint"):
        torch.save(tiny(), tmp_path / "p.pth")
        load_decision(tmp_path / "p.pth")


def test_what_convert_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(tiny(), tmp_path / "p.pth")
    assert main(["convert", "gill", str(tmp_path / "p.pth"), str(tmp_path / "out.bin")]) == 2
    assert "must be called *.safetensors" in capsys.readouterr().err
    (tmp_path / "cc3m.npy").write_bytes(pickle.dumps({"paths": Harmful(), "embeddings": []}))
    assert main(["convert", "gill", str(tmp_path / "cc3m.npy"), str(tmp_path / "index")]) == 2
    said = capsys.readouterr()
    assert "builtins.print, which could run code" in said.err and "run\n" not in said.out
    assert not (tmp_path / "index").exists()
