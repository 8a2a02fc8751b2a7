"""A checkpoint of the official LLMGA code, read from its folder as published, whole or with the parts it needs."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from ...files.header import header_of
from ...files.json_files import read_object
from ...files.known_kinds import check_language_model
from ...files.tensors import WHOLE, Tensors, check_finite, check_tensors, model_files, read_files
from ..folder_bounds import check_counts, check_layers, check_types
from ..folder_check import LLMGA_TYPES, check_configs, check_tokenizer_files, one_kind_of_error
from ..folder_copy import cleaned
from .adapters import PROJECTOR, first_file, merge_lora, read_projector
from .families import Family, chat_template, choose_family, log_choice
from .names import from_official, llava_hf_names, to_official_name
from .options import CheckpointOptions
from .processing import ImageToken, OfficialProcessor, find_image_token
from .slow_tokenizer import read_language_tokenizer
from .vision import INSIDE, declared_config, find_tower, read_tower

_log = logging.getLogger(__name__)

_TEXT_TYPES = ("llama", "mistral", "gemma", "phi3", "qwen2")
OFFICIAL_TYPES: dict[str, str] = dict(zip(_TEXT_TYPES, LLMGA_TYPES, strict=True))
"""The official ``model_type`` for that of the language model alone."""
_WANTED: dict[str, tuple[Any, ...]] = {
    "mm_projector_type": ("mlp2x_gelu",),
    "mm_vision_select_feature": ("patch", "cls_patch"),
    "mm_patch_merge_type": ("flat",),
    "mm_use_im_start_end": (False,),
}
"""What an official config may say, the first where it says nothing."""
_NOT_THE_TEXTS = (
    "model_type",
    "architectures",
    "use_mm_proj",
    "image_aspect_ratio",
    "tokenizer_",
    "mm_",
    "tune_mm",
    "freeze_mm",
    "unfreeze_mm",
    "torch_dtype",
    "dtype",
    "transformers_version",
    "_name_or_path",
)
_TOWER = "vision_tower."
_GENERATION = "generation_config.json"
SAMPLING_DEFAULTS: Mapping[str, Any] = MappingProxyType({"top_k": 50})
"""What transformers 4.37.2 takes, and leaves out of a generation_config.json that it writes."""
_SAMPLING = ("top_k", "repetition_penalty")
_SENTENCEPIECE = {"sentencepiece": "sentencepiece", "protobuf": "google.protobuf"}
"""The packages that read a ``tokenizer.model``, and the module that each brings."""


@dataclass(frozen=True)
class Checkpoint:
    """Everything of a checkpoint, checked and complete.

    Args:
        name: the folder's.
        family: whose transcript it was trained on.
        config: transformers' ``LlavaConfig``.
        weights: under llava-hf names, as stored.
        tokenizer: the folder's own, untouched.
        image_token: the token that stands for one feature of a picture.
        eos_ids: token ids that the folder itself names as the end of a reply.
        processor_folder: the folder that brings a processor and a template of its own, as
            ``llmga.train.llava_layouts`` writes them.
        notes: what was found and guessed, a sentence each.
        sampling: the settings of its generation_config.json that a converted folder keeps, as they stand there.
    """

    name: str
    family: Family
    config: Any
    weights: Tensors
    tokenizer: Any
    image_token: ImageToken
    eos_ids: tuple[int, ...]
    processor_folder: Path | None
    notes: tuple[str, ...] = ()
    sampling: Mapping[str, Any] = field(default_factory=dict)

    @property
    def dtype(self) -> torch.dtype:
        """The type that its language model is stored in."""
        return self.weights["language_model.model.norm.weight"].dtype

    def processor(self) -> OfficialProcessor:
        """Reads conversations as the training did."""
        return OfficialProcessor(
            self.tokenizer,
            chat_template(self.family),
            self.image_token,
            self.config.vision_config.image_size,
            self.config.image_seq_length,
        )


def is_official(folder: Path) -> bool:
    """Whether a folder is one of the official layout, a bare projector or a LoRA; raises nothing."""
    if first_file(folder, PROJECTOR) and not _holds_a_model(folder):
        return True
    try:
        return read_object(folder / "config.json").get("model_type") in LLMGA_TYPES
    except (OSError, ValueError):
        return False


def read_checkpoint(folder: Path, options: CheckpointOptions | None = None) -> Checkpoint:
    """Read a checkpoint: a whole model, a LoRA or a bare projector.

    Args:
        folder: with ``config.json``, the weights as safetensors or ``.bin``, and the tokenizer.
        options: what it may need beside; a complete checkpoint needs nothing.

    Raises:
        FileNotFoundError: a folder or one of its files is missing.
        ValueError: a file is damaged or asks to run code; a tensor is missing, unexpected or of another shape (it is
            named); or the config asks for what LLMGA's models do not have.
    """
    options = options or CheckpointOptions()
    notes: list[str] = []
    base, vision_tower = options.base, options.vision_tower
    partial = bool(first_file(folder, PROJECTOR) or (folder / "adapter_config.json").is_file())
    partial = partial and not _holds_a_model(folder)
    if partial and base is None:
        raise ValueError(
            f"{folder.name!r} holds no language model; name the folder of its base model in 'base'"
        )
    if base is not None and not partial:
        raise ValueError(f"{folder.name!r} is a whole model; leave 'base' empty")
    official = _official_config(folder, base)
    _check_official(folder.name, official)
    if vision_tower is None and _holds_a_model(folder / INSIDE):
        vision_tower = folder / INSIDE
    vision = {} if vision_tower else _declared_tower(folder, official)
    weights = _read_weights(folder, base, official)
    inside = any(name.startswith(_TOWER) for name in weights)
    if not inside and vision_tower is None and (vision_tower := find_tower(options.towers)):
        _log.info("%s holds no vision tower; took %s", folder.name, vision_tower.name)
        notes.append(f"it holds no vision tower; took {vision_tower.name}")
    if vision_tower:
        vision = _graft_tower(weights, vision_tower)
    elif not inside:
        tower = official["mm_vision_tower"]
        raise ValueError(
            f"{folder.name!r} holds no vision tower; give {tower} as 'vision_tower', a folder or a file"
        )
    check_counts(vision, f"the vision tower of {folder.name!r}")
    check_layers(vision, header_of(weights), f"the vision tower of {folder.name!r}")
    tokenizer_folder = folder if _has_tokenizer(folder) else base or folder
    check_sentencepiece(tokenizer_folder)
    check_tokenizer_files(tokenizer_folder)
    with one_kind_of_error(folder):
        # Its own config has a model_type that transformers does not know.
        kind = next(text for text, known in OFFICIAL_TYPES.items() if known == official["model_type"])
        tokenizer = read_language_tokenizer(tokenizer_folder, kind)
        image_token = find_image_token(
            tokenizer, weights["language_model.model.embed_tokens.weight"].shape[0]
        )
        found, told_by = choose_family(official, tokenizer, options.family, folder.name)
        log_choice(found, told_by)
        notes.append(f"official LLMGA checkpoint, family {found.name} ({told_by})")
        config = llava_config(official, vision, found, image_token)
        scales = check_against_model(folder.name, config, weights)
    if scales:
        undo_scale(weights, config.text_config.hidden_size)
    processor_folder = (
        folder if (folder / "processor_config.json").is_file() and image_token.token == "<image>" else None
    )
    return Checkpoint(
        folder.name,
        found,
        config,
        weights,
        tokenizer,
        image_token,
        find_eos_ids(tokenizer_folder, official),
        processor_folder,
        tuple(notes),
        _sampling(folder if (folder / _GENERATION).is_file() else tokenizer_folder),
    )


def _holds_a_model(folder: Path) -> bool:
    return first_file(folder, (*WHOLE, *(f"{whole}.index.json" for whole in WHOLE))) is not None


def check_sentencepiece(folder: Path) -> None:
    """transformers asks for a third package, which does not help, where one of the two is missing that read this file."""
    if (folder / "tokenizer.json").is_file() or not (folder / "tokenizer.model").is_file():
        return
    missing = [package for package, module in _SENTENCEPIECE.items() if not _is_installed(module)]
    if missing:
        raise ValueError(
            f"{folder.name!r} has its tokenizer as tokenizer.model alone, which needs {' and '.join(missing)}; run "
            f"`pip install {' '.join(missing)}`, or put the tokenizer.json of its base model beside it"
        )


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # of the package around it
        return False


def _has_tokenizer(folder: Path) -> bool:
    return first_file(folder, ("tokenizer.json", "tokenizer.model", "tokenizer_config.json")) is not None


def _official_config(folder: Path, base: Path | None) -> dict[str, Any]:
    """The official config, which a bare projector may lack: then it is its base model's."""
    if base is not None:
        kind = check_configs(base)
        if not (folder / "config.json").is_file():
            config = read_object(base / "config.json")
            return {**config, "model_type": OFFICIAL_TYPES.get(kind, kind)}
    check_configs(folder)
    return read_object(folder / "config.json")


