"""Reader of official LLMGA checkpoints as published: whole, a LoRA, or a bare projector."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ..checkpoints.official import SAMPLING_DEFAULTS, is_official, read_checkpoint
from ..checkpoints.options import CheckpointOptions
from ..engines.local import LocalEngine
from ..engines.memory import memory_note
from ..engines.transformers_names import dtype_argument
from ..folder_bounds import check_image_processor
from ..folder_check import one_kind_of_error
from ..folder_copy import folder_copy
from .loaded import LOCAL_ONLY, check_loaded, log_dtype, quantise_loaded, read_sampling

reads = is_official


def load(folder: Path, dtype: torch.dtype | None, options: CheckpointOptions) -> LocalEngine:
    """The engine of an official checkpoint; see ``FolderReader.load``."""
    checkpoint = read_checkpoint(folder, options)
    import transformers

    llava: Any = transformers.LlavaForConditionalGeneration
    with one_kind_of_error(folder):
        net, info = llava.from_pretrained(
            None,
            config=checkpoint.config,
            state_dict=checkpoint.weights,
            **{dtype_argument(): checkpoint.dtype if options.weight_bits else dtype or checkpoint.dtype},
            output_loading_info=True,
        )
        check_loaded(info)
        checkpoint.weights.clear()  # the network holds them now
        quantised = (quantise_loaded(net, options.weight_bits, dtype),) if options.weight_bits else ()
        if checkpoint.eos_ids:
            net.generation_config.eos_token_id = list(checkpoint.eos_ids)
        processor: Any = checkpoint.processor()
        if checkpoint.processor_folder:
            with folder_copy(checkpoint.processor_folder) as copy:
                processor = transformers.AutoProcessor.from_pretrained(copy, **LOCAL_ONLY)
            check_image_processor(processor.image_processor, "its image processor")
        log_dtype(folder, net, dtype)
        own = (folder / "generation_config.json").is_file()
        sampling, said = read_sampling(folder if own else options.base or folder, SAMPLING_DEFAULTS)
        return LocalEngine(
            net, processor, folder.name, (*checkpoint.notes, *quantised, memory_note(net), *said), sampling
        )
