"""Reader of folders in transformers' own layout, as ``save_pretrained`` writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ...files.tensors import check_finite
from ..checkpoints.options import CheckpointOptions
from ..checkpoints.slow_tokenizer import read_as_slow
from ..engines.local import LocalEngine
from ..engines.memory import memory_note
from ..engines.transformers_names import dtype_argument
from ..folder_bounds import check_image_processor, check_network
from ..folder_check import check_model_folder, one_kind_of_error
from ..folder_copy import folder_copy
from ..quantised_folders import KEY, ask_to_unpack, check_precision, quant_method_of, quantisation_note
from .loaded import (
    LOCAL_ONLY,
    check_loaded,
    log_dtype,
    quantise_loaded,
    read_sampling,
    stored_dtype,
)

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
    header = check_model_folder(folder)
    import transformers

    with one_kind_of_error(folder), folder_copy(folder) as copy:
        config = transformers.AutoConfig.from_pretrained(copy, **LOCAL_ONLY)
        method = quant_method_of({KEY: getattr(config, KEY, None)})
        check_precision(method, options.weight_bits)
        has_vision = type(config) in transformers.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
        if not has_vision and type(config) not in transformers.MODEL_FOR_CAUSAL_LM_MAPPING:
            raise ValueError(f"its model_type {config.model_type!r} is not a chat model")
        processor = _read_processor(copy, has_vision)
        auto: Any = (
            transformers.AutoModelForImageTextToText if has_vision else transformers.AutoModelForCausalLM
        )
        with torch.device("meta"):
            check_network(auto.from_config(config), header, folder.name, packed=method is not None)
        ask_to_unpack(config)
        net, info = auto.from_pretrained(
            folder,
            config=config,
            **LOCAL_ONLY,
            **{dtype_argument(): stored_dtype(header) if options.weight_bits else dtype or "auto"},
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # check_loaded names them
        )
        check_loaded(info)
        check_finite(net.named_parameters(), folder.name)
        quantised = (quantise_loaded(net, options.weight_bits, dtype),) if options.weight_bits else ()
        log_dtype(folder, net, dtype)
        sampling, said = read_sampling(folder)
        notes = (
            f"transformers folder, model_type {config.model_type}",
            *quantisation_note(method),
            *quantised,
            memory_note(net),
            *said,
        )
        return LocalEngine(net, processor, folder.name, notes, sampling)


def _read_processor(copy: Path, has_vision: bool) -> Any:
    """The folder's processor, or its tokenizer where the model has no vision."""
    import transformers

    auto = transformers.AutoProcessor if has_vision else transformers.AutoTokenizer
    processor = auto.from_pretrained(copy, **LOCAL_ONLY)
    if has_vision != hasattr(processor, "image_processor"):
        raise ValueError("its preprocessor_config.json or processor_config.json is missing")
    if has_vision:
        check_image_processor(processor.image_processor, "its image processor")
    tokenizer = getattr(processor, "tokenizer", processor)
    read_as_slow(tokenizer, copy)
    if not processor.chat_template:  # fine-tunes keep it with the tokenizer alone
        processor.chat_template = tokenizer.chat_template
    if not processor.chat_template:
        raise ValueError(
            "it has no chat template; add chat_template.jinja or chat_template.json from the model's page"
        )
    if _PROBE not in _round_trip(tokenizer, _PROBE):
        raise ValueError("its tokenizer knows no text; is tokenizer.json (or tokenizer.model) missing?")
    return processor


def _round_trip(tokenizer: Any, text: str) -> str:
    """A text encoded and decoded; a tokenizer without its files loads all the same, and encodes every text as nothing."""
    return tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"])
