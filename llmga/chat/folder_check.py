"""Checks of a model folder before anything in it is used.

A folder is somebody else's data. Nothing in it may run code, reach outside it or unpickle, and the usual
accidents (half a download, a Git LFS pointer, a saved login page) get their own words, because a library's
error for them names none of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..files.header import MAX_TENSORS, Header, read_header
from ..files.index import listed_files
from ..files.json_files import read_object
from ..files.known_kinds import check_language_model
from .folder_bounds import check_counts, check_dtypes, check_layers, check_preprocessor, check_types
from .quantised_folders import KEY, check_quantisation, quant_method_of
from .tokenizer_bounds import check_tokenizer

LLMGA_TYPES = ("llava_llama", "llava_mistral", "llava_gemma", "llava_Phi3", "llava_Qwen2")
"""``model_type`` of the official checkpoints (LLMGA 7e32eb6, llmga/llava/model/language_model/llava_*.py)."""

_OWN_CODE = "asks to run code that comes with the model; delete it if transformers has this model built in"
REFUSED_KEYS = {
    "trust_remote_code": _OWN_CODE,
    "transformers_weights": "names another weight file than the one that is checked; delete it",
    KEY: "is only read at the top of a transformers folder's config.json; take the unquantised model",
}
"""Keys that no config of a folder may hold, at any depth, and why; ``check_quantisation`` says where one may."""

_LONGEST_REASON = 2000
_TEMPORARY = re.compile(r"[^\s'\"]{0,200}llmga-folder-[^\s'\"/\\]{0,20}[/\\]")
"""The place of a folder's sound copy."""
_PACKAGES = (
    "num2words",
    "timm",
    "sentencepiece",
    "protobuf",
    "tiktoken",
    "torchvision",
    "torchaudio",
    "einops",
    "accelerate",
    "bitsandbytes",
    "compressed-tensors",
    "gptqmodel",
    "optimum",
    "autoawq",
)
"""What some families of transformers need beside it (SmolVLM, Gemma 3n, …), and its quantisers."""
_OBJECTS = ("chat_template.json", "special_tokens_map.json", "added_tokens.json")
"""Files beside the configs of which transformers takes for granted that each is a JSON object."""
WEIGHT_INDEX = "model.safetensors.index.json"


def check_model_folder(folder: Path) -> Header:
    """Raise for a transformers folder that must not or cannot be loaded; its weights are not read.

    Returns:
        The header of all its weight files together.

    Raises:
        FileNotFoundError: the folder, its ``config.json``, its weights or one part of them is missing.
        ValueError: a config or ``tokenizer.json`` is not valid JSON, a config holds a key of ``REFUSED_KEYS``, the weights
            are only there as pickles or are not whole safetensors files, or the layout is not transformers' own.
    """
    model_type = check_configs(folder)
    if (folder / "adapter_config.json").exists():
        raise ValueError(
            f"{folder.name!r} is a LoRA adapter (adapter_config.json); choose a whole model in 'model'"
        )
    if model_type in LLMGA_TYPES:
        raise ValueError(
            f"{folder.name!r} has the layout of the official LLMGA code (model_type {model_type!r}), where "
            "transformers' own is needed; run `python -m llmga convert` on it"
        )
    check_tokenizer_files(folder)
    files = _weight_files(folder)
    header = {name: weight for path in files for name, weight in read_header(path).items()}
    if len(header) > MAX_TENSORS:
        raise ValueError(f"{folder.name!r} has {len(header):,} tensors; {MAX_TENSORS:,} are allowed")
    check_language_model(files[0], header)
    config = read_object(folder / "config.json")
    check_layers(config, header, f"{folder.name}/config.json")
    if quant_method_of(config) is None:
        check_types(header, folder.name)
    return header


def check_tokenizer_files(folder: Path) -> None:
    """Raise ``ValueError`` for a ``tokenizer.json`` that is damaged or makes a text too long."""
    if (tokenizer := folder / "tokenizer.json").exists():
        check_tokenizer(read_object(tokenizer), f"{folder.name}/tokenizer.json")


