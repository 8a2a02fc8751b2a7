"""ComfyUI inside the test process: its modules, the pack's modules as ComfyUI sees them, tiny text encoders.

For host tests only.
"""

from __future__ import annotations

import importlib
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib.machinery import ModuleSpec
from importlib.util import module_from_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from tools.comfyui import find

from .tiny_clip import WIDTH_G, WIDTH_L, config, fill

ROOT = Path(__file__).resolve().parents[2]
PACK = "llmga_pack"


def comfy_path() -> Path | None:
    return find().path


def skip_reason() -> str | None:
    """Why host tests cannot run here, or None."""
    host = find()
    return f"no ComfyUI: {host.note}" if host.path is None else None


@lru_cache(maxsize=1)
def start() -> None:
    """Make ComfyUI importable on the CPU, writing only to a temporary base directory. Once per process, for
    good.

    ComfyUI goes first on the path: with the repository before it, our ``nodes`` would shadow its
    ``nodes.py``.
    """
    path = comfy_path()
    if path is None:
        raise RuntimeError(skip_reason())
    sys.path.insert(0, str(path))
    torch.set_num_threads(1)  # the models are tiny: on a busy machine more threads mostly wait for each other
    arguments = sys.argv
    sys.argv = ["main.py", "--cpu", "--base-directory", tempfile.mkdtemp(prefix="comfy-inprocess-")]
    try:
        # Before anything puts ComfyUI's comfy/ on the path, whose utils.py would take this name (0.20).
        importlib.import_module("utils.install_util")
        importlib.import_module("comfy.options").enable_args_parsing()
        importlib.import_module("comfy.cli_args")
        importlib.import_module("folder_paths")
    finally:
        sys.argv = arguments


def core_node(name: str) -> Any:
    """A node class of ComfyUI's own ``nodes.py``."""
    start()
    nodes = importlib.import_module("nodes")
    if Path(str(nodes.__file__)).parent != comfy_path():
        raise RuntimeError(f"'nodes' is {nodes.__file__}, not ComfyUI's; run host tests in their own process")
    return getattr(nodes, name)


def pack(module: str) -> ModuleType:
    """A module of the pack, e.g. ``nodes.encode``, inside a package of another name as in ``custom_nodes``.

    The root ``__init__.py`` is not run, so that one room can be tested while another is broken.
    """
    start()
    if PACK not in sys.modules:
        spec = ModuleSpec(PACK, loader=None, is_package=True)
        spec.submodule_search_locations = [str(ROOT)]
        sys.modules[PACK] = module_from_spec(spec)
    return importlib.import_module(f"{PACK}.{module}")


def tiny_clip(kind: str) -> Any:
    """A ``comfy.sd.CLIP`` with weights from the formula: "sd15", "sdxl", "sd3" (without its T5), "flux" or
    "qwen".

    The weights of "sd15" and "sdxl" are those of ``tiny_clip.clip_l`` and ``tiny_clip.clip_g``.
    """
    start()
    module, model, tokenizer, options = {
        "sd15": ("sd1_clip", "SD1ClipModel", "SD1Tokenizer", {}),
        "sdxl": ("sdxl_clip", "SDXLClipModel", "SDXLTokenizer", {}),
        "sd3": ("text_encoders.sd3_clip", "SD3ClipModel", "SD3Tokenizer", {"t5": False}),
        "flux": ("text_encoders.flux", "FluxClipModel", "FluxTokenizer", {}),
        "qwen": ("text_encoders.z_image", "ZImageTEModel", "ZImageTokenizer", {}),
    }[kind]
    source = importlib.import_module(f"comfy.{module}")
    target = SimpleNamespace(
        params=options, clip=getattr(source, model), tokenizer=getattr(source, tokenizer)
    )
    sizes = {
        "clip_l_model_config": config(WIDTH_L),
        "clip_g_model_config": config(WIDTH_G, "gelu"),
        "t5xxl_model_config": {"d_model": 8, "d_ff": 16, "d_kv": 4, "num_heads": 2, "num_layers": 2},
        "qwen3_4b_model_config": {
            "hidden_size": 8,
            "intermediate_size": 16,
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
        },
    }
    clip = importlib.import_module("comfy.sd").CLIP(target, model_options={"dtype": torch.float32, **sizes})
    for encoder, net in clip.cond_stage_model.named_children():
        parameters = net.transformer.named_parameters()
        fill(((name.removeprefix("text_model."), p) for name, p in parameters), encoder.removeprefix("clip_"))
    return clip


@contextmanager
def knowing_the_miniature() -> Iterator[Any]:
    """ComfyUI with the miniature's architecture, which it forgets afterwards; gives its ``folder_paths``."""
    start()
    supported, detection = (
        importlib.import_module(f"comfy.{name}") for name in ("supported_models", "model_detection")
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(supported, "models", list(supported.models))
        name = "unet_config_from_diffusers_unet"
        patch.setattr(detection, name, getattr(detection, name))
        importlib.import_module("miniworld.pack").register()
        yield importlib.import_module("folder_paths")
