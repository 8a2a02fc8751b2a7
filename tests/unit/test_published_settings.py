"""The settings of every chat model that transformers knows are within the bounds for folders: its own defaults, as saved."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("transformers", reason="the defaults are transformers'")

import transformers
from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES as PROCESSORS
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
)

from llmga.chat.folder_bounds import (
    check_counts,
    check_dtypes,
    check_image_processor,
    check_preprocessor,
)

CHATS = sorted({*MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, *MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES})


def test_the_defaults_of_every_config_are_allowed() -> None:
    checked = 0
    for model_type in CHATS:
        try:
            config = transformers.CONFIG_MAPPING[model_type]().to_dict()
        except Exception:  # of some classes the defaults contradict each other
            continue
        check_counts(config, model_type)
        check_dtypes(config, model_type)
        checked += 1
    assert checked > 0.8 * len(CHATS)


def test_the_defaults_of_every_image_processor_are_allowed(tmp_path: Path) -> None:
    found = [PROCESSORS.get(model_type) or () for model_type in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES]
    names = {name for one in found for name in (one.values() if isinstance(one, dict) else one) if name}
    checked = 0
    for name in sorted(names):
        try:
            processor = getattr(transformers, name)()
        except Exception:  # needs a package that is not here, or arguments
            continue
        processor.save_pretrained(tmp_path)
        settings = json.loads((tmp_path / "preprocessor_config.json").read_text(encoding="utf-8"))
        check_preprocessor(settings, name)
        check_image_processor(processor, name)
        checked += 1
    assert checked > 10


def test_patches_and_tiles_have_bounds_of_their_own() -> None:
    tiles = {"size": {"height": 448, "width": 448}, "patch_size": 14}
    check_preprocessor({"max_patches": 4096, "patch_size": {"height": 16, "width": 16}}, "Kosmos-2.5")
    check_preprocessor({**tiles, "max_patches": 12}, "InternVL")
    for settings in (
        {**tiles, "max_patches": 4096},
        {"max_patches": 4096},
        {"max_patches": 4096, "patch_size": 0},
        {"max_patches": 10**6, "patch_size": 14},
        {"max_image_size": 4096},
    ):
        with pytest.raises(ValueError, match="max_patches must be a whole|max_image_size must be whole"):
            check_preprocessor(settings, "hostile")
