"""Hostile files by name: changes of a good one, and whole folders of a language model gone wrong.

A change takes a folder or file that a loader takes, and breaks it in place.
"""

from __future__ import annotations

import json
import os
import pickle
import random
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

Change = Callable[[Path, random.Random], None]
CANARY = "llmga-attack-code-ran"


class Runs:
    """Unpickled, it runs a command."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> Any:
        return os.system, (f"touch '{self.place}'",)


def replaced(content: bytes | str) -> Change:
    data = content.encode() if isinstance(content, str) else content
    return lambda path, rng: _write(path, data)


def _write(path: Path, data: bytes) -> None:
    path.unlink(missing_ok=True)
    path.write_bytes(data)


def cut(path: Path, rng: random.Random) -> None:
    data = path.read_bytes()
    _write(path, data[: rng.randrange(len(data))])


def flipped(path: Path, rng: random.Random) -> None:
    data = bytearray(path.read_bytes())
    for _ in range(rng.choice((1, 4, 64))):
        data[rng.randrange(min(len(data), rng.choice((64, 4096, len(data)))))] ^= 1 << rng.randrange(8)
    _write(path, bytes(data))


def grown(path: Path, rng: random.Random) -> None:
    _write(path, path.read_bytes() + bytes(rng.randrange(1, 5000)))


def code(path: Path, rng: random.Random) -> None:
    _write(path, pickle.dumps(Runs(path.with_name(CANARY))))


def fifo(path: Path, rng: random.Random) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def folder(path: Path, rng: random.Random) -> None:
    path.unlink(missing_ok=True)
    path.mkdir()


def dangling(path: Path, rng: random.Random) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(path.with_name("not there"))


def loop(path: Path, rng: random.Random) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(path.name)


def gone(path: Path, rng: random.Random) -> None:
    path.unlink()


LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 4000000000\n"
ANY_FILE: dict[str, Change] = {
    "cut": cut,
    "flipped bits": flipped,
    "something after its end": grown,
    "empty": replaced(b""),
    "zeros": replaced(bytes(10_000)),
    "LFS pointer": replaced(LFS),
    "HTML page": replaced("<!DOCTYPE html><html><head><title>404</title></head></html>"),
    "GGUF": replaced(b"GGUF" + struct.pack("<IQQ", 3, 1, 1) + bytes(200)),
    "zip": replaced(b"PK\x03\x04" + bytes(300)),
    "code in a pickle": code,
    "FIFO": fifo,
    "folder": folder,
    "dangling link": dangling,
    "link to itself": loop,
    "missing": gone,
}


def header(change: Callable[[dict[str, Any]], Any]) -> Change:
    """Another header of a safetensors file, with the bytes as they are."""

    def apply(path: Path, rng: random.Random) -> None:
        data = path.read_bytes()
        (length,) = struct.unpack("<Q", data[:8])
        tensors = json.loads(data[8 : 8 + length])
        text = change(tensors)
        text = (text if isinstance(text, str) else json.dumps(tensors)).encode()
        _write(path, struct.pack("<Q", len(text)) + text + data[8 + length :])

    return apply


def first(tensors: dict[str, Any]) -> dict[str, Any]:
    return next(value for name, value in tensors.items() if name != "__metadata__")


def every(path: Path, change: Callable[[Any], Any]) -> None:
    """All tensors of a safetensors file changed."""
    from safetensors.torch import load_file, save_file

    tensors = {name: change(value.clone()).contiguous() for name, value in load_file(path).items()}
    path.unlink()
    save_file(tensors, path, {"format": "pt"})


def one_value(value: float) -> Change:
    def change(tensor: Any) -> Any:
        if tensor.is_floating_point() and tensor.numel():
            tensor.view(-1)[0] = value
        return tensor

    return lambda path, rng: every(path, change)


def many_tensors(path: Path, rng: random.Random) -> None:
    empty = {f"t{i}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(100_000)}
    text = json.dumps(empty).encode()
    _write(path, struct.pack("<Q", len(text)) + text)


SAFETENSORS: dict[str, Change] = {
    "header of 2**63 bytes": replaced(struct.pack("<Q", 2**63) + b"{}"),
    "header that is a list": header(lambda _: "[]"),
    "header without an end": header(lambda _: "{" * 2000),
    "100,000 tensors": many_tensors,
    "shape of 10**12": header(lambda t: first(t).update(shape=[10**6, 10**6])),
    "shape of infinity": header(lambda t: json.dumps(t).replace("[", "[1e999, ", 1)),
    "negative shape": header(lambda t: first(t).update(shape=[-1])),
    "shape of text": header(lambda t: first(t).update(shape=["a"])),
    "no shape": header(lambda t: first(t).pop("shape")),
    "scalar shape": header(lambda t: first(t).update(shape=[])),
    "unknown type": header(lambda t: first(t).update(dtype="Q7")),
    "offsets beyond the end": header(lambda t: first(t).update(data_offsets=[0, 10**15])),
    "offsets turned": header(lambda t: first(t).update(data_offsets=[100, 0])),
    "offsets of text": header(lambda t: first(t).update(data_offsets=["0", "1"])),
    "tensor that is null": header(lambda t: t.update(zzz=None)),
    "metadata that is a list": header(lambda t: t.update(__metadata__=[1])),
    "name that is an attribute": header(lambda t: t.update({"a.__class__.__init__": first(t)})),
    "NaN weight": one_value(float("nan")),
    "infinite weight": one_value(float("inf")),
    "integer weights": lambda path, rng: every(path, lambda t: t.int()),
    "truth values": lambda path, rng: every(path, lambda t: t.bool()),
    "complex weights": lambda path, rng: every(path, lambda t: t.to(__import__("torch").complex64)),
    "double weights": lambda path, rng: every(path, lambda t: t.double()),
    "transposed": lambda path, rng: every(path, lambda t: t.transpose(0, -1) if t.ndim > 1 else t),
    "flattened": lambda path, rng: every(path, lambda t: t.flatten()),
    "scalars": lambda path, rng: every(path, lambda t: t.flatten()[:1].reshape(())),
}
MUST_REFUSE = {
    "cut", "something after its end", "empty", "zeros", "LFS pointer", "HTML page", "GGUF", "zip", "code in a pickle",
    "FIFO", "folder", "dangling link", "link to itself", "missing", "NaN weight", "infinite weight", "integer weights",
    "truth values", "complex weights", "100,000 tensors", "shape of 10**12", "header that is a list",
}  # fmt: skip
"""Changes of weights after which nothing may be loaded."""


def edited(**values: Any) -> Change:
    """Keys of a JSON file set; dots go into objects, and ``...`` takes a key away."""

    def apply(path: Path, rng: random.Random) -> None:
        document = json.loads(path.read_text(encoding="utf-8"))
        for name, value in values.items():
            *way, last = name.split("__in__")
            inner = document
            for step in way:
                inner = inner.setdefault(step, {})
            if value is ...:
                inner.pop(last, None)
            else:
                inner[last] = value
        _write(path, json.dumps(document).encode())

    return apply


JSON_FILE: dict[str, Change] = {
    "list": replaced("[]"),
    "text": replaced('"x"'),
    "null": replaced("null"),
    "number of 6,000 digits": replaced("1" * 6000),
    "nested 100,000 deep": replaced('{"a":' * 100_000),
    "lone surrogate": replaced('{"a": "\\ud800"}'),
    "NaN": replaced('{"a": NaN}'),
    "not UTF-8": replaced(b'{"a": "\xff\xfe"}'),
    "UTF-16": replaced('{"a": 1}'.encode("utf-16")),
    "twice the same key": replaced('{"a": 1, "a": 2}'),
    "comment": replaced('{"a": 1} // b'),
}


def with_bom(path: Path, rng: random.Random) -> None:
    _write(path, b"\xef\xbb\xbf" + path.read_bytes())


def template(text: str) -> Change:
    return lambda path, rng: _write(path, json.dumps({"chat_template": text}).encode())


TEMPLATES = {
    "division by zero": "{{ 1/0 }}",
    "10**10 letters": "{{ 'a'*10**10 }}",
    "nested loops": "{% for i in range(99999) %}{% for j in range(99999) %}{% for k in range(99999) %}"
    + "{% endfor %}" * 3,
    "loop of 10**12": "{% for i in range(10**12) %}{% endfor %}",
    "a gigabyte": "{% for i in range(9999) %}{{ 'a' * 99999 }}{% endfor %}",
    "globals": "{{ cycler.__init__.__globals__.os.system('touch /tmp/llmga-attack-canary') }}",
    "classes": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "unknown filter": "{{ messages | nothing }}",
    "syntax": "{% for %}",
    "text alone": "hello",
    "empty": "",
    "attribute of nothing": "{{ messages[99].content.x.y }}",
    "raises": "{{ raise_exception('no') }}",
    "sum of text": "{{ 1 + 'a' }}",
    "macro without end": "{% macro f(n) %}{{ f(n) }}{% endmacro %}{{ f(1) }}",
}
CONFIG: dict[str, Any] = {
    "heads 0": {"text_config__in__num_attention_heads": 0},
    "heads text": {"text_config__in__num_attention_heads": "x"},
    "heads 7": {"text_config__in__num_attention_heads": 7},
    "layers -1": {"text_config__in__num_hidden_layers": -1},
    "100,000 layers": {"text_config__in__num_hidden_layers": 100_000},
    "hidden size of text": {"text_config__in__hidden_size": "x"},
    "hidden size 10**9": {"text_config__in__hidden_size": 10**9},
    "hidden size 0": {"text_config__in__hidden_size": 0},
    "vocabulary 10**10": {"text_config__in__vocab_size": 10**10},
    "vocabulary 1": {"text_config__in__vocab_size": 1},
    "positions -1": {"text_config__in__max_position_embeddings": -1},
    "rope of text": {"text_config__in__rope_scaling": "x", "text_config__in__rope_parameters": "x"},
    "activation unknown": {"text_config__in__hidden_act": "nothing"},
    "text config a path": {"text_config": "/etc/passwd"},
    "text config null": {"text_config": None},
    "vision patch 0": {"vision_config__in__patch_size": 0},
    "vision patch 10**9": {"vision_config__in__patch_size": 10**9},
    "vision size 20,000": {"vision_config__in__image_size": 20_000},
    "vision size of text": {"vision_config__in__image_size": "x"},
    "vision 100,000 layers": {"vision_config__in__num_hidden_layers": 100_000},
    "vision config gone": {"vision_config": ...},
    "type unknown": {"model_type": "nothing"},
    "type gone": {"model_type": ...},
    "type a list": {"model_type": ["llava"]},
    "type a path": {"model_type": "../../x"},
    "own code": {
        "auto_map": {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"},
        "trust_remote_code": True,
    },
    "architecture unknown": {"architectures": ["Nothing"]},
    "image token text": {"image_token_index": "x", "image_token_id": "x"},
    "image token huge": {"image_token_index": 10**12, "image_token_id": 10**12},
    "dtype unknown": {"torch_dtype": "float7", "dtype": "float7"},
    "quantised": {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}},
    "layer unknown": {"vision_feature_layer": 99},
    "end id an object": {"eos_token_id": {"a": 1}},
    "attention unknown": {"attn_implementation": "nothing", "_attn_implementation": "nothing"},
}
PROCESSOR: dict[str, Any] = {
    "patch 0": {"patch_size": 0},
    "patch null": {"patch_size": None},
    "patch of text": {"patch_size": "x"},
    "strategy unknown": {"vision_feature_select_strategy": "nothing"},
    "class unknown": {"processor_class": "Nothing"},
}
PREPROCESSOR: dict[str, Any] = {
    "size 20,000": {
        "size": {"height": 20_000, "width": 20_000},
        "crop_size": {"height": 20_000, "width": 20_000},
    },
    "size 0": {"size": {"height": 0, "width": 0}},
    "size of text": {"size": "x"},
    "deviation 0": {"image_std": [0, 0, 0]},
    "mean of two": {"image_mean": [0.5, 0.5]},
    "resample 99": {"resample": 99},
    "type unknown": {"image_processor_type": "Nothing"},
}
TOKENIZER: dict[str, Any] = {
    "model gone": {"model": ...},
    "model unknown": {"model__in__type": "Nothing"},
    "vocabulary a list": {"model__in__vocab": []},
    "merges of numbers": {"model__in__merges": [1, 2]},
    "broken regex": {
        "pre_tokenizer": {
            "type": "Split",
            "pattern": {"Regex": "(("},
            "behavior": "Isolated",
            "invert": False,
        }
    },
    "exploding normalisers": {
        "normalizer": {
            "type": "Sequence",
            "normalizers": [{"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 50}] * 6,
        }
    },
    "no added tokens": {"added_tokens": []},
    "added token of 10**12": {
        "added_tokens": [
            {
                "id": 10**12,
                "content": "<x>",
                "special": True,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
            }
        ]
    },
}


def copied(source: Path, target: Path) -> None:
    """A tree of hard links where that is possible: a change writes a new file."""
    shutil.copytree(source, target, copy_function=_linked)


def _linked(source: str, target: str) -> str:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
    return target
