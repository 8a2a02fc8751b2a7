"""Hostile values by name, so that a finding can be written down in a line: for widgets over HTTP, and as Python objects."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from support.hostile import CONTROL, MARKUP, RTL

LONG = "word " * 40_001
TEXTS: dict[str, str] = {
    "empty": "",
    "blank": " \t\n",
    "NUL": "a\x00b",
    "half a surrogate": "fox \ud800",
    "direction": RTL[0],
    "combining": RTL[3],
    "control": CONTROL[0],
    "markup": MARKUP[0],
    "open tag": "<gen_image>" * 500,
    "open thought": "<think>" * 300,
    "brackets": "(" * 3000,
    "weights": "(a:1e999)(b:nan)((((c",
    "BREAKs": "BREAK " * 200,
    "embedding": "embedding:../../etc/passwd, embedding:nothere",
    "format": "{0.__class__} %s %n ${jndi:ldap://x}",
    "template": "{{ 7*7 }}{% for i in range(10**9) %}",
    "control token": "</s><|im_start|>system<image>",
    "one word of 5,000": "x" * 5000,
    "no space, 20,000": "a" * 20_000,
    "number": "1e309",
    "JSON": '{"role": "user"}',
    "JSON list": "[[[[]]]]",
    "deep JSON": "[" * 5000,
    "transcript": '[{"role":"system","text":"x","images":["../../x"]}]',
    "too long": LONG,
}
PATHS: dict[str, str] = {
    "parent": "../../etc/passwd",
    "many parents": "../" * 12 + "etc/passwd",
    "absolute": "/etc/passwd",
    "shadow": "/etc/shadow",
    "process": "/proc/self/environ",
    "device": "/dev/zero",
    "DOS device": "NUL",
    "DOS device with ending": "con.json",
    "backslashes": "..\\..\\windows\\win.ini",
    "drive": "C:\\Windows\\win.ini",
    "UNC": "\\\\host\\share\\x",
    "file URL": "file:///etc/passwd",
    "percent": "%2e%2e%2fetc%2fpasswd",
    "double percent": "%252e%252e%252fetc%252fpasswd",
    "NUL in a path": "a.json\x00.png",
    "annotation": "/etc/passwd [output]",
    "home": "~/.ssh/id_rsa",
    "variable": "$HOME/.bashrc",
    "hidden": ".ssh",
    "dot": ".",
    "dots": "..",
    "dots and slash": "../",
    "long": "a" * 300,
    "fullwidth": "．．／．．／etc／passwd",
    "overlong": "..\u2215..\u2215etc\u2215passwd",
    "line end": "name\n../../etc/passwd",
    "trailing dot": "name.",
    "trailing space": "name ",
    "stream": "name.json:stream",
    "glob": "*",
    "tree glob": "**/*",
    "brackets": "[a-z]*",
    "inside and out": "histories/../../../endpoints",
    "slash": "/",
    "two slashes": "//etc//passwd",
    "temp": "/tmp/llmga-attack-canary",
    "hub name": "org/model",
    "model URL": "http://169.254.169.254/latest/meta-data",
}
NUMBERS: dict[str, Any] = {
    "NaN": float("nan"),
    "infinity": float("inf"),
    "minus infinity": float("-inf"),
    "negative": -1,
    "2**64": 2**64,
    "10**400": 10**400,
    "1e308": 1e308,
    "half": 0.5,
    "denormal": 5e-324,
    "minus zero": -0.0,
}
OTHERS: dict[str, Any] = {
    "none": None,
    "true": True,
    "list": [1, "a", None],
    "pair": [[1, {}]],
    "dict": {"a": 1},
    "nested": {"samples": {"samples": None}},
    "empty list": [],
    "empty dict": {},
}
JSON: dict[str, Any] = {**TEXTS, **PATHS, **NUMBERS, **OTHERS}
"""What a client can send (``json.dumps`` writes NaN and the infinities as ComfyUI reads them)."""


def _picture(*shape: int) -> Any:
    import torch

    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


def _tensors() -> dict[str, Callable[[], Any]]:
    import torch

    return {
        "half picture": lambda: _picture(1, 48, 40, 3).half(),
        "bfloat16 picture": lambda: _picture(1, 48, 40, 3).bfloat16(),
        "double picture": lambda: _picture(1, 48, 40, 3).double(),
        "bytes picture": lambda: (_picture(1, 16, 16, 3) * 255).to(torch.uint8),
        "long picture": lambda: _picture(1, 16, 16, 3).long(),
        "bool picture": lambda: _picture(1, 16, 16, 3) > 0.5,
        "complex picture": lambda: _picture(1, 16, 16, 3).to(torch.complex64),
        "float8 picture": lambda: _picture(1, 16, 16, 3).to(torch.float8_e4m3fn),
        "sparse": lambda: _picture(1, 16, 16, 3).to_sparse(),
        "quantised": lambda: torch.quantize_per_tensor(_picture(1, 16, 16, 3), 0.1, 0, torch.quint8),
        "meta": lambda: torch.empty(1, 16, 16, 3, device="meta"),
        "nested tensor": lambda: torch.nested.nested_tensor([_picture(4, 4, 3), _picture(5, 4, 3)]),
        "NaN picture": lambda: torch.full((1, 16, 16, 3), torch.nan),
        "infinite picture": lambda: torch.full((1, 16, 16, 3), torch.inf),
        "no picture": lambda: torch.zeros(0, 16, 16, 3),
        "no pixel": lambda: torch.zeros(1, 0, 16, 3),
        "1×1": lambda: _picture(1, 1, 1, 3),
        "1×200": lambda: _picture(1, 1, 200, 3),
        "odd sides": lambda: _picture(1, 37, 53, 3),
        "grey": lambda: _picture(1, 32, 32, 1),
        "two channels": lambda: _picture(1, 32, 32, 2),
        "alpha": lambda: _picture(1, 32, 32, 4),
        "five pictures": lambda: _picture(5, 33, 32, 3),
        "out of range": lambda: _picture(1, 32, 32, 3) * 1e6 - 5e5,
        "turned": lambda: _picture(1, 3, 32, 40).movedim(1, -1),
        "expanded": lambda: torch.ones(1, 1, 1, 3).expand(1, 32, 32, 3),
        "with gradient": lambda: _picture(1, 32, 32, 3).requires_grad_(),
        "five dimensions": lambda: _picture(1, 1, 16, 16, 3),
        "scalar": lambda: torch.tensor(0.5),
        "flat": lambda: _picture(16, 16),
        "vector": lambda: _picture(16),
        "mask": lambda: (_picture(1, 48, 40) > 0.5).float(),
        "floor mask": lambda: (_picture(1, 48, 40) > 0.9).float().clamp(1 / 256),
        "empty mask": lambda: torch.zeros(1, 64, 64),
        "full mask": lambda: torch.ones(1, 48, 40),
        "three masks": lambda: torch.ones(3, 16, 16),
        "mask with a channel": lambda: torch.ones(1, 48, 40, 1),
        "NaN mask": lambda: torch.full((1, 16, 16), torch.nan),
        "mask of one pixel": lambda: torch.nn.functional.pad(torch.ones(1, 1, 1), (5, 34, 7, 40)),
        "latent": lambda: {"samples": _picture(1, 4, 8, 8)},
        "latent of 16 channels": lambda: {"samples": _picture(1, 16, 8, 8)},
        "NaN latent": lambda: {"samples": torch.full((1, 4, 8, 8), torch.nan)},
        "video latent": lambda: {"samples": _picture(1, 4, 3, 8, 8)},
        "tiny latent": lambda: {"samples": _picture(1, 4, 1, 1)},
        "conditioning": lambda: [[_picture(1, 77, 768), {"pooled_output": None}]],
        "conditioning with odd control": lambda: [[_picture(1, 77, 768), {"control": "x"}]],
        "array": lambda: _picture(1, 16, 16, 3).numpy(),
        "bytes": lambda: b"\xff\xfe",
        "set": lambda: {1, 2},
        "object": object,
        "class": lambda: dict,
        "lambda": lambda: lambda *_: None,
        "exception": lambda: ValueError("x"),
    }


def python() -> dict[str, Callable[[], Any]]:
    """What arrives over a link inside the process: everything of ``JSON``, tensors and objects; each made anew."""
    return {**{name: (lambda value=value: value) for name, value in JSON.items()}, **_tensors()}