def _check_official(name: str, official: dict[str, Any]) -> None:
    wanted = {"model_type": LLMGA_TYPES, **_WANTED}
    for key, allowed in wanted.items():
        value = official.get(key, None if key == "model_type" else allowed[0])
        if value not in allowed:
            words = " or ".join(map(repr, allowed))
            raise ValueError(f"{name}/config.json: {key} must be {words}, got {value!r}")


def _read_weights(folder: Path, base: Path | None, official: dict[str, Any]) -> Tensors:
    weights: Tensors = {}
    files = model_files(base or folder)
    found = read_files(files)
    header = header_of(found)
    check_language_model(files[0], header)
    check_types(header, (base or folder).name)
    check_layers(official, header, f"{folder.name}/config.json")
    check_finite(found.items(), (base or folder).name)
    for name, value in found.items():
        if (known := from_official(name)) is not None:
            weights[known] = value
    if "language_model.model.embed_tokens.weight" not in weights:
        raise ValueError(f"{(base or folder).name} lacks the tensor model.embed_tokens.weight")
    if base is not None and (projector := first_file(folder, PROJECTOR)):
        return weights | read_projector(projector)
    return merge_lora(folder, weights) if base is not None else weights


def _declared_tower(folder: Path, official: dict[str, Any]) -> dict[str, Any]:
    name = str(official.get("mm_vision_tower"))
    if (vision := declared_config(folder, name)) is None:
        raise ValueError(
            f"{folder.name}/config.json: mm_vision_tower {name!r} is not known; give its folder as 'vision_tower'"
        )
    return vision


