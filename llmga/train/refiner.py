"""The stage ``refiner``: LoRA on any vision-language or language model with a chat template, trained by TRL.

It teaches a model of today, such as Qwen3-VL or the text encoder of a painter, the mixture of LLMGA's tasks. Only the
adapters in the language model are trained; the vision tower stays as it is.
"""

from __future__ import annotations

import copy
import importlib.metadata
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from ..chat.engines.transformers_names import dtype_argument
from . import checkpoint
from .determinism import determinism, forked_random_state
from .loop import LoopConfig
from .refiner_rows import AnswerCollator, AnswerEncoder
from .refiner_trl import make_trainer, precision_of, sft_arguments, train_from_newest
from .run_config import check_config
from .stage1 import MixtureConfig

_OLDEST_TRL = "1.16"


@dataclass(frozen=True)
class RefinerConfig:
    loop: LoopConfig
    """``ema`` and ``sample_every`` are not for this stage; ``prefetch`` is how many processes prepare batches."""
    base: str = ""
    """A transformers folder (or Hub name) of a vision-language or language model with a chat template."""
    mixture: MixtureConfig = field(default_factory=MixtureConfig)
    max_length: int = 2048
    """Tokens; a longer conversation loses its end."""
    max_pixels: int = 1 << 20
    """A larger picture is scaled down to as many pixels, its aspect kept."""
    system: str = ""
    """Said before every conversation that brings no system text of its own."""
    gradient_checkpointing: bool = False
    lora_rank: int = 64
    lora_alpha: float = 16.0
    lora_dropout: float = 0.05
    merge: bool = True
    """Write the base with the adapters merged into it, beside the adapters alone."""
    export_dtype: Literal["float32", "float16", "bfloat16"] = "bfloat16"
    """Of the merged model."""

    def __post_init__(self) -> None:
        for name in ("max_length", "max_pixels", "lora_rank"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("ema", "sample_every"):
            if getattr(self.loop, name):
                raise ValueError(
                    f"loop.{name} must be 0: the stage refiner has none, got {getattr(self.loop, name)}"
                )


def run(config: RefinerConfig, output: Path) -> Path:
    """Train what a configuration describes, from the newest whole checkpoint in ``output`` or from the start.

    Writes ``checkpoints/``, ``log.jsonl``, ``adapter/`` (as PEFT reads it) and, with ``merge``, ``result/``, a
    transformers folder with the processor and its chat template. The samples, their order and all random numbers
    follow from the seed, and a checkpoint holds the optimizer and the generators: a run that was killed goes on as the
    one that was not.

    Returns:
        The folder ``result``, or ``adapter`` without ``merge``.

    Raises:
        ValueError: TRL is missing, the base cannot be taught or reads no pictures while the mixture has some, or the
            settings do not fit each other or the checkpoint.
        FloatingPointError: the loss, the gradient or the weights are no longer finite; nothing of them is saved.

    Source: TRL 1.16, ``SFTTrainer``, on the mixture of LLMGA's stage 1. Deviation: pictures keep their shape, where LLMGA
    squashes them to a square.
    """
    if not config.base:
        raise ValueError("base (a transformers folder of a model with a chat template) is needed")
    require_trl()
    check_config(config, output)
    from accelerate.state import AcceleratorState

    mixture = config.mixture.mixture(config.loop.seed)
    encoder = AnswerEncoder(load_processor(config.base), config.max_length, config.max_pixels)
    mixture.check(pictures=encoder.has_vision)
    net = load_base(config.base, precision_of(config.loop))
    collator = AnswerCollator(mixture, encoder, config.system)
    try:
        with determinism(config.loop.deterministic), forked_random_state():
            return _train(config, output, net, collator, {"examples": len(mixture)})
    finally:
        # accelerate keeps its settings for the life of the process; the next run may have others.
        AcceleratorState._reset_state()


def load_processor(base: str) -> Any:
    """The processor of a base; its tokenizer, where it reads words alone.

    Raises:
        ValueError: the base is not a chat model, or its files are not complete.
    """
    import transformers

    has_vision = _has_vision(base)
    reader: Any = transformers.AutoProcessor if has_vision else transformers.AutoTokenizer
    processor = reader.from_pretrained(base)
    if has_vision != hasattr(processor, "image_processor"):
        raise ValueError(f"{base}: preprocessor_config.json or processor_config.json is missing")
    if not processor.chat_template:  # fine-tunes keep it with the tokenizer alone
        processor.chat_template = getattr(processor, "tokenizer", processor).chat_template
    return processor


def load_base(base: str, precision: str) -> Any:
    """The network of a base: bfloat16 weights where ``precision`` is ``bf16``, else float32."""
    import transformers

    vision, words = transformers.AutoModelForImageTextToText, transformers.AutoModelForCausalLM
    model: Any = vision if _has_vision(base) else words
    return model.from_pretrained(
        base, **{dtype_argument(): torch.bfloat16 if precision == "bf16" else torch.float32}
    )


def _has_vision(base: str) -> bool:
    import transformers

    try:
        known = transformers.AutoConfig.from_pretrained(base)
    except OSError as error:
        raise ValueError(f"base {base!r} cannot be read: {error}") from error
    if type(known) in transformers.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        return True
    if type(known) in transformers.MODEL_FOR_CAUSAL_LM_MAPPING:
        return False
    raise ValueError(f"base is a {known.model_type!r}, which is neither a vision-language nor a chat model")


def lora_targets(net: Any) -> str:
    """A pattern, as PEFT reads it, of the linear layers of the language model without its output layer.

    Raises:
        ValueError: it has none, or they cannot be told from those of a vision tower.
    """
    names = [name for name, module in net.named_modules() if isinstance(module, torch.nn.Linear)]
    within = [name for name in names if "language_model." in name]
    if not within and any("vision" in name for name in names):
        raise ValueError(
            f"the language model of {type(net).__name__} cannot be told from its vision tower, which is not trained; take a "
            "base whose parts are called language_model and vision_tower, such as Qwen3-VL or Gemma 3"
        )
    chosen = [name for name in within or names if name.rpartition(".")[2] != "lm_head"]
    if not chosen:
        raise ValueError(f"{type(net).__name__} has no linear layers in its language model to adapt")
    layers = "|".join(sorted({re.escape(name.rpartition(".")[2]) for name in chosen}))
    return rf"(.*\.)?language_model\..*\.({layers})" if within else rf".*\.({layers})"


def _train(
    config: RefinerConfig, output: Path, net: Any, collator: AnswerCollator, identity: dict[str, int]
) -> Path:
    from peft import LoraConfig

    # Training writes into these what is not the result's: no cache, other end tokens.
    settings, generation = copy.deepcopy(net.config), copy.deepcopy(net.generation_config)
    processor = collator.encoder.processor
    alpha: Any = config.lora_alpha  # peft's type says int; it only divides by the rank
    lora = LoraConfig(
        r=config.lora_rank,
        lora_alpha=alpha,
        lora_dropout=config.lora_dropout,
        target_modules=lora_targets(net),
        task_type="CAUSAL_LM",
    )
    output.mkdir(parents=True, exist_ok=True)
    arguments = sft_arguments(config.loop, output, config.gradient_checkpointing)
    trainer = make_trainer(net, lora, collator, arguments, config.loop, processor)
    main = trainer.accelerator.is_main_process
    train_from_newest(trainer, collator, config, output, identity | {"lora_rank": config.lora_rank})
    folder = output / ("result" if config.merge else "adapter")
    if main:
        trained = trainer.accelerator.unwrap_model(trainer.model)
        partial = checkpoint.begin(output / "adapter")
        trained.save_pretrained(partial)
        processor.save_pretrained(partial)
        checkpoint.publish(partial, output / "adapter")
        if config.merge:
            dtype = getattr(torch, config.export_dtype)
            partial = checkpoint.begin(folder)
            merged = trained.merge_and_unload().to(dtype)
            settings.dtype = dtype
            merged.config, merged.generation_config = settings, generation
            merged.save_pretrained(partial)
            processor.save_pretrained(partial)
            checkpoint.publish(partial, folder)
    trainer.accelerator.wait_for_everyone()
    return folder


def require_trl() -> None:
    """Raise ``ValueError`` where TRL is missing or too old."""
    from packaging.version import Version

    try:
        found = importlib.metadata.version("trl")
    except importlib.metadata.PackageNotFoundError:
        found = ""
    if not found or Version(found) < Version(_OLDEST_TRL):
        raise ValueError(
            f"the stage refiner needs trl {_OLDEST_TRL} or newer, got "
            f"{found or 'none'}: pip install 'llmga[refiner]'"
        )
