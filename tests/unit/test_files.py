"""Headers, storage layouts, indexes and atomic writing: what is foreign is checked, what is written is whole."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from support.weight_headers import write_json

from llmga.files import header as headers
from llmga.files.contents import contents_of
from llmga.files.header import Weight, header_of, read_header, read_metadata
from llmga.files.index import listed_files, parts_of
from llmga.files.json_files import read_object
from llmga.files.kinds import WrongFileError
from llmga.files.storage import FORMATS, check_formats, look_through, read_formats
from llmga.files.tensors import read_file, read_wrapped
from llmga.files.writing import replacing, write_bytes, write_text

DTYPES = [
    torch.bool,
    torch.uint8,
    torch.int8,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
]


@pytest.mark.parametrize("ending", ["safetensors", "pth"])
def test_a_header_knows_every_type(tmp_path: Path, ending: str) -> None:
    tensors = {str(dtype): torch.zeros(2, 3).to(dtype) for dtype in DTYPES} | {"scalar": torch.tensor(1.0)}
    path = tmp_path / f"a.{ending}"
    save_file(tensors, path) if ending == "safetensors" else torch.save(tensors, path)
    header = read_header(path)
    assert (
        header == header_of(tensors) and {weight.dtype for weight in header.values()} <= headers.BITS.keys()
    )
    assert header["torch.bool"] == Weight((2, 3), "BOOL") and header["scalar"].shape == ()
    read = read_file(path)
    assert all(torch.equal(read[name], value) for name, value in tensors.items() if "float8" not in name)


def written(path: Path, text: str | bytes, data: int) -> Path:
    content = text.encode() if isinstance(text, str) else text
    path.write_bytes(len(content).to_bytes(8, "little") + content + bytes(data))
    return path


def entry(*offsets: int, shape: Any = (2,), dtype: str = "F16") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": list(offsets)}


@pytest.mark.parametrize(
    ("text", "data", "words"),
    [
        ('{"a": {}, "a": {}}', 0, "the key 'a' stands there twice"),
        (
            '{"a": {"dtype": "F16", "dtype": "F16", "shape": [2], "data_offsets": [0, 4]}}',
            4,
            "stands there twice",
        ),
        (json.dumps({"a": entry(0, 4), "b": entry(2, 6)}), 6, "b overlaps another tensor"),
        (json.dumps({"a": entry(0, 4), "b": entry(0, 4)}), 4, "b overlaps another tensor"),
        (json.dumps({"a": entry(0, 4), "b": entry(6, 10)}), 10, "b begins after a gap"),
        (json.dumps({"a": entry(4, 0)}), 4, "unreadable header"),
        (json.dumps({"a": entry(0, 6)}), 6, "a has 6 bytes, its shape asks for 4"),
        (json.dumps({"a": entry(0, 4, shape=[-2])}), 4, r"a has the shape \[-2\]"),
        (json.dumps({"a": entry(0, 4, shape=[True])}), 4, r"a has the shape \[True\]"),
        (json.dumps({"a": entry(0, 4, shape="2")}), 4, "a has the shape '2'"),
        (json.dumps({"a": entry(0, 4, dtype="F99")}), 4, r"unknown type of numbers \(F99\)"),
        (
            json.dumps({"a": {"dtype": "F16", "shape": [2]}}),
            4,
            "unreadable header .the tensor 'a' has no data_offsets",
        ),
        (json.dumps({"a": {"dtype": "F16", "data_offsets": [0, 4]}}), 4, "the tensor 'a' has no shape"),
        (json.dumps({"a": {"dtype": None, "shape": [2], "data_offsets": [0, 4]}}), 4, "'a' has no dtype"),
        (json.dumps({"a": 3}), 4, "the tensor 'a' has no dtype"),
        (json.dumps({"b": None}), 0, "the tensor 'b' has no dtype"),
        ("{" + "[" * 100_000, 0, "unreadable header"),
        ("{\xff", 0, "unreadable header"),
    ],
)
def test_a_false_header_is_refused(tmp_path: Path, text: str, data: int, words: str) -> None:
    with pytest.raises(WrongFileError, match=words):
        read_header(written(tmp_path / "a.safetensors", text, data))


def test_too_many_tensors_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert headers.MAX_TENSORS == 20_000
    monkeypatch.setattr(headers, "MAX_TENSORS", 3)
    tensors = {str(i): torch.zeros(1) for i in range(4)}
    save_file(tensors, tmp_path / "a.safetensors")
    torch.save(tensors, tmp_path / "a.pth")
    for name in ("a.safetensors", "a.pth"):
        with pytest.raises(WrongFileError, match="a file of more than 20,000 tensors"):
            read_header(tmp_path / name)
    del tensors["3"]
    save_file(tensors, tmp_path / "a.safetensors")
    assert len(read_header(tmp_path / "a.safetensors")) == 3


def test_contents_decide_and_not_the_name(tmp_path: Path) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "a.pth")
    torch.save({"params": {"a": torch.zeros(2)}, "params_ema": {"a": torch.ones(2)}}, tmp_path / "b.tar")
    assert contents_of(tmp_path / "a.pth") == "safetensors" and contents_of(tmp_path / "b.tar") == "torch"
    for name, wrapper in (("a.pth", None), ("b.tar", "params_ema")):
        tensors, found = read_wrapped(tmp_path / name)
        assert found == wrapper and torch.equal(tensors["a"], torch.ones(2))
        assert read_header(tmp_path / name) == {"a": Weight((2,), "F32")}


def test_an_index_is_read_in_one_way(tmp_path: Path) -> None:
    assert listed_files(tmp_path, "model.safetensors") is None
    index = write_json(
        tmp_path / "model.safetensors.index.json",
        {"weight_map": {"a": "2.safetensors", "b": "1.safetensors"}},
    )
    with pytest.raises(FileNotFoundError, match="1.safetensors is missing, one of the 2 parts"):
        listed_files(tmp_path, "model.safetensors")
    for i in (1, 2):
        (tmp_path / f"{i}.safetensors").touch()
    both = [tmp_path / "1.safetensors", tmp_path / "2.safetensors"]
    assert listed_files(tmp_path, "model.safetensors") == parts_of(index) == both
    (tmp_path / "model.safetensors").touch()
    assert listed_files(tmp_path, "model.safetensors") == [tmp_path / "model.safetensors"]


def test_json_says_what_it_got(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    for content, words in (
        (b"[1]", "expected a JSON object, got list"),
        (b"{", "is not valid JSON"),
        (b"<html>", "a web page"),
        (b"", "an empty file"),
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=words):
            read_object(path)


PLAIN = {"a.weight": Weight((8, 4), "F16"), "a.bias": Weight((8,), "F16"), "b.weight": Weight((8, 4), "F16")}


def stored_as(format_name: str, *more: str) -> dict[str, Weight]:
    form = FORMATS[format_name]
    return {
        **PLAIN,
        "a.weight": Weight((8, 4 // form.packed), form.dtype),
        **{f"a.{scale}": Weight((), "F32") for scale in form.scales},
        **{name: Weight((20,), "U8") for name in more},
    }


@pytest.mark.parametrize("name", FORMATS)
def test_a_layout_is_looked_through(name: str) -> None:
    header = stored_as(name, "a.comfy_quant", "a.input_scale")
    stored = look_through(header, {"a": name})
    assert {key: weight.shape for key, weight in stored.weights.items()} == {
        k: w.shape for k, w in PLAIN.items()
    }
    assert stored.layout == "comfy_quant" and stored.formats == {"a": name} and not stored.undescribed
    check_formats(stored, header)
    assert look_through(PLAIN).layout == "plain" and look_through(PLAIN).weights == PLAIN


def older(*without: str) -> dict[str, Weight]:
    header = {
        **PLAIN,
        "a.weight": Weight((8, 4), "F8_E4M3"),
        "a.scale_weight": Weight((), "F32"),
        "a.scale_input": Weight((), "F32"),
        "scaled_fp8": Weight((2,), "F8_E4M3"),
    }
    return {name: weight for name, weight in header.items() if name not in without}


def test_the_older_layout_is_looked_through() -> None:
    stored = look_through(older())
    assert stored.layout == "scaled_fp8" and stored.formats == {"a": "float8_e4m3fn"}
    assert stored.weights.keys() == PLAIN.keys()
    check_formats(stored, older())


FP8 = "float8_e4m3fn"
CONV = {"a.weight": Weight((8, 4, 3, 3), "F8_E4M3")}


@pytest.mark.parametrize(
    ("header", "formats", "words"),
    [
        (older("scaled_fp8"), {}, r"nothing says in which format \(first a\)"),
        (stored_as(FP8), {}, r"nothing says in which format \(first a\)"),
        (stored_as(FP8), {"a": "fp3"}, "quantised as 'fp3', which is none of float8_e4m3fn"),
        (stored_as("int8_tensorwise"), {"a": FP8}, "is stored in F8_E4M3; a is in I8"),
        (
            {**stored_as(FP8), **CONV},
            {"a": FP8},
            "in its convolutions too .first a.; ComfyUI reads only linear",
        ),
        ({**older(), **CONV}, {}, "in its convolutions too"),
        (
            {**PLAIN, **{"a.weight": Weight((8, 4), "F8_E4M3"), "a.comfy_quant": Weight((9,), "U8")}},
            {"a": FP8},
            "a.weight_scale is missing",
        ),
        ({**PLAIN, "a.weight.absmax": Weight((1,), "F32")}, {}, "stored by bitsandbytes"),
    ],
)
def test_what_a_reader_would_scale_wrongly_is_refused(
    header: dict[str, Weight], formats: dict[str, str], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        check_formats(look_through(header, formats), header)


def test_formats_are_read_from_entries_and_from_metadata(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    entries = {
        "net.a.comfy_quant": b'{"format": "nvfp4"}',
        "net.b.comfy_quant": b'{"format": "float8_e4m3fn"}',
    }
    tensors = {name: torch.tensor(list(text), dtype=torch.uint8) for name, text in entries.items()}
    layers = {"net.b": {"format": "float8_e5m2"}, "c": {"format": "mxfp8"}}
    save_file(tensors, path, {"_quantization_metadata": json.dumps({"layers": layers}), "by": "me"})
    assert read_metadata(path)["by"] == "me"
    found = read_formats([path], [read_header(path)], "net.")
    assert found == {"a": "nvfp4", "b": "float8_e5m2", "c": "mxfp8"}
    for text, words in ((b"{", "is not valid JSON"), (b"[]", "got list"), (b"{}", "names no 'format'")):
        save_file({"a.comfy_quant": torch.tensor(list(text), dtype=torch.uint8)}, path)
        with pytest.raises(ValueError, match=words):
            read_formats([path], [read_header(path)])
    save_file({"a.comfy_quant": torch.zeros(3)}, path)
    with pytest.raises(ValueError, match="not a text in bytes but torch.float32"):
        read_formats([path], [read_header(path)])
    save_file({"a": torch.zeros(3)}, path, {"_quantization_metadata": "{}"})
    with pytest.raises(ValueError, match="has no 'layers'"):
        read_formats([path], [read_header(path)])


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"
    write_text(path, "one\r\n")
    assert path.read_bytes() == b"one\r\n"
    with pytest.raises(RuntimeError), replacing(path) as temporary:
        temporary.write_text("half")
        assert path.read_bytes() == b"one\r\n"
        raise RuntimeError
    assert [one.name for one in path.parent.iterdir()] == ["a.txt"] and path.read_bytes() == b"one\r\n"
    write_bytes(path, b"two")
    assert path.read_bytes() == b"two" and len(list(path.parent.iterdir())) == 1


def test_what_cannot_be_put_in_place_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a"
    (path / "full").mkdir(parents=True)  # a folder stands in the way
    with pytest.raises(OSError):
        write_text(path, "x")
    assert [one.name for one in tmp_path.iterdir()] == ["a"]


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_private_files_are_private(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        write_text(tmp_path / "open", "x")
        write_text(tmp_path / "private", "x", mode=0o600)
    finally:
        os.umask(before)
    modes = {name: (tmp_path / name).stat().st_mode & 0o777 for name in ("open", "private")}
    assert modes == {"open": 0o644, "private": 0o600}


def test_everything_is_on_the_disk_before_the_name_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llmga.files import writing

    done: list[str] = []
    replace, fsync = os.replace, os.fsync
    monkeypatch.setattr(writing.os, "replace", lambda a, b: (done.append("replace"), replace(a, b)))
    monkeypatch.setattr(writing.os, "fsync", lambda handle: (done.append("fsync"), fsync(handle)))
    write_text(tmp_path / "a", "x")
    assert done[:2] == ["fsync", "replace"]


def test_many_writers_leave_one_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    texts = [str(i) * 100_000 for i in range(8)]
    threads = [threading.Thread(target=write_text, args=(path, text)) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_text() in texts and len(list(tmp_path.iterdir())) == 1