def _graft_tower(weights: Tensors, source: Path) -> dict[str, Any]:
    """Put a tower from elsewhere among the weights, in place of the one there, if any; returns its config."""
    for name in [name for name in weights if name.startswith(_TOWER)]:
        del weights[name]
    vision, found = read_tower(source)
    weights |= found
    return vision


def llava_config(
    official: dict[str, Any],
    vision: dict[str, Any],
    family: Family,
    image_token: ImageToken,
    text_type: str | None = None,
) -> Any:
    """transformers' ``LlavaConfig`` from an official config, or from that of a language model of type ``text_type``."""
    from transformers import CONFIG_MAPPING, CLIPVisionConfig, LlavaConfig

    text = cleaned({key: value for key, value in official.items() if not key.startswith(_NOT_THE_TEXTS)})
    text_config = CONFIG_MAPPING[text_type or family.text](**text)
    vision_config: Any = CLIPVisionConfig(**vision)
    patches = (vision_config.image_size // vision_config.patch_size) ** 2
    whole = official.get("mm_vision_select_feature", "patch") == "cls_patch"
    config: Any = LlavaConfig  # whose types do not know of further values
    return config(
        text_config=text_config.to_dict(),
        vision_config=vision_config.to_dict(),
        image_token_index=image_token.id,
        image_seq_length=patches + whole,
        projector_hidden_act="gelu",
        vision_feature_layer=official.get("mm_vision_select_layer", -2),
        vision_feature_select_strategy="full" if whole else "default",
        tie_word_embeddings=text_config.tie_word_embeddings,
        architectures=["LlavaForConditionalGeneration"],
        llmga_family=family.name,
    )


def check_against_model(name: str, config: Any, weights: Tensors) -> bool:
    """Whether the model scales its word embeddings only; raise unless it takes exactly these tensors."""
    from transformers import LlavaForConditionalGeneration

    with torch.device("meta"):
        net = LlavaForConditionalGeneration(config)
    expected = {known: value.shape for known, value in llava_hf_names(net.state_dict()).items()}
    if config.tie_word_embeddings:
        expected.pop("language_model.lm_head.weight", None)
        weights.pop("language_model.lm_head.weight", None)
    check_tensors(
        {to_official_name(known): value for known, value in weights.items()},
        {to_official_name(known): shape for known, shape in expected.items()},
        name,
    )
    return hasattr(net.get_input_embeddings(), "embed_scale")


def undo_scale(weights: Tensors, hidden: int) -> None:
    """The training scaled words and pictures alike; transformers 5 scales Gemma's words where it embeds them."""
    for part in ("weight", "bias"):
        key = f"multi_modal_projector.linear_2.{part}"
        weights[key] = (weights[key].float() * hidden**0.5).to(weights[key].dtype)


def _sampling(folder: Path) -> dict[str, Any]:
    path = folder / _GENERATION
    settings = {**SAMPLING_DEFAULTS, **(read_object(path) if path.is_file() else {})}
    return {key: settings[key] for key in _SAMPLING if settings.get(key) is not None}


def find_eos_ids(folder: Path, official: dict[str, Any]) -> tuple[int, ...]:
    """The token ids that a folder's config and generation_config.json name as the end of a reply."""
    path = folder / _GENERATION
    settings = [official, read_object(path) if path.is_file() else {}]
    named = [value for each in settings if (value := each.get("eos_token_id")) is not None]
    ids = [end for value in named for end in (value if isinstance(value, list) else [value])]
    for end in ids:
        if type(end) is not int or not 0 <= end < 1 << 31:
            raise ValueError(
                f"{folder.name}: eos_token_id must be a token id or a list of them, got {end!r:.60}; download "
                "generation_config.json and config.json again"
            )
    return tuple(sorted(set(ids)))
