"""What Long CLIP Encode leaves out of a prompt, and says so: textual inversions, BREAK. On ComfyUI's own tokenizers."""

from __future__ import annotations

import importlib
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from support import comfy_inprocess as comfy
from support.tiny_clip import WIDTH_G, WIDTH_L

REASON = comfy.skip_reason()
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))

DEFAULTS = {
    "layout": "llmga",
    "weights": False,
    "break_at": "hard",
    "max_chunks": 4,
    "min_chunks": 1,
    "empty_negative": "encode",
    "match_chunks": False,
}
GIVEN = ["llmga", "llmga_lpw", "host"]


def run(clip: Any, text: Any, **options: Any) -> Any:
    with torch.inference_mode():
        return comfy.pack("nodes.encode").LongCLIPEncode.execute(clip, text, **{**DEFAULTS, **options}).result


def readout(clip: Any, text: Any, **options: Any) -> list[str]:
    """The readout of the positive prompt, its first line without the name."""
    lines = run(clip, text, **options)[2].split("\nnegative: ")[0].split("\n")
    return [lines[0].removeprefix("positive: "), *lines[1:]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("embeddings")
    generator = torch.Generator().manual_seed(0)
    sizes = {"emb1": 1, "emb4": 4, "emb7": 7, "emb8": 8, "emb80": 80}
    for name, count in sizes.items():
        save_file(
            {"emb_params": torch.randn(count, WIDTH_L, generator=generator)}, folder / f"{name}.safetensors"
        )
    save_file({"emb_params": torch.ones(2, WIDTH_L + 8)}, folder / "wrongdim.safetensors")
    (folder / "broken.safetensors").write_bytes(b"no weights")
    save_file({}, folder / "empty.safetensors")
    return folder


@pytest.fixture(scope="module")
def clip(folder: Path) -> Any:
    clip = comfy.tiny_clip("sd15")
    clip.tokenizer.clip_l.embedding_directory = str(folder)
    return clip


@pytest.mark.parametrize("layout", GIVEN)
@pytest.mark.parametrize("name", ["nothere", "emb8,star", "sub/emb1", "broken", "../emb1"])
def test_a_missing_embedding_is_named(clip: Any, layout: str, name: str) -> None:
    _, said = readout(clip, f"embedding:{name} ring", layout=layout)
    assert said.startswith(f"LEFT OUT: no embedding {name} in models/embeddings")
    assert ("a comma belongs to it" in said) == ("," in name)


@pytest.mark.parametrize("layout", GIVEN)
@pytest.mark.parametrize(
    "text", ["embedding:emb4 star", "star embedding:emb1, ring", "a\nembedding:emb8", "star"]
)
def test_nothing_is_said_of_what_is_there(clip: Any, layout: str, text: str) -> None:
    assert len(readout(clip, text, layout=layout)) == 1


@pytest.mark.parametrize(
    "text", ["embedding:wrongdim star", "a fox embedding:wrongdim", "embedding:wrongdim"]
)
@pytest.mark.parametrize("layout", GIVEN)
def test_an_embedding_of_another_width_is_named_and_not_counted(clip: Any, layout: str, text: str) -> None:
    first, said = readout(clip, text, layout=layout)
    assert said.startswith(
        f"LEFT OUT: embedding wrongdim ({WIDTH_L + 8} numbers where {WIDTH_L} are read): it is made for another kind"
    )
    if layout != "host":
        without = text.replace("embedding:wrongdim", "").strip()
        assert first == readout(clip, without, layout=layout)[-1].removeprefix("positive: ")
        assert torch.equal(
            run(clip, text, layout=layout)[0][0][0], run(clip, without, layout=layout)[0][0][0]
        )


def test_each_prompt_has_its_own_line_and_names_come_once(clip: Any) -> None:
    report = run(clip, "embedding:x embedding:y a embedding:x", negative_text="embedding:z")[2]
    positive, negative = report.split("\nnegative: ")
    assert positive.count("no embedding x, y in") == 1 and "no embedding z in" in negative
    many = " ".join(f"embedding:e{i}" for i in range(300))
    assert "e0, e1, e2, e3, e4 and 95 more" in run(clip, many)[2]


def test_weights_reach_into_brackets(clip: Any) -> None:
    assert len(readout(clip, "a (embedding:emb4:1.2) star", weights=True)) == 1
    assert "no embedding gone" in readout(clip, "a (embedding:gone:1.2) star", weights=True)[1]
    assert len(readout(clip, "a (embedding:gone:1.2) star")) == 1  # brackets are text, and so is this


def test_both_encoders_of_sdxl_are_asked(folder: Path) -> None:
    clip = comfy.tiny_clip("sdxl")
    save_file(
        {"clip_l": torch.ones(2, WIDTH_L), "clip_g": torch.ones(2, WIDTH_G)}, folder / "both.safetensors"
    )
    save_file({"clip_l": torch.ones(2, WIDTH_L), "clip_g": torch.ones(2, 5)}, folder / "half.safetensors")
    for tokenizer in (clip.tokenizer.clip_l, clip.tokenizer.clip_g):
        tokenizer.embedding_directory = str(folder)
    assert len(readout(clip, "embedding:both star")) == 1
    said = run(clip, "embedding:half star")[2]
    assert f"embedding half (5 numbers where {WIDTH_G} are read)" in said


@pytest.mark.parametrize("layout", GIVEN)
@pytest.mark.parametrize("name", ["text", "negative_text"])
@pytest.mark.parametrize(
    "words", ["embedding:", "a fox embedding:", "a embedding: embedding:emb1", "embedding:\n"]
)
def test_an_embedding_without_a_name_is_an_error_that_names_the_input(
    clip: Any, layout: str, name: str, words: str
) -> None:
    with pytest.raises(ValueError, match=f"^{name} holds 'embedding:' without a name; write the name"):
        run(clip, **{"text": "a fox", name: words, "layout": layout})


def test_a_file_that_comfyui_cannot_read_is_an_error_that_names_the_input(clip: Any) -> None:
    with pytest.raises(
        ValueError, match=r"^text names embeddings \(empty\) of which ComfyUI cannot read one"
    ):
        run(clip, "embedding:empty star")


@pytest.mark.parametrize("name", ["emb4", "emb7"])
@pytest.mark.parametrize("words", [70, 73, 74, 75])
@pytest.mark.parametrize("break_at", ["hard", "sentence"])
def test_an_embedding_is_kept_whole_as_the_host_does(clip: Any, name: str, words: int, break_at: str) -> None:
    text = "fox " * words + f"embedding:{name}"
    tokens = clip.tokenize(text)
    with torch.inference_mode():
        expected = clip.encode_from_tokens_scheduled(tokens)[0][0]
    given = run(clip, text, layout="llmga_lpw", break_at=break_at)[0][0][0]
    torch.testing.assert_close(given, expected, atol=1e-5, rtol=1e-4)
    assert run(clip, text, layout="llmga", break_at=break_at)[0][0][0].shape[1] == 75 * len(tokens["l"]) + 2


def test_longer_ones_are_cut_as_the_host_does(clip: Any) -> None:
    assert readout(clip, "fox " * 73 + "embedding:emb8")[0] == "81 tokens in 2 chunks (75 + 6)"
    assert readout(clip, "fox embedding:emb80")[0] == "81 tokens in 2 chunks (75 + 6)"


def test_neighbours_are_kept_whole_each_by_itself(clip: Any) -> None:
    lines = readout(clip, "fox " * 70 + "embedding:emb4 embedding:emb4 tail")
    assert lines[0] == "79 tokens in 2 chunks (74 + 5)"
    assert lines[1].startswith("cut 1, before an embedding, which stays whole")


@pytest.mark.parametrize(
    ("text", "chunks"),
    [
        ("star BREAK ring", "2 chunks (1 + 1)"),
        ("star, BREAK, ring", "2 chunks (2 + 2)"),
        ("heart,BREAK", "1 chunk (2)"),
        ("heart,BREAK\nring", "2 chunks (2 + 1)"),
        ("(heart)BREAK(ring)", "2 chunks"),
        ("a BREAKFAST, Break, break", "1 chunk"),
        ("BREAK BREAK star", "1 chunk (1)"),
    ],
)
@pytest.mark.parametrize("layout", ["llmga", "llmga_lpw"])
def test_break_starts_a_chunk_where_it_is_switched_on(clip: Any, layout: str, text: str, chunks: str) -> None:
    assert chunks in readout(clip, text, layout=layout, break_word=True)[0]
    assert "BREAK is read" not in run(clip, text, layout=layout, break_word=True)[2]
    off = readout(clip, text, layout=layout)
    assert "1 chunk (" in off[0]
    assert (off[-1] == "BREAK is read as a word; switch break_word on to start a new chunk there") == (
        "BREAKFAST" not in text
    )


def test_null_switches_nothing_and_is_no_negative(clip: Any) -> None:
    plain = run(clip, "a fox BREAK star")
    for null in (None, "None"):
        again = run(clip, "a fox BREAK star", negative_text=null, break_word=None)
        assert torch.equal(again[1][0][0], plain[1][0][0]) and again[2] == plain[2]


@pytest.mark.parametrize("kind", ["flux", "qwen"])
def test_other_encoders_read_a_prompt_that_names_an_embedding(folder: Path, kind: str) -> None:
    """The tokenizers of language models switch weights off themselves, and fail where they are told to."""
    clip = comfy.tiny_clip(kind)
    for tokenizer in vars(clip.tokenizer).values():
        if hasattr(tokenizer, "embedding_directory"):
            tokenizer.embedding_directory = str(folder)
    text = "a embedding:gone ring (big:900)"
    expected = comfy.core_node("CLIPTextEncode")().encode(clip, text)[0][0][0]
    positive, _, said = run(clip, text)
    assert torch.equal(positive[0][0], expected)
    assert "LEFT OUT: no embedding gone in models/embeddings" in said


@pytest.mark.parametrize("name", ["text", "negative_text"])
@pytest.mark.parametrize(("kind", "options"), [("sd15", {"layout": "host", "weights": True}), ("flux", {})])
def test_brackets_that_the_host_cannot_read_are_named(name: str, kind: str, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"^{name} nests brackets deeper than ComfyUI reads them as weights"):
        run(comfy.tiny_clip(kind), **{"text": "a fox", name: "(" * 5000 + "a" + ")" * 5000, **options})


@pytest.mark.parametrize("name", ["text", "negative_text"])
@pytest.mark.parametrize("weight", ["nan", "inf", "1e39"])
@pytest.mark.parametrize(("kind", "options"), [("sd15", {"layout": "host", "weights": True}), ("flux", {})])
def test_a_weight_that_leaves_no_finite_number_is_named(
    name: str, weight: str, kind: str, options: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match=f"^clip, for {name}, gives NaN or infinite numbers; write weights"):
        run(comfy.tiny_clip(kind), **{"text": "a fox", name: f"a (fox:{weight})", **options})


@pytest.mark.parametrize(
    "node", ["encode.LongCLIPEncode", "inversion.Invert", "edit.InversionEdit", "flow.FlowEdit"]
)
def test_an_embedding_that_was_put_there_is_read_at_the_next_run(node: str) -> None:
    module, name = node.split(".")
    fingerprint = getattr(comfy.pack(f"nodes.{module}"), name).fingerprint_inputs
    folder = Path(importlib.import_module("folder_paths").get_folder_paths("embeddings")[0]) / "mine"
    text = {"text": "a (embedding:fresh:1.2) star", "source_prompt": "a star", "steps": 3}
    before, plain = fingerprint(**text), fingerprint(text="a star")
    assert before == fingerprint(**text)
    folder.mkdir(parents=True)
    try:
        save_file({"emb_params": torch.ones(1, WIDTH_L)}, folder / "fresh.safetensors")
        there = fingerprint(**text)
        assert there != before and fingerprint(text="a star") == plain
        save_file({"emb_params": torch.ones(2, WIDTH_L)}, folder / "fresh.safetensors")
        assert fingerprint(**text) != there
    finally:
        shutil.rmtree(folder)
    assert fingerprint(**text) == before
