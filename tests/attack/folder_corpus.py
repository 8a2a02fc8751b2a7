"""What may be wrong in a language model's folder: its JSON files, its chat template, its settings, its tokenizer."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from .file_corpus import Change, replaced, rewrite


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
        rewrite(path, json.dumps(document).encode())

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
    rewrite(path, b"\xef\xbb\xbf" + path.read_bytes())


def template(text: str) -> Change:
    return lambda path, rng: rewrite(path, json.dumps({"chat_template": text}).encode())


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