def check_configs(folder: Path) -> str:
    """The ``model_type`` of a folder whose configs are sound and ask for nothing that is refused.

    Raises:
        FileNotFoundError: there is no ``config.json``.
        ValueError: a config is not a JSON object or holds a key of ``REFUSED_KEYS``, or there is no ``model_type``, or its
            weights are quantised in a way that is not read.
    """
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(
            f"{folder.name!r} is not a model folder: it has no config.json; choose another 'model'"
        )
    found = sorted(folder.glob("*config*.json"))  # without the ._NAME that a Mac adds to each
    configs = {path.name: read_object(path) for path in found if not path.name.startswith(".")}
    for name in _OBJECTS:
        if (folder / name).exists():
            read_object(folder / name)
    model_type = configs["config.json"].get("model_type")
    if not _is_built_in(model_type):
        for name, config in configs.items():
            if "auto_map" in _keys(config):
                raise ValueError(f"{folder.name}/{name} has the key 'auto_map', which {_OWN_CODE}")
    if model_type not in LLMGA_TYPES:
        check_quantisation(configs["config.json"], f"{folder.name}/config.json")
        configs["config.json"].pop(KEY, None)
    for name, config in configs.items():
        for key in sorted(_keys(config) & REFUSED_KEYS.keys()):
            raise ValueError(f"{folder.name}/{name} has the key {key!r}, which {REFUSED_KEYS[key]}")
    if not isinstance(model_type, str):  # transformers would guess one from the folder's name
        raise ValueError(f"{folder.name}/config.json has no 'model_type'; download it again")
    for name, config in configs.items():
        if "preprocessor" in name or "processor" in name:
            check_preprocessor(config, f"{folder.name}/{name}")
    check_counts(configs["config.json"], f"{folder.name}/config.json")
    check_dtypes(configs["config.json"], f"{folder.name}/config.json")
    return model_type


def _is_built_in(model_type: Any) -> bool:
    """Whether the code of a model is transformers' or LLMGA's own, so that the folder's is not needed and left alone."""
    from transformers import CONFIG_MAPPING

    return isinstance(model_type, str) and (model_type in LLMGA_TYPES or model_type in CONFIG_MAPPING)


def _keys(config: dict[str, Any]) -> set[str]:
    """Every key at any depth that holds something."""
    found: set[str] = set()
    stack: list[Any] = [config]
    while stack:
        value = stack.pop()
        if isinstance(value, dict):
            found.update(key for key, item in value.items() if item is not None)
            stack.extend(value.values())
        elif isinstance(value, list):
            stack.extend(value)
    return found


def _weight_files(folder: Path) -> list[Path]:
    files = listed_files(folder, "model.safetensors")
    if files is None:
        if any(path.suffix == ".gguf" for path in folder.iterdir()):
            raise ValueError(
                f"{folder.name!r} has its weights as GGUF, which a llama.cpp server runs as they are: start `llama-server "
                "-m FILE.gguf` and connect LLMGA Endpoint; or take the safetensors files, with 'precision' int4"
            )
        pickles = sorted(path.name for path in folder.iterdir() if path.suffix in (".bin", ".pt", ".pth"))
        if pickles:
            raise ValueError(
                f"{folder.name!r} has its weights only as a pickle ({pickles[0]}), which can run code and is "
                "never opened; take its safetensors files, or convert it with transformers' save_pretrained"
            )
        raise FileNotFoundError(
            f"{folder.name!r} has no weights (model.safetensors or {WEIGHT_INDEX}); download it again"
        )
    return files


@contextmanager
def one_kind_of_error(folder: Path, what: str = "the language model") -> Iterator[None]:
    """Turn whatever a library raises for a bad folder into ``ValueError``, without any path of this machine."""
    try:
        yield
    except Exception as error:  # tokenizers raises plain Exception, huggingface_hub a class of its own
        words = str(error)[:_LONGEST_REASON] or type(error).__name__
        reason = _TEMPORARY.sub("", words.replace(str(folder), folder.name))
        bare = (ArithmeticError, LookupError, AttributeError, TypeError, MemoryError)
        reason = f"{type(error).__name__}: {reason}" if isinstance(error, bare) else reason
        raise ValueError(
            f"{what} {folder.name!r} cannot be loaded: {reason}{_missing_package(error)}"
        ) from error


def _missing_package(error: Exception) -> str:
    """What to install, where a model family needs a package that is not there."""
    if not isinstance(error, ImportError):
        return ""
    named = [package for package in _PACKAGES if package in f"{error} {error.name}".lower()]
    return f"; run `pip install {' '.join(named)}` with ComfyUI's Python" if named else ""
