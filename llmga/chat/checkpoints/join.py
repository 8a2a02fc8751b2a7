"""Join a language model with a CLIP vision tower: a LLaVA with an untrained projector, which stage 1 then trains.

It is what the official scripts build in memory from ``--model_name_or_path`` and ``--vision_tower`` before
``pretrain_vicuna_7b.sh`` trains the projector alone.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...files.json_files import read_object
from ...files.tensors import Tensors, model_files, read_files
from ...files.writing import require_empty
from ..folder_check import check_configs, one_kind_of_error
from .convert import write_checkpoint
from .families import FAMILIES, IMAGE, Family, find_family
from .names import from_official
from .official import (
    OFFICIAL_TYPES,
    Checkpoint,
    check_against_model,
    check_sentencepiece,
    find_eos_ids,
    llava_config,
    undo_scale,
)
from .processing import ImageToken, find_image_token
from .slow_tokenizer import read_language_tokenizer
from .template import ending_ids, fitting_template
from .vision import read_tower

_log = logging.getLogger(__name__)

_EMBED, _HEAD = "language_model.model.embed_tokens.weight", "language_model.lm_head.weight"
_NEW_ROWS = 64
"""Rows that are added to the embedding where none is left for a picture; a multiple that GPUs multiply fast."""


@dataclass(frozen=True)
class JoinOptions:
    """Settings of a join.

    Args:
        family: the transcript that the model will be trained on, a key of ``FAMILIES``; None takes the language model's.
        seed: of the projector's random weights.
    """

    family: str | None = None
    seed: int = 0


def join(language: Path, tower: Path, out: Path, options: JoinOptions | None = None) -> Family:
    """Write a LLaVA of transformers (``llava-hf`` names) from a language model and a vision tower.

    The weights of both are copied as they are stored. The projector's are random. A token of the language model that no
    text becomes stands for a picture; where there is none, ``<image>`` is added, its row the mean of all rows.

    Args:
        language: a transformers folder of a causal language model (Vicuna, Llama, Mistral, Qwen, Phi-3, Gemma or any other
            whose tensors are named ``model.…`` and ``lm_head``), as safetensors or ``.bin``.
        tower: a CLIP vision model, a transformers folder or one file.
        out: a folder that is not there yet, or empty.

    Returns:
        The family whose transcript the folder has.

    Raises:
        FileNotFoundError: a folder or one of its files is missing.
        FileExistsError: ``out`` holds something.
        ValueError: one of the two is not what it should be, or the family is not told or does not fit the tokenizer.

    Source: LLMGA 7e32eb6, llmga/llava/model/llava_arch.py:56-77.
    """
    require_empty(out)
    options = options or JoinOptions()
    text_type = check_configs(language)
    config = read_object(language / "config.json")
    _check_causal(language, text_type)
    check_sentencepiece(language)
    with one_kind_of_error(language):
        tokenizer = read_language_tokenizer(language, text_type)
    family = _family(language, config, tokenizer, options.family)
    weights = _read_language(language)
    vision, found = read_tower(tower)
    image_token = _image_token(tokenizer, weights)
    fitting_template(family, tokenizer, image_token.token or IMAGE)  # says which family does not fit
    config["vocab_size"] = weights[_EMBED].shape[0]
    with one_kind_of_error(language):
        llava = llava_config(config, vision, family, image_token, text_type)
    weights |= found
    weights |= random_projector(
        llava.vision_config.hidden_size,
        llava.text_config.hidden_size,
        options.seed,
        weights["language_model.model.norm.weight"].dtype,
    )
    if check_against_model(language.name, llava, weights):
        undo_scale(weights, llava.text_config.hidden_size)
    ends = tuple(sorted({*find_eos_ids(language, config), *ending_ids(family, tokenizer)}))
    write_checkpoint(
        Checkpoint(out.name, family, llava, weights, tokenizer, image_token, ends, processor_folder=None), out
    )
    _log.info("%s: joined %s and %s for the transcript %s", out.name, language.name, tower.name, family.name)
    return family


def random_projector(vision: int, text: int, seed: int, dtype: torch.dtype) -> Tensors:
    """Two layers from the tower's width to the language model's, as PyTorch begins every layer.

    Source: LLMGA 7e32eb6, llmga/llava/model/multimodal_projector/builder.py:33-51 (``mlp2x_gelu``).
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = {"linear_1": nn.Linear(vision, text), "linear_2": nn.Linear(text, text)}
    return {
        f"multi_modal_projector.{name}.{part}": value.detach().to(dtype)
        for name, layer in layers.items()
        for part, value in layer.named_parameters()
    }


def _check_causal(folder: Path, text_type: str) -> None:
    from transformers import CONFIG_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING

    known = text_type in CONFIG_MAPPING
    if not known or CONFIG_MAPPING[text_type] not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise ValueError(
            f"{folder.name!r} has the model_type {text_type!r}, which is not a language model of the installed "
            "transformers"
        )
    if CONFIG_MAPPING[text_type] in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        raise ValueError(f"{folder.name!r} ({text_type}) sees pictures already; give a model of text alone")


def _family(folder: Path, config: dict[str, Any], tokenizer: Any, name: str | None) -> Family:
    if name is not None:
        if name not in FAMILIES:
            raise ValueError(f"family must be one of {', '.join(FAMILIES)}, got {name!r}")
        return FAMILIES[name]
    official = OFFICIAL_TYPES.get(config["model_type"])
    if official is None:
        raise ValueError(
            f"{folder.name!r} has the model_type {config['model_type']!r}, of no family of LLMGA; name the transcript "
            f"to train it on in family: {', '.join(FAMILIES)}"
        )
    named = {"_name_or_path": folder.name, **config, "model_type": official}
    return find_family(named, tokenizer)


def _read_language(folder: Path) -> Tensors:
    weights: Tensors = {}
    for name, value in read_files(model_files(folder)).items():
        try:
            known = from_official(name)
        except ValueError as error:
            raise ValueError(
                f"{folder.name!r}: its tensor {name!r} is not one of a language model that can be joined (model.… and "
                "lm_head)"
            ) from error
        if known is not None:
            weights[known] = value
    if _EMBED not in weights:
        raise ValueError(f"{folder.name!r} lacks the tensor model.embed_tokens.weight")
    return weights


def _image_token(tokenizer: Any, weights: Tensors) -> ImageToken:
    """The token that stands for a picture; the embedding grows if every row of it is some text."""
    from tokenizers import AddedToken

    rows = weights[_EMBED].shape[0]
    try:
        found = find_image_token(tokenizer, rows)
    except ValueError:
        for name in {_EMBED, _HEAD} & weights.keys():
            table = weights[name]
            mean = table.float().mean(0, keepdim=True).to(table.dtype)
            weights[name] = torch.cat([table, mean.expand(_NEW_ROWS, -1)])
        found = find_image_token(tokenizer, rows + _NEW_ROWS)
    if found.token is None:
        tokenizer.add_tokens([AddedToken(IMAGE, normalized=False, special=True)], special_tokens=True)
        found = ImageToken(tokenizer.convert_tokens_to_ids(IMAGE), IMAGE)
    return found
