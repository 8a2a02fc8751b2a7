"""Reader of folders in transformers' own layout, as ``save_pretrained`` writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ..checkpoints.options import CheckpointOptions
from ..engines.local import LocalEngine
from ..engines.transformers_names import dtype_argument
from ..folder_check import check_model_folder, one_kind_of_error
from .loaded import LOCAL_ONLY, check_loaded, log_dtype

_PROBE = "llmga-probe"


def reads(folder: Path) -> bool:
    """Every folder that no reader before it takes."""
    return True


def load(folder: Path, dtype: torch.dtype | None, options: CheckpointOptions) -> LocalEngine:
    """The engine of a transformers folder; see ``FolderReader.load``."""
    if options.base or options.vision_tower or options.family:
        raise ValueError(
            f"{folder.name!r} is not an official LLMGA checkpoint; leave 'base', 'vision_tower' and 'family' empty"
        )
    check_model_folder(folder)
    import transformers

    with one_kind_of_error(folder):
        config = transformers.AutoConfig.from_pretrained(folder, **LOCAL_ONLY)
        has_vision = type(config) in transformers.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
        if not has_vision and type(config) not in transformers.MODEL_FOR_CAUSAL_LM_MAPPING:
            raise ValueError(f"its model_type {config.model_type!r} is not a chat model")
        processor = _read_processor(folder, has_vision)
        auto: Any = (
            transformers.AutoModelForImageTextToText if has_vision else transformers.AutoModelForCausalLM
        )
        net, info = auto.from_pretrained(
            folder,
            **LOCAL_ONLY,
            **{dtype_argument(): dtype or "auto"},
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # check_loaded names them
        )
        check_loaded(info)
        log_dtype(folder, net, dtype)
        return LocalEngine(net, processor, folder.name)


def _read_processor(folder: Path, has_vision: bool) -> Any:
    """The folder's processor, or its tokenizer where the model has no vision."""
    import transformers

    auto = transformers.AutoProcessor if has_vision else transformers.AutoTokenizer
    processor = auto.from_pretrained(folder, **LOCAL_ONLY)
    if has_vision != hasattr(processor, "image_processor"):
        raise ValueError("its preprocessor_config.json or processor_config.json is missing")
    if not processor.chat_template:
        raise ValueError(
            "it has no chat template; add chat_template.jinja or chat_template.json from the model's page"
        )
    if _PROBE not in _round_trip(getattr(processor, "tokenizer", processor), _PROBE):
        raise ValueError("its tokenizer knows no text; is tokenizer.json (or tokenizer.model) missing?")
    return processor


def _round_trip(tokenizer: Any, text: str) -> str:
    """A text encoded and decoded; a tokenizer without its files loads all the same, and encodes every text as nothing."""
    return tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"])
