"""The small files of a model folder, copied as this library understands them, for transformers to read.

What older versions, editors and publishers leave in a folder is put right on the way: a byte order mark, ``auto_map`` of a
family that transformers has built in, Phi-3's ``su``, and what LLaVA's processor once took from ``config.json``. The
folder itself is never written to, no Python file is ever copied, and no weights are.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..files.contents import check_is_file
from ..files.index import INDEX
from ..files.json_files import read_object
from ..files.kinds import shown

_TEXTS = (".json", ".jinja", ".txt")
_COPIED = (*_TEXTS, ".model", ".tiktoken", ".vocab")
MAX_BYTES = 200_000_000
"""Of one small file; the largest tokenizers have 35 MB."""
_BOM = b"\xef\xbb\xbf"
_LLAVAS = ("llava", "vipllava")
_WITHOUT_CLASS_TOKEN = ("siglip",)


@contextmanager
def folder_copy(folder: Path) -> Iterator[Path]:
    """A temporary folder with the sound small files of ``folder``; it is gone behind the block.

    Raises:
        ValueError: a file is no regular file, too long, or not valid JSON.
    """
    with tempfile.TemporaryDirectory(prefix="llmga-folder-") as place:
        copy = Path(place) / (folder.name or "model")
        copy.mkdir()
        for path in sorted(folder.iterdir()):
            hidden = path.name.startswith(".")
            if path.suffix in _COPIED and not hidden and not path.name.endswith(INDEX):
                _copy(path, copy / path.name)
        if (copy / "config.json").is_file():
            _complete_processor(copy, read_object(copy / "config.json"))
        yield copy


def cleaned(value: Any) -> Any:
    """A config without ``auto_map``, and with rope types under the names of today, at every depth."""
    if isinstance(value, list):
        return [cleaned(item) for item in value]
    if not isinstance(value, dict):
        return value
    found = {key: cleaned(item) for key, item in value.items() if key != "auto_map"}
    for key in ("rope_scaling", "rope_parameters"):
        if isinstance(rope := found.get(key), dict):
            found[key] = with_todays_rope_type(rope)
    return found


def with_todays_rope_type(rope: dict[str, Any]) -> dict[str, Any]:
    """Phi-3's ``su``, as transformers called ``longrope`` until 4.43."""
    return {
        key: "longrope" if key in ("type", "rope_type") and item == "su" else item
        for key, item in rope.items()
    }


def _copy(path: Path, to: Path) -> None:
    check_is_file(path)
    if (size := path.stat().st_size) > MAX_BYTES:
        raise ValueError(
            f"{shown(path)} has {size:,} bytes, more than any tokenizer or config; download it again"
        )
    if path.suffix not in _TEXTS:
        shutil.copyfile(path, to)
        return
    content = path.read_bytes().removeprefix(_BOM)
    if path.suffix == ".json" and "config" in path.name:
        config = read_object(path)
        if (clean := cleaned(config)) != config:
            content = json.dumps(clean, ensure_ascii=False).encode("utf-8", "surrogatepass")
    to.write_bytes(content)


def _complete_processor(copy: Path, config: dict[str, Any]) -> None:
    """Give LLaVA's processor what it took from the model's config until transformers 4.46.

    Source: https://github.com/huggingface/transformers/pull/33424, where the processor began to count a picture's tokens.
    """
    vision = config.get("vision_config")
    if not str(config.get("model_type")).startswith(_LLAVAS) or not isinstance(vision, dict):
        return
    path = copy / "processor_config.json"
    if not path.is_file() and not (copy / "preprocessor_config.json").is_file():
        return  # a text-only folder, or one without its processor: that has an error of its own
    settings = read_object(path) if path.is_file() else {}
    has_class_token = not str(vision.get("model_type", "clip_vision_model")).startswith(_WITHOUT_CLASS_TOKEN)
    known = {
        "patch_size": vision.get("patch_size", 14),
        "vision_feature_select_strategy": config.get("vision_feature_select_strategy", "default"),
        "num_additional_image_tokens": int(has_class_token),
    }
    missing = {key: value for key, value in known.items() if settings.get(key) is None and value is not None}
    if missing:
        path.write_text(json.dumps(settings | missing), encoding="utf-8")
