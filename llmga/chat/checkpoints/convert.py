"""From the official layout to a folder that transformers and vLLM serve as it is."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from PIL import Image

from ...files.tensors import Tensors
from ...files.writing import replacing, require_empty, whole_folder, write_text
from ..conversation import Picture
from ..engines.transformers_names import dtype_argument
from .families import IMAGE
from .official import Checkpoint, read_checkpoint
from .options import CheckpointOptions
from .slow_tokenizer import needs_plain_class
from .template import one_text_templates
from .vision import MEAN, STD

MAX_PART_BYTES = 4_500_000_000  # bytes of one weight file
_FORMAT = {"format": "pt"}


def convert(
    folder: Path, out: Path, options: CheckpointOptions | None = None, part: int = MAX_PART_BYTES
) -> Path:
    """Write an official checkpoint as transformers' LLaVA (``llava-hf`` names); returns ``out``.

    The same transcript becomes the same tokens as in the training. Two things are not the training's: transformers' own
    processor squashes a picture to the tower's size at once, not by way of a square of its longer side; and Gemma's
    projector is scaled for the installed transformers, whose word embeddings scale themselves from version 5 on.

    Args:
        folder, options: see ``read_checkpoint``.
        out: a folder that is not there yet, or empty.
        part: bytes after which the next weight file begins.

    Raises:
        FileNotFoundError, ValueError: the checkpoint cannot be read, or its tokenizer reads a transcript in one text in
            another way than in pieces.
        FileExistsError: ``out`` holds something.
    """
    require_empty(out)
    return write_checkpoint(read_checkpoint(folder, options), out, part)


def write_checkpoint(checkpoint: Checkpoint, out: Path, part: int = MAX_PART_BYTES) -> Path:
    """Write what was read or joined as transformers' LLaVA; see ``convert``. Nothing is left of one that is stopped."""
    with whole_folder(out) as folder:
        _write_processor(checkpoint, folder)
        setattr(checkpoint.config, dtype_argument(), checkpoint.dtype)
        checkpoint.config.save_pretrained(folder)
        ends = {"eos_token_id": list(checkpoint.eos_ids)} if checkpoint.eos_ids else {}
        if settings := {**ends, **checkpoint.sampling}:
            _write_json(folder / "generation_config.json", **settings)
        _write_weights(checkpoint.weights, folder, part)
    return out


def _write_processor(checkpoint: Checkpoint, out: Path) -> None:
    if checkpoint.processor_folder:
        for path in checkpoint.processor_folder.iterdir():
            kept = path.suffix not in (".safetensors", ".bin") and not path.name.startswith(
                ("model.", "config.")
            )
            if path.is_file() and kept:
                shutil.copyfile(path, out / path.name)
        return
    tokenizer, image_token, vision = (
        checkpoint.tokenizer,
        checkpoint.image_token,
        checkpoint.config.vision_config,
    )
    if image_token.token is None:
        from tokenizers import AddedToken

        tokenizer.add_tokens([AddedToken(IMAGE, normalized=False, special=True)], special_tokens=True)
    size = {"height": vision.image_size, "width": vision.image_size}
    _write_json(
        out / "preprocessor_config.json",
        image_processor_type="CLIPImageProcessor",
        processor_class="LlavaProcessor",
        do_resize=True,
        size=size,
        do_center_crop=False,
        crop_size=size,
        resample=3,
        do_rescale=True,
        do_normalize=True,
        do_convert_rgb=True,
        image_mean=MEAN,
        image_std=STD,
    )
    strategy = checkpoint.config.vision_feature_select_strategy
    _write_json(
        out / "processor_config.json",
        processor_class="LlavaProcessor",
        image_token=image_token.token or IMAGE,
        patch_size=vision.patch_size,
        vision_feature_select_strategy=strategy,
        num_additional_image_tokens=1,
    )
    for template in one_text_templates(checkpoint.family, tokenizer, image_token.token or IMAGE):
        tokenizer.chat_template = None
        tokenizer.save_pretrained(out)
        _keep_rules(tokenizer, out / "tokenizer_config.json")
        (out / "chat_template.jinja").unlink(missing_ok=True)
        _write_json(out / "chat_template.json", chat_template=template)
        if _reads_alike(checkpoint, out):
            return
    raise ValueError(
        f"{checkpoint.name!r}: its tokenizer reads a transcript in one text in another way than piece by piece, as in the "
        "training; load the official folder itself"
    )


def _keep_rules(tokenizer: Any, path: Path) -> None:
    """What transformers 5 reads of a Llama tokenizer and does not write: ``legacy`` (a space before what follows a control
    token), which it takes for False where it is not written, and rules other than its own."""
    settings = json.loads(path.read_text(encoding="utf-8"))
    if needs_plain_class(tokenizer):
        settings.pop("legacy", None)
        _write_json(path, **{**settings, "tokenizer_class": "PreTrainedTokenizerFast"})
    elif isinstance(legacy := getattr(tokenizer, "legacy", None), bool):
        _write_json(path, **{**settings, "legacy": legacy})


def _reads_alike(checkpoint: Checkpoint, out: Path) -> bool:
    """Whether the written processor makes the training's tokens of two turns with two pictures."""
    from transformers import AutoProcessor

    pictures = [{"type": "image"}] * 2
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": [*pictures, {"type": "text", "text": "Like this.  So:\n    狐 é"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "<gen_image> A fox </gen_image>"}]},
        {"role": "user", "content": [{"type": "text", "text": "Bigger"}]},
    ]
    black = Image.new("RGB", (8, 8))
    ours, theirs = checkpoint.processor(), AutoProcessor.from_pretrained(out, local_files_only=True)
    ids = []
    for processor, settings in (
        (ours, {"images": [[Picture.from_pil(black)] * 2]}),
        (theirs, {"images": [[black] * 2], "add_special_tokens": False}),
    ):
        text = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        inputs = processor(text=[text], return_tensors="pt", **settings)
        ids.append(inputs["input_ids"][0].tolist())
    return ids[0] == ids[1]


def _write_weights(weights: Tensors, out: Path, part: int) -> None:
    """Under llava-hf names, which every transformers and vLLM read, whatever their own modules are called."""
    from safetensors.torch import save_file

    parts: list[Tensors] = [{}]
    size = 0
    for name, value in sorted(weights.items()):
        if size and size + value.nbytes > part:
            parts.append({})
            size = 0
        parts[-1][name] = value
        size += value.nbytes
    files = {"model.safetensors": parts[0]}
    if len(parts) > 1:
        files = {f"model-{i + 1:05}-of-{len(parts):05}.safetensors": each for i, each in enumerate(parts)}
        where = {name: file for file, each in files.items() for name in each}
        total = sum(value.nbytes for value in weights.values())
        _write_json(out / "model.safetensors.index.json", metadata={"total_size": total}, weight_map=where)
    for file, each in files.items():
        # A copy one file at a time: tensors of a memory-mapped pickle share their storage.
        with replacing(out / file) as temporary:
            save_file({name: value.contiguous().clone() for name, value in each.items()}, temporary, _FORMAT)


def _write_json(path: Path, **values: Any) -> None:
    write_text(path, json.dumps(values, indent=1, ensure_ascii=False))
